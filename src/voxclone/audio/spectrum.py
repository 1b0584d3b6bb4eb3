"""STFT magnitudes and mel spectrograms, for losses, metrics and ASR models.

Shapes: B batch, S samples, F frequency bins, M mel bands, T frames.
"""

import functools
import math

import torch
from torch import Tensor

from voxclone.spec import SAMPLING_RATE


def magnitudes(wave_BS: Tensor, n_fft: int, hop: int) -> Tensor:
    """STFT magnitudes [B, F, T] under a Hann window, edges padded with zeros."""
    window = _window(n_fft, wave_BS.device)
    spectrum = torch.stft(
        wave_BS, n_fft, hop, window=window, center=True, pad_mode="constant", return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()
    return power.clamp(min=1e-10).sqrt()


def mel_spectrogram(
    wave_BS: Tensor, n_fft: int, hop: int, bands: int, rate: int = SAMPLING_RATE
) -> Tensor:
    """Mel magnitudes [B, M, T] (Slaney filters from 0 Hz to half the rate, not normalized)."""
    matrix_MF = mel_matrix(n_fft, bands, rate, wave_BS.device)
    return matrix_MF @ magnitudes(wave_BS, n_fft, hop)


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # the first caller may be in inference mode, the next one in training
def mel_matrix(n_fft: int, bands: int, rate: int, device: torch.device) -> Tensor:
    """Triangular mel filters [M, F] on the Slaney scale (linear below 1 kHz), peak 1."""

    def to_mel(hertz: float) -> float:
        return hertz / 200 * 3 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    mels = torch.linspace(0, to_mel(rate / 2), bands + 2, dtype=torch.float64)
    edges = torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    bins = torch.linspace(0, rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0).float().to(device)


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def _window(n_fft: int, device: torch.device) -> Tensor:
    return torch.hann_window(n_fft, device=device)
