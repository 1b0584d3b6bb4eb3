"""A tiny recovery with every part switched on, to be run, killed and divided in other processes."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from tests.helpers.random_weights import drawn_codec
from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Codec
from voxclone.data.corpus import Corpus, Crops, PackedCorpus, Subset
from voxclone.data.manifest import Clip
from voxclone.errors import AudioError, VoxcloneError
from voxclone.models.ctc_asr import Recognizer, RecognizerConfig
from voxclone.train import recovery, told
from voxclone.train.channel import ChannelSettings, Label
from voxclone.train.encoder import EncoderTask, encoder_state
from voxclone.train.encoder_settings import EncoderTraining
from voxclone.train.run import Outcome, fit

with contextlib.suppress(ImportError):  # once, and not in every process
    import torch.utils.tensorboard

CODEC = CodecConfig(
    semantic_codebook_size=16, semantic_dim=6, acoustic_dim=3, dim=16, hidden_dim=24, head_dim=8,
    n_heads=2, n_kv_heads=2,
)  # fmt: skip
QUIET = Console(quiet=True)
EVERYTHING: dict[str, Any] = {
    "run": {"steps": 6, "save_every": 1, "validate_every": 3, "log_every": 2, "autocast": False,
            "ema": 0.9},
    "optimiser": {"lr": 1e-3, "warmup_steps": 2, "muon": True},
    "weights": {
        "pair_semantic": 0.2, "pair_levels": 1.0, "cycle_semantic": 0.1, "cycle_levels": 0.5,
        "robust_semantic": 0.1, "robust_levels": 0.1, "mel": 2.0, "stft": 0.5, "low": 1.0,
        "l1": 0.5, "feature": 1.0, "critic": 0.1, "level_prior": 0.1, "usage_prior": 0.1,
        "code_means": 0.1, "magnitude": 0.1,
        "diversity": 0.1, "scale": 0.1, "shaping": 0.1, "commitment": 0.1, "bridge": 0.1,
        "distil": 0.5,
    },
    "balance": True, "adversary": {"n_ffts": [64, 32], "channels": 2}, "adversary_from": 1,
    "pair_batch": 4, "real_batch": 4, "told_batch": 4, "frames": 4, "real_from": 1, "cycle_from": 2,
    "mel_scales": [[256, 20]], "n_ffts": [256],
}  # fmt: skip


def settings_of(**changes: Any) -> EncoderTraining:
    """The settings of `EVERYTHING` with some groups or values changed."""
    values = dict(EVERYTHING)
    for name, value in changes.items():
        values[name] = values.get(name, {}) | value if isinstance(value, Mapping) else value
    return EncoderTraining.model_validate(values)


def humming() -> Corpus:
    """Clips of half a second, each louder than the one before; the first is shorter than a crop."""
    time = torch.arange(12000) / 24000
    clips, waves, starts = [], [], [0]
    for index in range(5):
        pitch = 90.0 * 1.2**index
        wave = sum(torch.sin(2 * torch.pi * pitch * h * time) / h for h in range(1, 7))
        wave_S = (0.01 * 1.8**index * wave * 32767).to(torch.int16)  # type: ignore[union-attr]
        wave_S = wave_S[:6000] if index == 0 else wave_S
        clips.append(Clip(f"c{index}", Path("none"), f"s{index % 2}", len(wave_S) / 24000))
        waves.append(wave_S)
        starts.append(starts[-1] + len(wave_S))
    return PackedCorpus(clips, starts, torch.cat(waves).numpy())


class Victim(EncoderTask):
    """`before` is called before each step; at `poisoned` steps real speech is not finite, and from
    the step `vanished` on it cannot be read (when the bridge has stepped already)."""

    before: Callable[[int], None] = staticmethod(lambda step: None)
    poisoned: frozenset[int] = frozenset()
    vanished: int | None = None
    _now = -1

    def train_step(self, step: int) -> dict[str, Tensor]:
        self.before(step)
        self._now = step
        return super().train_step(step)

    def _draw(self, generator: torch.Generator, part: slice = slice(None)) -> Crops:
        crops = super()._draw(generator, part)
        if self.vanished is not None and self._now >= self.vanished:
            raise AudioError("c1 cannot be read.")
        spoiled = self._now in self.poisoned and part != slice(None)
        return Crops(crops.indices, crops.starts, crops.wave_BS * (torch.nan if spoiled else 1))


def victim(settings: EncoderTraining, labels: Path | None = None) -> Victim:
    """A training; with the weight `told` it needs a folder for `labels`, and `told.label_clips`
    must not ask its model, which is none."""
    generator = torch.Generator().manual_seed(0)
    genuine = [
        torch.cat(
            [
                torch.randint(16, (1, length), generator=generator),
                torch.randint(21, (3, length), generator=generator),
            ]
        )
        for length in (2, 9, 3, 4, 1, 9, 3)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher = Recognizer(RecognizerConfig(characters=" abc", dim=8, blocks=1))
    corpus = humming()
    codec = drawn_codec(CODEC)
    # A code that is hardly used has an enormous vector, beside which all else is rounding.
    codec.quantizer.semantic_codebook.cluster_usage.clamp_(min=0.5)
    task = Victim.create(
        settings, codec, genuine, {"p": genuine[1]}, corpus,
        corpus.subset(lambda clip: True), teacher, cast(Any, object()), labels,
    )  # fmt: skip
    assert isinstance(task, Victim)
    return task


def train(folder: Path, task: Victim | None = None, **more: Any) -> tuple[Victim, Outcome]:
    """Go on with the training in a folder, to its end."""
    settings = settings_of() if task is None else task.settings
    task = victim(settings) if task is None else task
    config = settings.model_dump(mode="json")
    arguments = {"resume": True, "config": config, "console": QUIET} | more
    return task, fit(task, settings.run, folder, **arguments)


def write_state(task: EncoderTask, path: Path) -> None:
    """Everything that a checkpoint would hold, and the encoder that would be written."""
    tensors = {name: tensor.clone() for name, tensor in task.state.tensors().items()}
    temporary = path.with_suffix(".tmp")
    save_file(tensors | {f"written.{k}": v for k, v in encoder_state(task).items()}, temporary)
    os.replace(temporary, path)


def run_alone(folder: Path, result: Path) -> None:
    """What is killed: train in `folder`, then write the state to `result`."""
    torch.set_num_threads(1)
    task, _ = train(folder)
    write_state(task, result)


def join(rank: int, size: int, meeting: Path) -> None:
    """Become one of `size` processes."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size,
        timeout=timedelta(minutes=10),
    )  # fmt: skip


def run_in_group(
    rank: int,
    size: int,
    meeting: Path,
    folder: Path,
    changes: dict[str, Any],
    poisoned: dict[int, list[int]],
    vanished: Mapping[int, int] | None = None,
    terminate_at: int | None = None,
    terminate_at_clip: int | None = None,
    outs: Sequence[str] = (),
) -> None:
    """One of `size` processes of the command, which writes into `folder`, or into a folder of its
    own number in it, out of `outs`; ends with its code, or the error's. `rank-N.txt` has the
    error's sentence and the values of the state. `poisoned` are steps by rank, `vanished`
    is a step by rank; the last process is sent SIGTERM at a step, or when the first one labels the
    clip of a number."""
    join(rank, size, meeting)
    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    tasks: list[Victim] = []

    def terminate(step: int) -> None:
        if step == terminate_at and rank == size - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def label(clip: int) -> None:
        with (folder / "labelled").open("a") as file:
            file.write(f"{clip}\n")
        if clip == terminate_at_clip:
            os.kill(int((folder / f"pid-{size - 1}").read_text()), signal.SIGTERM)

    def prepare(settings: EncoderTraining, out: Path, console: Console) -> Victim:
        (folder / f"prepared-{rank}").touch()
        task = victim(settings, out / "labels")
        task.poisoned, task.before = frozenset(poisoned.get(rank, [])), terminate
        task.vanished = (vanished or {}).get(rank)
        tasks.append(task)
        return task

    told.label_clips = partial(draw_labels, label)
    recovery.prepare = prepare
    recovery.Release.open = lambda source: None  # type: ignore[assignment, method-assign]
    recovery.save_encoder = lambda *given: None
    out, said = folder / outs[rank] if outs else folder, ""
    try:
        code = recovery.recover(settings_of(**changes), out, QUIET, resume=True)
    except VoxcloneError as error:
        code, said = error.exit_code, str(error)
    for task in tasks:
        write_state(task, folder / f"rank-{rank}.safetensors")
        said += f" {task.state.step} {task.state.values}"
    (folder / f"rank-{rank}.txt").write_text(said)
    sys.exit(code)


def draw_labels(
    label: Callable[[int], None],
    codec: Codec,
    bridge: object,
    model: object,
    subset: Subset,
    settings: ChannelSettings,
    generator: torch.Generator,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[int, Label]:
    """As `channel.label_clips`, without a language model, 20 ms for a clip; `label` is called with
    the number of each, of which the first clips have labels at the end."""
    labels = {}
    for number in track(range(settings.clips)):
        time.sleep(0.02)
        label(number)
        code_TJ = torch.randint(16, (7, 2), generator=generator)
        labels[subset.indices[number % len(subset.indices)]] = Label(
            code_TJ, torch.full((7, 2), 0.5)
        )
    return labels
