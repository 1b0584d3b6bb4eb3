"""Changes of a waveform that must not change its codes."""

import pytest
import torch

from voxclone.data.augment import add_noise, disperse, roughen


def test_noise_has_the_ratio_that_was_asked_for() -> None:
    wave = torch.randn(200, 4800, generator=torch.Generator().manual_seed(0)) * 0.1
    noisy = add_noise(wave, (20.0, 20.0), torch.Generator().manual_seed(1))
    ratio = wave.square().mean() / (noisy - wave).square().mean()
    assert 10 * float(ratio.log10()) == pytest.approx(20.0, abs=1.0)


def test_dispersion_keeps_magnitudes_and_changes_phases() -> None:
    wave = torch.randn(3, 9600, generator=torch.Generator().manual_seed(0))
    wave[:, :1200] = wave[:, -1200:] = 0
    moved = disperse(wave, 2.0, 12, torch.Generator().manual_seed(1))
    assert (moved - wave).abs().mean() > 0.5
    before, after = torch.fft.rfft(wave).abs(), torch.fft.rfft(moved).abs()
    # a constant phase cannot turn what is real: 0 Hz and half the rate
    torch.testing.assert_close(after[:, 20:-20], before[:, 20:-20], atol=1.0, rtol=0.02)
    centre = (wave.square() * torch.arange(9600)).sum(1) / wave.square().sum(1)
    shifted = (moved.square() * torch.arange(9600)).sum(1) / moved.square().sum(1)
    assert (shifted - centre).abs().max() < 24  # a millisecond: no delay as a whole


def test_roughening_changes_texture_and_keeps_level() -> None:
    wave = torch.randn(3, 9600, generator=torch.Generator().manual_seed(0))
    wave[2] = 0
    rough = roughen(wave, 6.0, 256, torch.Generator().manual_seed(1))
    assert rough.shape == wave.shape and torch.equal(rough[2], wave[2])
    torch.testing.assert_close(rough.square().mean(1), wave.square().mean(1), rtol=1e-3, atol=1e-6)
    assert 0.01 < (rough - wave)[:2].square().mean() < 2
    again = roughen(wave, 6.0, 256, torch.Generator().manual_seed(1))
    assert torch.equal(rough, again)
