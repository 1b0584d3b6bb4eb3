"""Crops of speech, drawn on the device that holds the samples.

All shapes are fixed by the settings. The first rows of a batch are played at another speed: as many
more voices, whose sounds no teacher has states for.

Shapes: B batch, R rows at another speed, S samples, U samples of all clips, N clips, J taps.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.config import Settings
from voxclone.data.corpus import FULL_SCALE, PackedCorpus, Subset
from voxclone.rng import step_generator

TAPS = 16
"""Samples on each side of one that is interpolated."""


class CropSettings(Settings):
    """`frames` codec frames of each of `batch` clips, at a gain out of `gains_db`. A share
    `speed_share` of them is played at a speed out of `speeds`."""

    batch: int
    frames: int
    speeds: tuple[float, float] = (0.8, 1.25)
    speed_share: float = 0.4
    gains_db: tuple[float, float] = (-6.0, 3.0)
    speaker_balance: float = 0.7

    @property
    def changed_rows(self) -> int:
        """How many rows have another speed."""
        return round(self.speed_share * self.batch)


@dataclass(frozen=True)
class DrawnCrops:
    """Crops [B, S]: the clip of each (its index in the corpus), and its first codec frame there."""

    wave_BS: Tensor
    index_B: Tensor
    frame_B: Tensor


class CropSource:
    """The samples of a corpus on a device, and the clips of a subset to draw from."""

    def __init__(
        self, subset: Subset, settings: CropSettings, frame_size: int, device: torch.device
    ) -> None:
        corpus = subset.corpus
        assert isinstance(corpus, PackedCorpus)
        self.settings, self.frame_size, self.device = settings, frame_size, device
        with warnings.catch_warnings():  # the memory map is only read
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            self._samples_U = torch.from_numpy(corpus.samples).to(device)
        self._starts_N = torch.from_numpy(corpus.starts).to(device)
        self._clips_M = torch.tensor(subset.indices, device=device)
        self._weights_M = subset.weights(settings.speaker_balance).float().to(device)

    def draw(self, generator: torch.Generator) -> DrawnCrops:
        """A batch; all clips are drawn by length and speaker, crops begin on codec frames."""
        settings, size = self.settings, self.frame_size
        batch, count = settings.batch, settings.frames * size
        slow, fast = settings.speeds
        drawn_B = torch.multinomial(self._weights_M, batch, replacement=True, generator=generator)
        index_B = self._clips_M[drawn_B]
        starts_B, ends_B = self._starts_N[index_B], self._starts_N[index_B + 1]
        spare_B = (ends_B - starts_B - math.ceil(count * fast)).clamp(min=0)
        start_B, speed_B, gain_B = torch.rand(3, batch, generator=generator, device=self.device)
        frame_B = (start_B * (spare_B // size + 1)).long()
        first_B = starts_B + frame_B * size
        rows = settings.changed_rows

        def read(row: slice, offset: Tensor) -> Tensor:
            """Samples at offsets from the beginnings of crops, silence beyond a clip."""
            shape = (-1, *[1] * (offset.ndim - 1))
            at = first_B[row].view(shape) + offset
            inside = (at >= starts_B[row].view(shape)) & (at < ends_B[row].view(shape))
            values = self._samples_U[at.clamp(0, len(self._samples_U) - 1)]
            return torch.where(inside, values.float() / FULL_SCALE, 0.0)

        rate_R = slow + (fast - slow) * speed_B[:rows]
        changed_RS = change_speed(lambda offset: read(slice(rows), offset), rate_R, count)
        offset_1S = torch.arange(count, device=self.device)[None]
        plain_S = read(slice(rows, None), offset_1S)
        quietest, loudest = settings.gains_db
        gain_B1 = 10 ** ((quietest + (loudest - quietest) * gain_B[:, None]) / 20)
        return DrawnCrops(torch.cat([changed_RS, plain_S]) * gain_B1, index_B, frame_B)


def change_speed(read: Callable[[Tensor], Tensor], rate_R: Tensor, count: int) -> Tensor:
    """Samples [R, count] of signals played `rate` times as fast, which begin where they do.

    `read` gives samples at offsets [R, S, J]. A sinc under a squared cosine of 2 * `TAPS` samples,
    cut off at half the lower of both sampling rates.
    """
    rate_R1 = rate_R[:, None]
    at_RS = torch.arange(count, device=rate_R.device).double() * rate_R1.double()
    base_RS = at_RS.floor().long()
    tap_J = torch.arange(1 - TAPS, TAPS + 1, device=rate_R.device)
    distance_RSJ = tap_J - (at_RS - base_RS).float()[..., None]
    cutoff_R11 = (1 / rate_R1).clamp(max=1.0)[..., None]
    window_RSJ = torch.cos(math.pi / 2 * (distance_RSJ / (TAPS + 1)).clamp(-1, 1)).square()
    kernel_RSJ = cutoff_R11 * torch.sinc(distance_RSJ * cutoff_R11) * window_RSJ
    return (read(base_RS[..., None] + tap_J) * kernel_RSJ).sum(dim=-1)


def device_generator(seed: int, step: int, stream: int, device: torch.device) -> torch.Generator:
    """The random numbers of one step on a device: a function of seed, step and stream."""
    return torch.Generator(device).manual_seed(step_generator(seed, step, stream).initial_seed())
