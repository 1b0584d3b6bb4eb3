"""Signal metrics: known values, orderings, and None where a metric is not defined."""

import math
import sys

import pytest
import torch

from tests.helpers.synthetic_voice import noise, voice
from voxclone.audio.loudness import active_level
from voxclone.audio.resample import to_16k
from voxclone.errors import AudioError, MissingExtraError
from voxclone.evaluate.signal import (
    estoi,
    evaluate_pair,
    level_difference,
    mel_distance,
    pesq,
    stft_distance,
)


def test_distances_of_a_gain_are_its_logarithm() -> None:
    wave_S = noise(24000, 0.1)
    assert mel_distance(wave_S, wave_S) == 0
    assert mel_distance(wave_S, wave_S / 10) == pytest.approx(1, abs=2e-3)
    assert stft_distance(wave_S, wave_S) == 0
    assert stft_distance(wave_S, wave_S / 10) == pytest.approx(math.log(10), abs=5e-3)


def test_level_counts_only_active_frames() -> None:
    wave_S = voice(2.0, level=0.1)
    with_pause_S = torch.cat([wave_S, torch.zeros(48000)])
    assert active_level(wave_S) == pytest.approx(-20, abs=0.1)
    assert active_level(with_pause_S) == pytest.approx(active_level(wave_S), abs=0.01)
    assert active_level(torch.ones(7)) == pytest.approx(10 * math.log10(7 / 480))
    assert level_difference(wave_S, wave_S / 2) == pytest.approx(-6.02, abs=0.01)


def test_more_noise_is_worse_by_every_metric() -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    wave_S = voice(2.0)
    same, near, far = (
        evaluate_pair(wave_S, wave_S + noise(len(wave_S), level)) for level in (0, 0.005, 0.05)
    )
    assert not same.missing and same.mel_distance == 0
    assert same.pesq == pytest.approx(4.64, abs=0.01) and same.estoi == pytest.approx(1, abs=1e-3)
    assert near.mel_distance < far.mel_distance and near.stft_distance < far.stft_distance
    for name in ("pesq", "estoi"):
        assert getattr(same, name) > getattr(near, name) > getattr(far, name), name


def test_the_longer_wave_is_cut() -> None:
    wave_S = voice(1.0)
    longer_S = torch.cat([wave_S, noise(1900)])
    assert evaluate_pair(wave_S, longer_S).mel_distance == 0
    assert evaluate_pair(longer_S, wave_S).mel_distance == 0


def test_a_silent_estimate_is_not_measured_rather_than_zero() -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    wave_S = voice(1.0)
    scores = evaluate_pair(wave_S, torch.zeros_like(wave_S))
    assert scores.pesq is scores.estoi is scores.level_difference is None
    assert set(scores.missing) == {"pesq", "estoi", "level_difference"}
    assert all("silent" in reason for reason in scores.missing.values())
    assert scores.mel_distance > 0.3


def test_clips_too_short_or_too_long_say_so() -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    short_S, long_S = voice(0.2), noise(24000 * 21, 0.1)
    scores = evaluate_pair(short_S, short_S)
    assert scores.pesq is None and "PESQ cannot be measured" in scores.missing["pesq"]
    assert scores.estoi is None and "ESTOI cannot be measured" in scores.missing["estoi"]
    with pytest.raises(AudioError, match=r"at most 20 s and this one has 21\.0 s"):
        pesq(long_S, long_S)


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    monkeypatch.setitem(sys.modules, "pystoi", None)
    wave_S = voice(0.5)
    scores = evaluate_pair(wave_S, wave_S)
    assert scores.pesq is None and "voxclone[eval]" in scores.missing["pesq"]
    assert scores.estoi is None and "voxclone[eval]" in scores.missing["estoi"]
    with pytest.raises(MissingExtraError):
        estoi(wave_S, wave_S)


@pytest.mark.parametrize(
    "reference_S, estimate_S, words",
    [
        (torch.zeros(1000), torch.ones(1000), "silent"),
        (torch.ones(1000), torch.zeros(0), "empty"),
        (torch.ones(3), torch.tensor([0.0, float("inf"), 0.0]), "not finite"),
    ],
)
def test_nothing_to_compare_is_an_error(
    reference_S: torch.Tensor, estimate_S: torch.Tensor, words: str
) -> None:
    with pytest.raises(AudioError, match=words):
        evaluate_pair(reference_S, estimate_S)


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5, 997, 24000])
def test_resampling_gives_two_thirds_rounded_up(samples: int) -> None:
    assert to_16k(torch.ones(2, samples)).shape == (2, -(-2 * samples // 3))


@pytest.mark.parametrize("hertz, gain", [(50, 1.0), (3000, 1.0), (7000, 1.0), (8100, 0.0)])
def test_resampling_keeps_tones_in_place_and_stops_aliases(hertz: float, gain: float) -> None:
    time_S = torch.arange(24000, dtype=torch.float64) / 24000
    time_R = torch.arange(16000, dtype=torch.float64) / 16000
    wave_BS = torch.sin(2 * math.pi * hertz * time_S).float()[None]
    truth_R = gain * torch.sin(2 * math.pi * hertz * time_R).float()
    error_R = (to_16k(wave_BS)[0] - truth_R)[200:-200].abs()
    assert float(error_R.max()) < 2e-4


def test_resampling_passes_gradients() -> None:
    wave_BS = noise(3000)[None].requires_grad_(True)
    (grad_BS,) = torch.autograd.grad(to_16k(wave_BS).square().sum(), wave_BS)
    assert bool(grad_BS.isfinite().all())
    # x . grad |Ax|^2 = 2 |Ax|^2: two thirds of the samples, of the power below the cut-off.
    ratio = (grad_BS * wave_BS.detach()).sum() / wave_BS.detach().square().sum()
    assert float(ratio) == pytest.approx(2 * 2 / 3 * 7650 / 12000, rel=0.05)
