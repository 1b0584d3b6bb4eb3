"""From blocks of samples at any rate to float32 mono at 24 kHz, checked while it is converted.

Files may be hostile: an hour of silence fits into a few bytes, and about one damaged file in
twenty decodes without an error to nothing, to NaN or to silence. So blocks are checked, mixed and
resampled one by one, and a recording that is too long is never held in memory.

Shapes: S samples, C channels.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import soxr

from voxclone.audio.channels import ChannelChoice, ChannelPowers
from voxclone.errors import AudioError
from voxclone.spec import SAMPLING_RATE

MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 8000, 192000
FLAT_RUN = 3  # this many samples in a row within 0.1 % of the peak are a flat top
MIN_PEAK = 0.01  # below, steps of 16 bits make flat tops of waves that were never cut
BLOCK_SAMPLES = 1 << 18  # of all channels together: 1 MiB of float32
CANCELLED = 0.01  # a mix below this share of a channel's energy: the channels cancel each other

Blocks = Callable[[], Iterator[np.ndarray]]
"""Yields float32 [S, C]. A function, because a recording is read twice to use one channel alone."""


@dataclass(frozen=True, eq=False)
class Converted:
    """Mono samples at 24 kHz, and what was measured while they were converted."""

    wave_S: np.ndarray  # float32 [S]
    clipped_share: float  # of the samples of all channels
    choice: ChannelChoice | None  # the only channel used, if not all are


def check_header(
    rate: int, channels: int, frames: int | None, label: str, max_seconds: float
) -> None:
    """Raise AudioError for a rate, a number of channels or a length (if known) out of bounds."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"{label} has a sampling rate of {rate} Hz; {MIN_RATE} to {MAX_RATE} Hz can be used.",
            "wrong rate",
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"{label} has {channels} channels; 1 to {MAX_CHANNELS} can be used.")
    if frames is not None and frames > max_seconds * rate:
        seconds = math.ceil(10 * frames / rate) / 10  # never the limit itself
        raise _too_long(f"{label} is {format_duration(seconds)} long", max_seconds)


def convert(blocks: Blocks, rate: int, channels: int, label: str, max_seconds: float) -> Converted:
    """Check, mix and resample the blocks (float32 [S, C]) that `blocks()` yields.

    Raises AudioError for no samples, NaN or infinite samples, digital silence and more than
    `max_seconds`; `label` names the recording in the message.
    """
    flat, powers = _FlatTops(), ChannelPowers(rate, channels)
    energy_C, mix_energy, frames = np.zeros(channels), 0.0, 0

    def mixed() -> Iterator[np.ndarray]:
        nonlocal mix_energy, frames
        for block_SC in _checked(blocks(), rate, label, max_seconds):
            frames += len(block_SC)
            flat.add(block_SC)
            mix_S = block_SC.mean(axis=1)
            energy_C[:] += np.square(block_SC, dtype=np.float64).sum(axis=0)
            mix_energy += float(np.square(mix_S, dtype=np.float64).sum())
            if channels > 1:
                powers.add(block_SC, mix_S)
            yield mix_S

    choice = None
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        wave_S = _resample(mixed(), rate)
        loudest = int(energy_C.argmax())
        if mix_energy < CANCELLED * energy_C[loudest]:
            choice = ChannelChoice(loudest, "opposite")
        elif channels > 1 and frames:
            choice = powers.choose()
        if choice is not None:
            wave_S = _resample((block_SC[:, choice.channel] for block_SC in blocks()), rate)
    if not len(wave_S):
        raise AudioError(f"{label} holds no samples: it decodes to nothing.")
    if not energy_C.any():
        raise AudioError(f"{label} is digital silence: every sample is zero.", "silent")
    if not np.isfinite(wave_S).all():
        raise AudioError(
            f"{label} holds numbers far beyond the range of audio samples.", "not finite"
        )
    clipped = flat.count / (frames * channels) if flat.peak >= MIN_PEAK else 0.0
    return Converted(wave_S, clipped, choice)


def to_float(samples_SC: np.ndarray) -> np.ndarray:
    """Integers of any width as float32 in [-1, 1); floats as float32. Raises TypeError."""
    kind, half = samples_SC.dtype.kind, 2.0 ** (8 * samples_SC.dtype.itemsize - 1)
    if kind == "u":
        return ((samples_SC - half) / half).astype(np.float32)
    if kind == "i":
        return (samples_SC / half).astype(np.float32)
    if kind != "f":
        raise TypeError(f"the type is {samples_SC.dtype}")
    return samples_SC.astype(np.float32, copy=False)


def format_duration(seconds: float) -> str:
    """A length for messages: `0.4 s`, `75.0 s`, `10 min`, `5 min 1.5 s`, `3 h 20 min`."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        minutes, tenths = divmod(round(10 * seconds), 600)
        return f"{minutes} min {tenths / 10:g} s" if tenths else f"{minutes} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def _too_long(problem: str, max_seconds: float) -> AudioError:
    return AudioError(
        f"{problem}, and at most {format_duration(max_seconds)} can be read: cut out the part that "
        "you need.",
        "too long",
    )


def _checked(
    blocks: Iterable[np.ndarray], rate: int, label: str, max_seconds: float
) -> Iterator[np.ndarray]:
    """The blocks, up to the first that is not finite; from there on only counts, then raises."""
    frames = count = first = 0
    for block_SC in blocks:
        finite_SC = np.isfinite(block_SC)
        if not count and not finite_SC.all():
            first = frames + int(finite_SC.all(axis=1).argmin())
        count += finite_SC.size - int(finite_SC.sum())
        frames += len(block_SC)
        if frames > max_seconds * rate:
            raise _too_long(f"{label} is longer than its header says", max_seconds)
        if not count:
            yield block_SC
    if count:
        noun = "sample that is" if count == 1 else "samples that are"
        raise AudioError(
            f"{label} holds {count} {noun} NaN or infinite, the first at {first / rate:.3f} s "
            f"(sample {first}).",
            "not finite",
        )


def _resample(blocks: Iterable[np.ndarray], rate: int) -> np.ndarray:
    """Mono blocks [S] at `rate` joined at 24 kHz; bit-equal to resampling them in one piece."""
    if rate == SAMPLING_RATE:
        parts = list(blocks)
    else:
        stream = soxr.ResampleStream(rate, SAMPLING_RATE, 1, dtype="float32")
        parts = [stream.resample_chunk(block_S) for block_S in blocks]
        parts.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


class _FlatTops:
    """Counts the samples of runs at the peak, before mixing and resampling hide them.

    The peak is known only at the end: a higher one voids what was counted below it.
    """

    def __init__(self) -> None:
        self.peak, self.count = 0.0, 0

    def add(self, block_SC: np.ndarray) -> None:
        size_SC = np.abs(block_SC)
        top = float(size_SC.max(initial=0.0))
        if top > self.peak * 1.001:
            self.count = 0
        self.peak = max(self.peak, top)
        near_SC = size_SC >= max(self.peak * 0.999, np.finfo(np.float32).tiny)
        if near_SC.sum() < FLAT_RUN:
            return
        padded_SC = np.pad(near_SC, ((FLAT_RUN - 1, FLAT_RUN - 1), (0, 0)))
        windows_SCW = np.lib.stride_tricks.sliding_window_view(padded_SC, FLAT_RUN, axis=0)
        full_SC = windows_SCW.all(axis=-1)  # by the first sample of a window of the padded block
        inside_SCW = np.lib.stride_tricks.sliding_window_view(full_SC, FLAT_RUN, axis=0)
        self.count += int(inside_SCW.any(axis=-1).sum())
