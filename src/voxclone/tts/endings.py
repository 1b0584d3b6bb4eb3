"""The end of generated speech: where it falls silent, and fades that leave no click.

Shapes: S samples, T frames of 20 ms.
"""

import numpy as np
import torch
from torch import Tensor

from voxclone.audio import measure

FADE_SECONDS = 0.005
SILENT_DBFS = -50.0
"""The level of the loudest 20 ms. Speech of the presets is at -20; a model that has lost its text
hums at -55."""
TAIL_SECONDS = 0.2
"""Kept after the last speech."""


def is_silent(wave_S: Tensor, rate: int) -> bool:
    """Whether nothing in a wave is as loud as speech."""
    if not len(wave_S):
        return True
    power_T = measure.frame_powers(wave_S.numpy(), rate)
    return float(measure.to_db(power_T.max())) < SILENT_DBFS


def speech_end(wave_S: Tensor, rate: int) -> int:
    """Samples up to the end of the last speech, and a short pause; all of them if speech goes on to
    the end, or if there is none."""
    if is_silent(wave_S, rate):
        return len(wave_S)
    power_T = measure.frame_powers(wave_S.numpy(), rate)
    active_T = measure.active_frames(power_T) & (measure.to_db(power_T) >= SILENT_DBFS)
    last = measure.speech_segments(active_T)[-1][1]
    size = round(measure.FRAME_SECONDS * rate)
    return min(last * size + round(TAIL_SECONDS * rate), len(wave_S))


def fade(wave_S: Tensor, rate: int, *, start: bool = True, end: bool = True) -> Tensor:
    """The wave, faded in over its first 5 ms and out over its last, at the ends that are asked
    for."""
    size = min(round(FADE_SECONDS * rate), len(wave_S))
    ramp_S = torch.from_numpy(np.sin(np.linspace(0, np.pi / 2, size)) ** 2).to(wave_S.dtype)
    faded_S = wave_S.clone()
    if start:
        faded_S[:size] *= ramp_S
    if end and size:
        faded_S[-size:] *= ramp_S.flip(0)
    return faded_S
