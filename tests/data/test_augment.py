"""Changes of a waveform that must not change its codes."""

import pytest
import torch

from voxclone.data.augment import add_noise, roughen


def test_noise_has_the_ratio_that_was_asked_for() -> None:
    wave = torch.randn(200, 4800, generator=torch.Generator().manual_seed(0)) * 0.1
    noisy = add_noise(wave, (20.0, 20.0), torch.Generator().manual_seed(1))
    ratio = wave.square().mean() / (noisy - wave).square().mean()
    assert 10 * float(ratio.log10()) == pytest.approx(20.0, abs=1.0)


def test_roughening_changes_texture_and_keeps_level() -> None:
    wave = torch.randn(3, 9600, generator=torch.Generator().manual_seed(0))
    wave[2] = 0
    rough = roughen(wave, 6.0, 256, torch.Generator().manual_seed(1))
    assert rough.shape == wave.shape and torch.equal(rough[2], wave[2])
    torch.testing.assert_close(rough.square().mean(1), wave.square().mean(1), rtol=1e-3, atol=1e-6)
    assert 0.01 < (rough - wave)[:2].square().mean() < 2
    again = roughen(wave, 6.0, 256, torch.Generator().manual_seed(1))
    assert torch.equal(rough, again)
