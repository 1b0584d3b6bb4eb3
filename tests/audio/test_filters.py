"""The high-pass takes rumble out and leaves low voices alone."""

import numpy as np
import pytest

from tests.helpers.signals import RATE, speech
from voxclone.audio.files import read_recording
from voxclone.audio.filters import BLOCK_SECONDS, high_pass
from voxclone.audio.reference import ReferenceSettings, prepare_reference


def tone(hertz: float, seconds: float = 3.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


def gain_db(hertz: float, cutoff: float) -> float:
    inner = slice(RATE, -RATE)
    wave_S = tone(hertz)
    kept_S = high_pass(wave_S, RATE, cutoff)
    return float(20 * np.log10(np.std(kept_S[inner]) / np.std(wave_S[inner])))


def test_the_response_is_that_of_a_fourth_order() -> None:
    assert gain_db(40, 40) == pytest.approx(-3.0, abs=0.1)
    assert gain_db(20, 40) == pytest.approx(-24.1, abs=0.3)
    assert abs(gain_db(65, 40)) < 0.1 and abs(gain_db(80, 50)) < 0.15
    assert high_pass(np.full(3 * RATE, 0.5, np.float32), RATE, 40)[RATE] == pytest.approx(
        0, abs=1e-3
    )


def test_blocks_leave_no_trace_and_the_phase_is_zero() -> None:
    wave_S = tone(120, BLOCK_SECONDS * 2.3)
    kept_S = high_pass(wave_S, RATE, 40)
    assert kept_S.dtype == np.float32 and len(kept_S) == len(wave_S)
    assert np.abs(kept_S - wave_S)[RATE:-RATE].max() < 0.02
    seam = round(BLOCK_SECONDS * RATE)
    inner = np.abs(kept_S - wave_S)[seam - 100 : seam + 100].max()
    assert inner < 1.05 * np.abs(kept_S - wave_S)[RATE : 2 * RATE].max() + 1e-4


def test_rumble_is_taken_out_where_there_is_some() -> None:
    clean_S = speech([4.0, 3.0], [0.3, 0.4, 0.3])
    rumble_S = 0.05 * tone(15, len(clean_S) / RATE)
    recording = read_recording((clean_S + rumble_S, RATE), name="clip.wav")
    reference = prepare_reference(recording)
    assert any("rumble below 40 Hz" in action for action in reference.report.actions)
    plain = prepare_reference(read_recording((clean_S, RATE), name="clip.wav"))
    assert not any("rumble" in action for action in plain.report.actions)
    assert reference.report.snr_db > plain.report.snr_db - 12
    left = prepare_reference(recording, ReferenceSettings(high_pass=False))
    assert left.report.snr_db < 20  # the rumble fills the pauses
    lower = prepare_reference(recording, ReferenceSettings(high_pass_hz=10))
    assert not any("rumble" in action for action in lower.report.actions)


def test_no_filter_reaches_into_the_voice() -> None:
    with pytest.raises(ValueError, match="less than or equal to 50"):
        ReferenceSettings(high_pass_hz=80)
