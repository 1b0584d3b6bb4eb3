"""Changes of a waveform that must not change its codes."""

import pytest
import torch

from recipes.mini_release.codebank import Variant, random_equalizer, varied_wave
from tests.helpers.random_weights import drawn_codec
from tests.train.tiny import CODEC
from voxclone.data.augment import add_noise, roughen


def test_noise_has_the_ratio_that_was_asked_for() -> None:
    wave = torch.randn(200, 4800, generator=torch.Generator().manual_seed(0)) * 0.1
    noisy = add_noise(wave, (20.0, 20.0), torch.Generator().manual_seed(1))
    ratio = wave.square().mean() / (noisy - wave).square().mean()
    assert 10 * float(ratio.log10()) == pytest.approx(20.0, abs=1.0)


def test_a_random_equalizer_is_a_smooth_filter_of_the_speakers_own() -> None:
    wave_BS = torch.randn(2, 24000, generator=torch.Generator().manual_seed(0))
    made_BS = random_equalizer(wave_BS, 4.0, torch.Generator().manual_seed(1), 24000)
    ratio_BF = torch.fft.rfft(made_BS).abs() / torch.fft.rfft(wave_BS).abs()
    level_BF = 20 * ratio_BF.log10()
    assert torch.allclose(made_BS.square().mean(1), wave_BS.square().mean(1), rtol=1e-3)
    assert (
        level_BF.diff(dim=1).abs().max() < 0.02 and float(level_BF[0].max() - level_BF[0].min()) > 4
    )
    assert torch.allclose(level_BF[0], level_BF[1], atol=0.2)  # one filter for the batch
    codec = drawn_codec(CODEC)
    first, again, other = (
        varied_wave(wave_BS[0], who, Variant(1.0, 0.0, 1), codec) for who in ("a", "a", "b")
    )
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=1e-2)


def test_roughening_changes_texture_and_keeps_level() -> None:
    wave = torch.randn(3, 9600, generator=torch.Generator().manual_seed(0))
    wave[2] = 0
    rough = roughen(wave, 6.0, 256, torch.Generator().manual_seed(1))
    assert rough.shape == wave.shape and torch.equal(rough[2], wave[2])
    torch.testing.assert_close(rough.square().mean(1), wave.square().mean(1), rtol=1e-3, atol=1e-6)
    assert 0.01 < (rough - wave)[:2].square().mean() < 2
    again = roughen(wave, 6.0, 256, torch.Generator().manual_seed(1))
    assert torch.equal(rough, again)
