"""Changes of a waveform that must not change its codes."""

import pytest
import torch

from voxclone.data.augment import Degradation, degrade, draw_degradation
from voxclone.rng import step_generator


def degraded(wave_BS: torch.Tensor, items: slice = slice(None), **settings: object) -> torch.Tensor:
    generators = [step_generator(0, 0, item) for item in range(len(wave_BS))][items]
    given = Degradation.model_validate(settings)
    draws = draw_degradation(wave_BS.shape[1], given, generators)
    return degrade(wave_BS[items], draws)


def test_noise_has_the_ratio_that_was_asked_for() -> None:
    wave = torch.randn(200, 4800, generator=torch.Generator().manual_seed(0)) * 0.1
    noisy = degraded(wave, snr_db=(20.0, 20.0), rough_db=0)
    ratio = wave.square().mean() / (noisy - wave).square().mean()
    assert 10 * float(ratio.log10()) == pytest.approx(20.0, abs=1.0)


def test_roughening_changes_texture_and_keeps_level() -> None:
    wave = torch.randn(3, 9600, generator=torch.Generator().manual_seed(0))
    wave[2] = 0
    rough = degraded(wave, snr_db=(200.0, 200.0), rough_db=6.0)
    assert rough.shape == wave.shape and float(rough[2].abs().max()) < 1e-9
    torch.testing.assert_close(rough.square().mean(1), wave.square().mean(1), rtol=1e-3, atol=1e-6)
    assert 0.01 < (rough - wave)[:2].square().mean() < 2


def test_an_item_does_not_depend_on_the_others() -> None:
    wave = torch.randn(6, 4800, generator=torch.Generator().manual_seed(0)) * 0.1
    whole, part = degraded(wave), degraded(wave, slice(2, 4))
    torch.testing.assert_close(whole[2:4], part, rtol=0, atol=0)
