"""Measurements of synthetic recordings, for which the truth is known."""

import numpy as np
import pytest
import soxr

from tests.helpers.signals import RATE, speech, syllables
from voxclone.audio import measure


def test_frames_hold_every_sample_once() -> None:
    wave_S = np.random.default_rng(0).standard_normal(480 * 7 + 123)
    power_T = measure.frame_powers(wave_S, RATE)
    assert len(power_T) == 7
    assert power_T[0] == pytest.approx(np.square(wave_S[:480]).mean())
    assert power_T[-1] == pytest.approx(np.square(wave_S[480 * 6 :]).mean())
    assert len(measure.frame_powers(wave_S[:5], RATE)) == 1


@pytest.mark.parametrize("noise_db", [-90.0, -60.0, -45.0])
@pytest.mark.parametrize("gain", [1e-3, 1.0, 30.0])
def test_speech_is_found_between_pauses(noise_db: float, gain: float) -> None:
    wave_S = speech([1.5, 2.0], [0.8, 0.4, 0.6], noise_db=noise_db) * gain
    segments = measure.speech_segments(measure.active_frames(measure.frame_powers(wave_S, RATE)))
    seconds = np.array(segments) * measure.FRAME_SECONDS
    assert np.abs(seconds - [(0.8, 2.3), (2.7, 4.7)]).max() <= 0.061


def test_short_gaps_are_bridged_and_clicks_left_out() -> None:
    wave_S = speech([1.0, 1.0], [1.0, 0.1, 1.0])
    wave_S[6000:6480] += 0.5  # 20 ms, like a mouse
    segments = measure.speech_segments(measure.active_frames(measure.frame_powers(wave_S, RATE)))
    assert len(segments) == 1 and abs(segments[0][0] * 0.02 - 1.0) < 0.05


@pytest.mark.parametrize("pauses", [(0.3, 0.3), (1.0, 2.0), (5.0, 20.0)])
def test_level_does_not_depend_on_pauses(pauses: tuple[float, float]) -> None:
    truth = 10 * np.log10(np.square(syllables(3.0)).mean())
    wave_S = speech([3.0], list(pauses))
    assert measure.speech_level(wave_S, RATE) == pytest.approx(truth, abs=0.2)
    assert measure.speech_level(wave_S / 10, RATE) == pytest.approx(truth - 20, abs=0.2)
    assert measure.speech_level(syllables(3.0), RATE) == pytest.approx(truth, abs=1)
    door_S = wave_S.copy()
    door_S[-3000:-600] = 0.99
    loud = measure.loud_level(measure.frame_powers(wave_S, RATE))
    assert measure.loud_level(measure.frame_powers(door_S, RATE)) == pytest.approx(loud, abs=1)


@pytest.mark.parametrize("snr", [5, 10, 20, 40, 60])
def test_snr(snr: int) -> None:
    level = measure.speech_level(syllables(3.0), RATE)
    wave_S = speech([1.5, 1.5, 2.0], [0.5, 0.5, 0.5, 0.5], noise_db=level - snr)
    estimate = measure.estimate_snr(measure.frame_powers(wave_S, RATE))
    assert estimate == pytest.approx(snr, abs=2)


def test_snr_where_the_noise_cannot_be_seen() -> None:
    gated_S = speech([1.5, 1.5], [0.5, 0.5, 0.5], noise_db=-200.0)
    assert measure.estimate_snr(measure.frame_powers(gated_S, RATE)) == measure.MAX_SNR_DB
    hiss_S = np.random.default_rng(0).standard_normal(RATE * 3) * 0.1
    assert measure.estimate_snr(measure.frame_powers(hiss_S, RATE)) < 3


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 48000])
def test_bandwidth_is_that_of_the_native_rate(rate: int) -> None:
    wave_S = soxr.resample(speech([3.0], [0.2, 0.2], rate), rate, RATE)
    limit = min(rate, RATE) / 2
    assert 0.92 * limit - 250 <= measure.bandwidth(wave_S, RATE) <= limit + 250


@pytest.mark.parametrize("top", [3400, 5000, 7000])
def test_bandwidth_of_filtered_speech(top: int) -> None:
    wave_S = speech([3.0], [0.2, 0.2], noise_db=-110.0, top_hz=top)
    assert abs(measure.bandwidth(wave_S, RATE) - top) <= 260
    assert measure.bandwidth(wave_S[:100], RATE) <= RATE / 2


@pytest.mark.parametrize(
    "wave_S", [np.zeros(24000), np.ones(24000), np.full(24000, 1e30), np.full(24000, 1e-30)]
)
def test_odd_waves_can_be_measured(wave_S: np.ndarray) -> None:
    power_T = measure.frame_powers(wave_S.astype(np.float32), RATE)
    segments = measure.speech_segments(measure.active_frames(power_T))
    assert segments == [(0, 50)]
    assert np.isfinite([measure.speech_level(wave_S, RATE), measure.estimate_snr(power_T)]).all()
    assert np.isfinite(measure.bandwidth(wave_S, RATE))
