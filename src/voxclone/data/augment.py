"""Changes of a waveform that must not change its codes.

A decoder trained on magnitudes has its own phases, its artifacts are quiet, and its fine structure
is smoother than that of speech. An encoder that uses any of these codes decoded and real speech
differently. Random gains of time-frequency cells and noise leave it only what both have in common.

Shapes: B batch, S samples, F frequency bins, T frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.config import Settings
from voxclone.rng import normal, uniform

ROUGH_FFTS = (256, 1024)


class Degradation(Settings):
    """How decoded speech is changed before an encoder reads it: white noise at a random ratio, and
    a random gain of every time-frequency cell (0: none)."""

    snr_db: tuple[float, float] = (10.0, 40.0)
    rough_db: float = 6.0


@dataclass(frozen=True)
class DegradationDraws:
    """The random numbers of `degrade`: for each item the FFT size and the gains [F, T] of its
    cells as powers of ten (none without roughening), noise [B, S] of variance 1, and its level
    below the speech."""

    n_ffts: list[int]
    exponents: list[Tensor]
    noise_BS: Tensor
    snr_db_B1: Tensor


def draw_degradation(
    samples: int, settings: Degradation, generators: Sequence[torch.Generator]
) -> DegradationDraws:
    """Draws for waves of so many samples, one for each generator: an item does not depend on the
    others. The noise of half of the items is smoothed."""
    n_ffts, exponents = list[int](), list[Tensor]()
    if settings.rough_db:
        for each in generators:
            n_ffts.append(ROUGH_FFTS[int(torch.randint(len(ROUGH_FFTS), (1,), generator=each))])
            exponents.append(draw_gains(samples, n_ffts[-1], settings.rough_db, each))
    noise_BS = normal((samples,), generators)
    smooth_BS = F.avg_pool1d(noise_BS[:, None], 5, stride=1, padding=2)[:, 0] * 5**0.5
    white_B1 = uniform((1,), generators) < 0.5
    low, high = settings.snr_db
    snr_db_B1 = low + (high - low) * uniform((1,), generators)
    noise_BS = torch.where(white_B1, noise_BS, smooth_BS)
    return DegradationDraws(n_ffts, exponents, noise_BS, snr_db_B1)


def draw_gains(samples: int, n_fft: int, max_db: float, generator: torch.Generator) -> Tensor:
    """Gains [F, T], as powers of ten, of the cells of an STFT with the hop n_fft / 4. In dB they
    are normal with a standard deviation between 0 and `max_db`."""
    spread = max_db / 20 * torch.rand(1, generator=generator)
    shape = n_fft // 2 + 1, samples // (n_fft // 4) + 1
    return spread * torch.randn(*shape, generator=generator)


def degrade(wave_BS: Tensor, draws: DegradationDraws) -> Tensor:
    """Rough texture, then noise, as drawn."""
    rough_BS = wave_BS.clone()
    for n_fft in sorted(set(draws.n_ffts)):
        items = [item for item, its in enumerate(draws.n_ffts) if its == n_fft]
        exponent_BFT = torch.stack([draws.exponents[item] for item in items])
        rough_BS[items] = roughen(wave_BS[items], exponent_BFT, n_fft)
    return add_noise(rough_BS, draws.noise_BS, draws.snr_db_B1)


def roughen(wave_BS: Tensor, exponent_BFT: Tensor, n_fft: int) -> Tensor:
    """A gain, as a power of ten, for every cell of the STFT (hop n_fft / 4). Each item keeps its
    level."""
    window = torch.hann_window(n_fft, device=wave_BS.device)
    spectrum_BFT = torch.stft(
        wave_BS.float(), n_fft, n_fft // 4, window=window, return_complex=True
    )
    rough_BS = torch.istft(
        spectrum_BFT * 10**exponent_BFT, n_fft, n_fft // 4, window=window,
        length=wave_BS.shape[1],
    )  # fmt: skip
    before_B1, after_B1 = (x.square().mean(-1, keepdim=True) for x in (wave_BS, rough_BS))
    return rough_BS * ((before_B1 + 1e-8) / (after_B1 + 1e-8)).sqrt()


def add_noise(wave_BS: Tensor, noise_BS: Tensor, snr_db_B1: Tensor) -> Tensor:
    """Noise of variance 1, at a ratio to each item's power."""
    power_B1 = wave_BS.detach().square().mean(dim=-1, keepdim=True).clamp(min=1e-8)
    return wave_BS + noise_BS * (power_B1 * 10 ** (-snr_db_B1 / 10)).sqrt()
