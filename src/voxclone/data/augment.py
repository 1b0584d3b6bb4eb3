"""Changes of a waveform that must not change its codes.

A decoder trained on magnitudes has its own phases, its artifacts are quiet, and its fine structure
is smoother than that of speech. An encoder that uses any of these codes decoded and real speech
differently. Random gains of time-frequency cells and noise leave it only what both have in common.

Shapes: B batch, S samples, F frequency bins, T frames.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.config import Settings
from voxclone.rng import Generators, normal, uniform

ROUGH_FFTS = (256, 1024)


class Degradation(Settings):
    """How decoded speech is changed before an encoder reads it: white noise at a random ratio, and
    a random gain of every time-frequency cell (0: none)."""

    snr_db: tuple[float, float] = (10.0, 40.0)
    rough_db: float = 6.0


def degrade(wave_BS: Tensor, settings: Degradation, generators: Generators) -> Tensor:
    """Rough texture, then noise. With a generator for each item, an item does not depend on the
    others."""
    if settings.rough_db:
        wave_BS = _roughen_each(wave_BS, settings, generators)
    return add_noise(wave_BS, settings.snr_db, generators)


def _roughen_each(wave_BS: Tensor, settings: Degradation, generators: Generators) -> Tensor:
    """`roughen` with a random FFT size: one for the batch, or one for each generator."""
    if isinstance(generators, torch.Generator):
        index = int(torch.randint(len(ROUGH_FFTS), (1,), generator=generators))
        return roughen(wave_BS, settings.rough_db, ROUGH_FFTS[index], generators)
    drawn = [int(torch.randint(len(ROUGH_FFTS), (1,), generator=each)) for each in generators]
    rough_BS = torch.empty_like(wave_BS)
    for index in sorted(set(drawn)):
        items = [item for item, its in enumerate(drawn) if its == index]
        own = [generators[item] for item in items]
        rough_BS[items] = roughen(wave_BS[items], settings.rough_db, ROUGH_FFTS[index], own)
    return rough_BS


def roughen(wave_BS: Tensor, max_db: float, n_fft: int, generators: Generators) -> Tensor:
    """A normal random gain in dB for every cell of the STFT (hop n_fft / 4). Each item has its own
    standard deviation between 0 and `max_db`, and keeps its level."""
    batch, samples = wave_BS.shape
    window = torch.hann_window(n_fft, device=wave_BS.device)
    spectrum_BFT = torch.stft(
        wave_BS.float(), n_fft, n_fft // 4, window=window, return_complex=True
    )
    spread_B11 = max_db / 20 * uniform((batch, 1, 1), generators)
    gain_BFT = 10 ** (spread_B11 * normal(spectrum_BFT.shape, generators))
    rough_BFT = spectrum_BFT * gain_BFT.to(wave_BS.device)
    rough_BS = torch.istft(rough_BFT, n_fft, n_fft // 4, window=window, length=samples)
    before_B1, after_B1 = (x.square().mean(-1, keepdim=True) for x in (wave_BS, rough_BS))
    return rough_BS * ((before_B1 + 1e-8) / (after_B1 + 1e-8)).sqrt()


def add_noise(wave_BS: Tensor, snr_db: tuple[float, float], generators: Generators) -> Tensor:
    """White noise, for half of the items smoothed, at a random ratio to the item's power."""
    batch = wave_BS.shape[0]
    device = wave_BS.device
    noise_BS = normal(wave_BS.shape, generators).to(device)
    smooth_BS = F.avg_pool1d(noise_BS[:, None], 5, stride=1, padding=2)[:, 0] * 5**0.5
    pick_B1 = uniform((batch, 1), generators).to(device) < 0.5
    noise_BS = torch.where(pick_B1, noise_BS, smooth_BS)
    low, high = snr_db
    ratio_B1 = low + (high - low) * uniform((batch, 1), generators).to(device)
    power_B1 = wave_BS.detach().square().mean(dim=-1, keepdim=True).clamp(min=1e-8)
    return wave_BS + noise_BS * (power_B1 * 10 ** (-ratio_B1 / 10)).sqrt()
