"""Sounds by formula, equal on every machine: a buzz with formants, and soft noise.

Shapes: S samples at 24 kHz, H harmonics.
"""

import math

import numpy as np
import torch
from torch import Tensor

RATE = 24000


def voice(seconds: float, pitch: float = 120.0, level: float = 0.1) -> Tensor:
    """A vowel [S] of gliding pitch with syllables of a quarter second, RMS about `level`."""
    time_S = np.arange(round(seconds * RATE)) / RATE
    phase_S = 2 * math.pi * (pitch * time_S + 6 * np.sin(2 * math.pi * 0.7 * time_S))
    wave_S = np.zeros_like(time_S)
    for harmonic in range(1, int(7000 / pitch)):
        hertz = harmonic * pitch
        gain = sum(
            weight / (1 + ((hertz - center) / width) ** 2)
            for center, width, weight in ((600, 120, 1.0), (1400, 180, 0.5), (2700, 300, 0.2))
        )
        wave_S += gain * np.sin(harmonic * phase_S + harmonic**2)
    wave_S *= 0.6 + 0.4 * np.sin(2 * math.pi * 4 * time_S)
    return torch.from_numpy(wave_S * level / np.sqrt(np.mean(wave_S**2))).float()


def noise(samples: int, level: float = 0.01, seed: int = 0) -> Tensor:
    """Gaussian noise [S] of RMS `level`."""
    generator = torch.Generator().manual_seed(seed)
    return level * torch.randn(samples, generator=generator)
