"""The level of active speech, normalization to it, and checks of waves.

Shapes: S samples at 24 kHz.
"""

import math

import torch.nn.functional as F
from torch import Tensor

from voxclone.errors import AudioError
from voxclone.spec import SAMPLING_RATE

SILENCE = 1e-5  # a peak below (-100 dBFS) is digital silence, for which no metric is defined
LEVEL_DBFS = -23.0
MIN_SAMPLES = 12000  # a clip with fewer is not measured


def active_level(wave_S: Tensor) -> float:
    """Loudness in dBFS: RMS over the 20 ms frames within 40 dB of the loudest one.

    Pauses do not count, so the level does not depend on their length (as in ITU-T P.56, without its
    envelope). 0 dBFS is a square wave of amplitude 1. Raises AudioError for a silent or empty clip.
    """
    check_wave(wave_S)
    size = SAMPLING_RATE // 50
    frames_TF = F.pad(wave_S.double(), (0, -len(wave_S) % size)).reshape(-1, size)
    power_T = frames_TF.square().mean(dim=1)
    active_T = power_T[power_T >= power_T.max() * 1e-4]
    return 10 * math.log10(float(active_T.mean()))


def normalize_loudness(wave_S: Tensor) -> Tensor:
    """The samples with active speech at -23 dBFS. Raises AudioError as `active_level` does."""
    return wave_S * 10 ** ((LEVEL_DBFS - active_level(wave_S)) / 20)


def check_wave(wave_S: Tensor) -> None:
    """Raise AudioError unless the wave is one channel [S], finite, and not empty or silent."""
    if wave_S.dim() != 1:
        raise AudioError(f"One channel of samples is needed, not a tensor {list(wave_S.shape)}.")
    if not len(wave_S):
        raise AudioError("The clip is empty: it has no samples.")
    if not bool(wave_S.isfinite().all()):
        raise AudioError("The clip has samples that are not finite numbers.")
    if float(wave_S.abs().max()) < SILENCE:
        raise AudioError("The clip is silent: nothing in it rises above -100 dBFS.")
