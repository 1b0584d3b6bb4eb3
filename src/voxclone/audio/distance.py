"""Distances between the spectra of waveforms, with gradients.

Shapes: B batch, S samples.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.audio.spectrum import magnitudes, mel_spectrogram

PAPER_FFTS = (2296, 1418, 876, 542, 334, 206, 126, 76)
MIN_MAGNITUDE = 1e-5
FLOOR_FFT = 2048  # the size that a floor is given for; magnitudes of noise grow with the size


def stft_loss(
    estimate_BS: Tensor,
    target_BS: Tensor,
    n_ffts: Sequence[int] = PAPER_FFTS,
    *,
    floor: float = 0.0,
    norm: Callable[[Tensor], Tensor] = Tensor.norm,
) -> Tensor:
    """Mean over resolutions of spectral convergence plus L1 of log magnitudes (hop n/4; Yamamoto
    et al. 2020, Parallel WaveGAN). `floor` as in `mel_loss`; `norm` is that of a batch, which may
    be divided over processes."""
    total = torch.zeros((), device=estimate_BS.device)
    for n_fft in n_ffts:
        estimate = magnitudes(estimate_BS, n_fft, n_fft // 4)
        target = magnitudes(target_BS, n_fft, n_fft // 4)
        convergence = norm(target - estimate) / norm(target).clamp(min=1e-5)
        total = total + convergence + _log_distance(estimate, target, floor * n_fft / FLOOR_FFT)
    return total / len(n_ffts)


def magnitude_loss(estimate_BS: Tensor, target_BS: Tensor, n_ffts: Sequence[int]) -> Tensor:
    """Mean over resolutions of the L1 distance of magnitudes, not in logarithms (hop n/4; the
    community's STFT loss)."""
    terms = [
        F.l1_loss(magnitudes(estimate_BS, n, n // 4), magnitudes(target_BS, n, n // 4))
        for n in n_ffts
    ]
    return torch.stack(terms).mean()


def mel_loss(
    estimate_BS: Tensor,
    target_BS: Tensor,
    scales: Sequence[tuple[int, int]] = ((2048, 160), (1024, 120), (512, 80), (256, 40), (128, 20)),
    *,
    floor: float = 0.0,
) -> Tensor:
    """Mean over (n_fft, bands) of the L1 distance of log10 mel magnitudes (DAC's multi-scale mel
    loss with clamp 1e-5; hop n/4).

    For training only, a `floor` is added to the magnitudes (at n_fft 2048, less in proportion at
    smaller ones): the noise of pauses, which nobody can predict, then hardly counts."""
    total = torch.zeros((), device=estimate_BS.device)
    for n_fft, bands in scales:
        estimate = mel_spectrogram(estimate_BS, n_fft, n_fft // 4, bands)
        target = mel_spectrogram(target_BS, n_fft, n_fft // 4, bands)
        distance = _log_distance(estimate, target, floor * n_fft / FLOOR_FFT)
        total = total + distance / math.log(10)
    return total / len(scales)


def _log_distance(estimate: Tensor, target: Tensor, floor: float) -> Tensor:
    logs = [(x.clamp(min=MIN_MAGNITUDE) + floor).log() for x in (estimate, target)]
    return (logs[0] - logs[1]).abs().mean()
