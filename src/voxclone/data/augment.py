"""Changes of a waveform that must not change its codes.

A decoder trained on magnitudes has its own phases, its artifacts are quiet, and its fine structure
is smoother than that of speech. An encoder that uses any of these codes decoded and real speech
differently. Random phases, random gains of time-frequency cells, and noise leave it only what both
have in common.

Shapes: B batch, S samples, F frequency bins, T frames, M knots.
"""


import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.config import Settings
from voxclone.rng import Generators, normal, uniform
from voxclone.spec import SAMPLING_RATE


class Degradation(Settings):
    """How much a waveform is changed. `delay_ms` 0 keeps its phases, `rough_db` 0 its gains."""

    snr_db: tuple[float, float] = (10.0, 40.0)
    delay_ms: float = 2.0
    knots: int = 12
    rough_db: float = 6.0
    rough_ffts: tuple[int, ...] = (256, 1024)


def degrade(wave_BS: Tensor, settings: Degradation, generators: Generators) -> Tensor:
    """Random phases, rough texture, then noise. With a generator for each item, an item does not
    depend on the others."""
    if settings.delay_ms:
        wave_BS = disperse(wave_BS, settings.delay_ms, settings.knots, generators)
    if settings.rough_db:
        wave_BS = _roughen_each(wave_BS, settings, generators)
    return add_noise(wave_BS, settings.snr_db, generators)


def _roughen_each(wave_BS: Tensor, settings: Degradation, generators: Generators) -> Tensor:
    """`roughen` with a random FFT size: one for the batch, or one for each generator."""
    ffts = settings.rough_ffts
    if isinstance(generators, torch.Generator):
        index = int(torch.randint(len(ffts), (1,), generator=generators))
        return roughen(wave_BS, settings.rough_db, ffts[index], generators)
    drawn = [int(torch.randint(len(ffts), (1,), generator=each)) for each in generators]
    rough_BS = torch.empty_like(wave_BS)
    for index in sorted(set(drawn)):
        items = [item for item, its in enumerate(drawn) if its == index]
        own = [generators[item] for item in items]
        rough_BS[items] = roughen(wave_BS[items], settings.rough_db, ffts[index], own)
    return rough_BS


def disperse(
    wave_BS: Tensor, delay_ms: float, knots: int, generators: Generators, rate: int = SAMPLING_RATE
) -> Tensor:
    """An exact all-pass filter for each item: a smooth random group delay of up to `delay_ms`
    either way (its mean over frequency removed), and a random constant phase. Magnitudes do not
    change."""
    batch, samples = wave_BS.shape
    size = 1 << (samples + rate // 50 - 1).bit_length()
    bins = size // 2 + 1
    delay_BM = (2 * uniform((batch, 1, knots), generators) - 1) * delay_ms / 1000
    delay_BF = F.interpolate(delay_BM, bins, mode="linear", align_corners=True)[:, 0]
    delay_BF = delay_BF - delay_BF.mean(dim=1, keepdim=True)
    step = 2 * torch.pi * (rate / 2) / (bins - 1)
    start_B1 = 2 * torch.pi * uniform((batch, 1), generators)
    phase_BF = (start_B1 - step * delay_BF.double().cumsum(dim=1)).to(wave_BS.device)
    turn_BF = torch.polar(torch.ones_like(phase_BF), phase_BF).to(torch.complex64)
    spectrum_BF = torch.fft.rfft(wave_BS.float(), size)
    return torch.fft.irfft(spectrum_BF * turn_BF, size)[:, :samples]


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
