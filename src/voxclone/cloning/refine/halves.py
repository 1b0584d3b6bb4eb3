"""The two halves of a recording: each one is the held-out speech of the other.

Shapes: S samples, T frames.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from voxclone.audio.loudness import SILENCE
from voxclone.cloning.transcription import load_transcriber
from voxclone.errors import AudioError
from voxclone.spec import SAMPLING_RATE

LEAST_SECONDS = 2.0
"""Of a half: language model and speaker encoder need as much."""
MIDDLE = 0.25  # the cut lies within this part of the clip on both sides of its middle


@dataclass(frozen=True)
class Halves:
    """The frame at which a recording is cut, and the words on both sides."""

    cut: int
    texts: tuple[str, str]

    def parts(self, value_xT: Tensor, scale: int = 1) -> tuple[Tensor, Tensor]:
        """Both parts of a tensor along time, of `scale` elements a frame."""
        cut = self.cut * scale
        return value_xT[..., :cut], value_xT[..., cut:]


def quietest_cut(wave_S: Tensor, frame_size: int) -> int:
    """The frame near the middle with the quietest beginning. Raises AudioError for a clip whose
    halves would be too short."""
    frames = len(wave_S) // frame_size
    least = math.ceil(LEAST_SECONDS * SAMPLING_RATE / frame_size)
    if frames < 2 * least:
        raise AudioError(
            f"The reference has {len(wave_S) / SAMPLING_RATE:.1f} s; refined codes are evaluated "
            f"on halves of {LEAST_SECONDS:g} s or more: give a longer recording."
        )
    power_T = wave_S[: frames * frame_size].reshape(frames, frame_size).square().mean(dim=-1)
    around_T = power_T + F.pad(power_T, (1, 0))[:-1]
    first = max(least, math.ceil(frames * (0.5 - MIDDLE)))
    last = min(frames - least, int(frames * (0.5 + MIDDLE)))
    return first + int(around_T[first : last + 1].argmin())


def transcribed_halves(wave_S: Tensor, frame_size: int) -> Halves:
    """The halves of a recording with their words. Raises AudioError for a recording that is too
    short, or that has a silent half."""
    cut = quietest_cut(wave_S, frame_size)
    parts = (wave_S[: cut * frame_size], wave_S[cut * frame_size :])
    for part_S, side in zip(parts, ("before", "after"), strict=True):
        if float(part_S.abs().max()) < SILENCE:
            raise AudioError(
                f"The reference has no sound {side} {cut * frame_size / SAMPLING_RATE:.1f} s, and "
                "refined codes are evaluated on halves: cut the silence off, or give a recording "
                "with more speech.",
                "silent",
            )
    transcribe = load_transcriber()
    return Halves(cut, (transcribe(parts[0]), transcribe(parts[1])))
