"""What a step is made of: its micro-batches, and items that are a function of seed, step and item,
whichever process computes them.

Shapes: B batch, K codebooks, T frames.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor

from voxclone.codec.quantizer import QuantizationDraws
from voxclone.data.augment import Degradation, DegradationDraws, draw_degradation
from voxclone.data.corpus import Crops
from voxclone.data.pairs import draw_pairs, perturb
from voxclone.errors import ConfigError
from voxclone.rng import step_generator
from voxclone.train import distributed

# Streams of random numbers of a step: what pairs there are, which crops of real speech, which of
# labeled clips, labels, speakers; and further on one for each item of pairs, crops and speakers.
PAIRS, CROPS, LABELED, LABELS, SPEAKERS = 0, 1, 2, 3, 4
OF_PAIRS, OF_CROPS, OF_SPEAKERS = 10**6, 2 * 10**6, 3 * 10**6
PERTURBED_ITEMS, PERTURBED_LEVELS = 0.3, 0.15
"""The share of pairs that are near genuine ones, and of their levels that are others."""
BatchT = TypeVar("BatchT")
AHEAD = 2
"""Steps whose batches are made while one computes."""


@dataclass(frozen=True)
class MicroBatch:
    """One of the `count` micro-batches of a step, one after another (gradients accumulate), and of
    it the part of this process. Micro-batch m of all processes together are consecutive items of
    the step's batch."""

    index: int = 0
    count: int = 1

    @property
    def parts(self) -> int:
        """Parts of a step's batch: its micro-batches, over all processes."""
        return self.count * distributed.world_size()

    def of(self, items: int) -> slice:
        """Which of the `items` of a step's batch are this part."""
        each = items // self.parts
        begin = (self.index * distributed.world_size() + distributed.rank()) * each
        return slice(begin, begin + each)


def micro_batches(count: int) -> list[MicroBatch]:
    """All micro-batches of a step."""
    return [MicroBatch(index, count) for index in range(count)]


def check_batches(batches: dict[str, int], micro_batches: int) -> None:
    """Raise ConfigError if a batch cannot be divided into equal parts."""
    processes = distributed.world_size()
    parts = micro_batches * processes
    for name, items in batches.items():
        if items % parts:
            raise ConfigError(
                f"`{name}` is {items}, which {processes} processes with `run.micro_batches` "
                f"{micro_batches} cannot share evenly: it is the batch of all together, so make it "
                f"a multiple of {parts}."
            )


@dataclass(frozen=True)
class PairBatch:
    """A micro-batch of codes [B, K, T], which of its B * T frames are no padding, and how their
    audio is degraded. `share` is the number of these frames over that of a part on average: a mean
    over them, times this, has as its mean over parts the mean over the frames of the whole
    batch."""

    codes_BKT: Tensor
    kept_N: Tensor
    degradation: DegradationDraws
    share: float


@dataclass(frozen=True)
class SpeechBatch:
    """A micro-batch of crops of real speech, and what their quantization depends on."""

    crops: Crops
    quantization: QuantizationDraws


@dataclass(frozen=True)
class StepBatch:
    """The pairs, the real speech and the crops of labeled clips of a micro-batch, where a step has
    them."""

    pairs: PairBatch | None
    speech: SpeechBatch | None
    labeled: Crops | None

    def pinned(self) -> "StepBatch":
        """The same in memory from which a GPU copies while it computes."""
        return _map_tensors(self, Tensor.pin_memory)

    def to(self, device: torch.device) -> "StepBatch":
        return _map_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))


def _map_tensors(value: BatchT, function: Callable[[Tensor], Tensor]) -> BatchT:
    """A dataclass with the function applied to the tensors in it, and in its dataclasses."""
    found: Any = value
    if isinstance(found, Tensor):
        found = function(found)
    elif isinstance(found, list):
        found = [_map_tensors(each, function) for each in found]
    elif is_dataclass(found):
        own = {each.name: getattr(found, each.name) for each in fields(found)}
        made: Any = type(found)
        found = made(**{name: _map_tensors(each, function) for name, each in own.items()})
    return cast(BatchT, found)


@dataclass(frozen=True)
class PairSource:
    """Genuine codes [K, T], their highest level, and how many of them make a step's batch; their
    length in frames and in samples, and how their audio is degraded."""

    genuine: Sequence[Tensor]
    top: int
    count: int
    frames: int
    samples: int
    degradation: Degradation

    def draw(self, seed: int, step: int, micro: MicroBatch) -> PairBatch:
        """The part of a step's batch that is this micro-batch."""
        generator = step_generator(seed, step, PAIRS)
        codes_BKT, mask_BT = draw_pairs(self.genuine, self.count, self.frames, generator)
        codes_BKT = perturb(
            codes_BKT, generator, items=PERTURBED_ITEMS, levels=PERTURBED_LEVELS, top=self.top
        )
        own = micro.of(self.count)
        share = float(mask_BT[own].sum() * micro.parts / mask_BT.sum())
        generators = item_generators(seed, step, OF_PAIRS, own)
        draws = draw_degradation(self.samples, self.degradation, generators)
        # Found here: on a GPU, finding them would wait for all that it has to do.
        kept_N = mask_BT[own].flatten().nonzero()[:, 0]
        return PairBatch(codes_BKT[own], kept_N, draws, share)


def item_generators(seed: int, step: int, first: int, part: slice) -> list[torch.Generator]:
    """A generator for each item of a part; `first` is the stream of item 0."""
    return [step_generator(seed, step, first + item) for item in range(part.start, part.stop)]


@dataclass
class Prefetcher(Generic[BatchT]):
    """Gives the batch of a step, and has those of the next ones made, up to `steps`. `make` depends
    on its step alone, so a run gives the same results without a prefetcher; where something else
    changes, `clear` comes first."""

    make: Callable[[int], BatchT]
    steps: int
    _made: dict[int, Future[BatchT]] = field(default_factory=dict, init=False)
    _thread: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "batches")

    def take(self, step: int) -> BatchT:
        """The batch of a step. An error of `make` for this step is raised here."""
        wanted = range(step, max(step + 1, min(step + 1 + AHEAD, self.steps)))
        for other in self._made.keys() - set(wanted):
            self._made.pop(other).cancel()
        for each in wanted:
            if each not in self._made:
                self._made[each] = self._thread.submit(self.make, each)
        return self._made.pop(step).result()

    def clear(self) -> None:
        """Forget what was made ahead."""
        for each in self._made.values():
            each.cancel()
        self._made.clear()
