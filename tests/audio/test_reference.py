"""Each step from a recording to a reference does what it says, and says what it does."""

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.helpers.signals import RATE, speech, syllables
from voxclone.audio import measure
from voxclone.audio.files import Recording, read_recording
from voxclone.audio.reference import (
    Reference,
    ReferenceSettings,
    countable_length,
    prepare_reference,
)
from voxclone.errors import AudioError, ConfigError
from voxclone.records import parse_record

ALL_OFF = ReferenceSettings(
    remove_offset=False,
    high_pass=False,
    trim=False,
    crop=False,
    end_on_pause=False,
    level=False,
    avoid_miscount=False,
)


def record(wave: np.ndarray, rate: int = RATE) -> Recording:
    return read_recording((wave, rate), name="clip.wav")


def prepare(
    phrases: Sequence[float], pauses: Sequence[float], **options: object
) -> tuple[Reference, str, str]:
    """The reference made of `speech(...)`, its actions and its warnings."""
    wave_S = speech(phrases, pauses)
    reference = prepare_reference(record(wave_S), ReferenceSettings(**options))  # type: ignore[arg-type]
    report = reference.report
    return reference, " ".join(report.actions), " ".join(report.warnings)


def test_a_good_recording_is_only_levelled() -> None:
    reference, actions, warnings = prepare([4.0, 4.0, 3.5], [0.1, 0.3, 0.3, 0.2])
    report = reference.report
    assert actions.startswith("Raised the level") or actions.startswith("Lowered the level")
    assert len(report.actions) == 1 and not warnings and not report.hints
    assert reference.wave_S.dtype == np.float32 and len(reference.wave_S) == 12.4 * RATE
    assert measure.speech_level(reference.wave_S, RATE) == pytest.approx(-20.0, abs=0.1)
    assert report.gain_db == pytest.approx(-20.0 - report.level_before_dbfs, abs=0.01)
    assert 0.85 < report.speech_share < 0.95
    assert (report.native_rate, report.channels) == (24000, 1)
    assert report.snr_db > 40 and report.bandwidth_hz > 11000 and report.clipped_share < 1e-4


def test_silence_around_the_speech_is_trimmed() -> None:
    reference, actions, _ = prepare([4.0], [1.5, 2.0])
    assert reference.report.start == pytest.approx(1.4, abs=0.05)
    assert reference.report.end == pytest.approx(5.7, abs=0.05)
    assert "before the speech" in actions and reference.report.duration_in == 7.5
    kept, actions, _ = prepare([4.0], [1.5, 2.0], trim=False)
    assert kept.report.duration_out == 7.5 and "before the speech" not in actions


def test_a_word_in_silence_keeps_a_second() -> None:
    reference, _, warnings = prepare([0.3], [2.0, 2.0])
    assert reference.report.duration_out == pytest.approx(1.0)
    assert reference.report.start < 2.0 and reference.report.end > 2.3
    assert "Short" in warnings and "Mostly pauses" in warnings


def test_a_long_recording_is_cropped_between_pauses() -> None:
    phrases, pauses = [6.0, 3.0, 9.0, 8.0, 9.0, 7.0], [0.5, 3.0, 0.4, 0.5, 0.6, 4.0, 0.5]
    reference, actions, warnings = prepare(phrases, pauses)
    report = reference.report
    # The third to the fifth phrase; with the second they would be half a second too long.
    assert report.start == pytest.approx(12.8, abs=0.05)
    assert report.end == pytest.approx(40.2, abs=0.05)
    assert report.duration_out <= 30.0 and not warnings
    assert f"Kept {report.start:.2f} s to {report.end:.2f} s of 51.50 s" in actions
    whole, _, warnings = prepare(phrases, pauses, crop=False)
    assert whole.report.duration_out > 40 and "Long" in warnings


def test_scattered_speech_is_cropped_to_where_most_of_it_is() -> None:
    reference, actions, warnings = prepare([2.0] * 6, [1.0, 20.0, 20.0, 8.0, 8.0, 20.0, 1.0])
    assert reference.report.start == pytest.approx(44.9, abs=0.05)
    assert reference.report.duration_out == pytest.approx(22.3, abs=0.1)
    assert "between two pauses" in actions and "Mostly pauses" in warnings


def test_half_a_minute_without_a_pause_is_cut_hard() -> None:
    reference, actions, warnings = prepare([40.0, 3.0], [0.5, 0.5, 0.5])
    assert 22 < reference.report.duration_out <= 30.0
    assert reference.report.start == pytest.approx(0.4, abs=0.05)
    assert "no pause to end on" in actions and "Faded out" in actions
    assert "ends in the middle of speech" in warnings


def test_speech_that_breaks_off_is_cut_back_to_a_pause() -> None:
    reference, actions, warnings = prepare([4.0, 4.0, 1.5], [0.3, 0.4, 0.4, 0.0])
    assert reference.report.end == pytest.approx(0.3 + 4.0 + 0.4 + 4.0 + 0.2, abs=0.05)
    assert "ends in the pause" in actions and not warnings
    assert np.abs(reference.wave_S[-2400:]).max() < 0.01
    kept, actions, _ = prepare([4.0, 4.0, 1.5], [0.3, 0.4, 0.4, 0.0], end_on_pause=False)
    assert kept.report.end == pytest.approx(10.6) and "pause" not in actions


@pytest.mark.parametrize("phrases, pauses", [([6.0], [0.3, 0.0]), ([4.0, 3.0], [0.3, 0.4, 0.0])])
def test_speech_that_breaks_off_too_far_from_a_pause_is_faded(
    phrases: list[float], pauses: list[float]
) -> None:
    wave_S = speech(phrases, pauses)
    wave_S = wave_S[: -round(0.1 * RATE)]  # in the middle of a syllable
    report = (reference := prepare_reference(record(wave_S))).report
    assert report.end == pytest.approx(len(wave_S) / RATE)
    assert "Faded out the last 30 ms." in report.actions
    assert any("ends in the middle of speech" in text for text in report.warnings)
    assert reference.wave_S[-1] == 0
    assert np.abs(reference.wave_S[-240:]).max() < 0.5 * np.abs(reference.wave_S[-960:-720]).max()


def test_an_offset_is_removed() -> None:
    wave_S = speech([4.0], [0.3, 0.3]) + np.float32(0.05)
    reference = prepare_reference(record(wave_S))
    assert "Subtracted a constant offset of 0.05 (DC)." in reference.report.actions
    plain = prepare_reference(record(wave_S - np.float32(0.05)))
    assert np.abs(reference.wave_S - plain.wave_S).max() < 1e-4
    with pytest.raises(AudioError, match="only a constant offset"):
        prepare_reference(record(np.full(RATE * 2, 0.3)))


@pytest.mark.parametrize("gain_db", [-30, -6, 0, 6, 60])
def test_speech_gets_one_level(gain_db: int) -> None:
    wave_S = speech([4.0], [0.3, 0.3]) * 10 ** (gain_db / 20)
    reference = prepare_reference(record(wave_S))
    assert measure.speech_level(reference.wave_S, RATE) == pytest.approx(-20.0, abs=0.1)
    assert np.abs(reference.wave_S).max() <= 0.9501
    softer = prepare_reference(record(wave_S), ReferenceSettings(level_dbfs=-30.0))
    assert measure.speech_level(softer.wave_S, RATE) == pytest.approx(-30.0, abs=0.1)


def test_peaks_limit_the_level() -> None:
    wave_S = speech([4.0], [0.3, 0.3]) * 0.01
    wave_S[48000] = 0.5
    reference = prepare_reference(record(wave_S))
    assert np.abs(reference.wave_S).max() == pytest.approx(0.95, abs=1e-4)
    assert any("to keep peaks within 0.95" in text for text in reference.report.actions)


def test_lengths_that_mistral_common_miscounts_are_avoided() -> None:
    listed = {7, 14, 28, 55, 56, 109, 110, 111, 112, 218, 220, 222, 224, 243, 245, 247, 249}
    for frames in range(1, 376):
        changed = 1 if frames in listed else 0
        assert countable_length(frames * 1920) == frames * 1920 - changed
        assert countable_length(frames * 1920 + 1) == frames * 1920 + 1
        kept = countable_length(frames * 1920)
        assert math.ceil(kept / 24000 * 12.5) == math.ceil(kept / 1920)
    wave_S = np.pad(syllables(55 * 0.08 - 0.4), (4800, 4800))
    reference = prepare_reference(record(wave_S), ReferenceSettings(trim=False))
    assert len(reference.wave_S) == 55 * 1920 - 1
    assert "Dropped the last of 105600 samples" in " ".join(reference.report.actions)


def test_with_all_steps_off_nothing_changes() -> None:
    wave_S = speech([35.0], [0.5, 0.0]) + np.float32(0.01)
    recording = record(wave_S)
    reference = prepare_reference(recording, ALL_OFF)
    assert np.array_equal(reference.wave_S, wave_S) and not reference.report.actions
    assert not np.shares_memory(reference.wave_S, recording.wave_S)


@pytest.mark.parametrize(
    "wave_S, rate, warning",
    [
        (speech([2.5], [0.1, 0.2]), RATE, "Short: 2.8 s"),
        (speech([6.0], [0.3, 0.3], 8000), 8000, "Telephone quality: timbre above 3.9 kHz"),
        (speech([6.0], [0.3, 0.3], top_hz=3400, noise_db=-110), RATE, "Telephone quality"),
        ((speech([6.0], [0.3, 0.3]) * 10).clip(-0.9, 0.9), RATE, "Clipped"),
        (speech([3.0, 3.0], [0.3, 0.5, 0.3], noise_db=-30), RATE, "Noisy"),
        (speech([6.0], [0.3, 0.3], noise_db=-120) * 0.01, RATE, "Too quiet"),
        (speech([2.0, 2.0], [0.1, 9.0, 0.2]), RATE, "Mostly pauses"),
    ],
)
def test_each_defect_is_warned_of_and_no_other(wave_S: np.ndarray, rate: int, warning: str) -> None:
    report = prepare_reference(record(wave_S, rate)).report
    assert len(report.warnings) == 1 and report.warnings[0].startswith(warning), report.warnings
    assert f"Warning: {report.warnings[0]}" in report.sentences()


def test_hints() -> None:
    report = prepare_reference(record(speech([5.0], [0.3, 0.3], 16000), 16000)).report
    assert len(report.hints) == 2 and "16000 Hz" in report.hints[1]
    assert report.sentences()[-1].startswith("Hint: ")


def test_under_a_second_is_refused() -> None:
    with pytest.raises(AudioError, match=r"clip.wav is 0.99 s long, but a voice needs"):
        prepare_reference(record(syllables(0.99)))
    prepare_reference(record(syllables(0.99)), ReferenceSettings(min_seconds=0.5))


def test_the_report_is_json_and_sentences() -> None:
    wave_SC = np.stack([speech([4.0], [1.0, 1.0], 48000)] * 2, axis=1)
    report = prepare_reference(record(wave_SC, 48000)).report
    values = report.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["native_rate"] == 48000 and isinstance(values["actions"], list)
    assert report.actions[:2] == (
        "Resampled from 48000 Hz to 24000 Hz.",
        "Averaged 2 channels to one.",
    )
    for sentence in report.sentences():
        assert sentence.endswith(".") and "\n" not in sentence
    assert report.sentences()[0].startswith("clip.wav: 4.3 s of 6.0 s are used")


def test_settings_are_strict() -> None:
    with pytest.raises(ConfigError, match="did you mean 'level_dbfs'"):
        parse_record(ReferenceSettings, {"level_dbf": -20}, "test")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.02, 2), st.sampled_from([0.0, 1e-30, 1e-5, 0.01, 0.3, 1.0, 1e30])),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([0.0, 1e-9, 1e-3]),
    st.booleans(),
)
def test_whatever_lasts_a_second_is_used_or_refused(
    parts: list[tuple[float, float]], noise: float, short: bool
) -> None:
    """Bursts of any length and size: finite, in range, within the recording; input unchanged."""
    generator = np.random.default_rng(0)
    bursts = [
        generator.uniform(-a, a, round(s * RATE)) if a else np.zeros(round(s * RATE))
        for s, a in parts
    ]
    wave_S = np.concatenate(bursts).astype(np.float32)
    wave_S += (noise * generator.standard_normal(len(wave_S))).astype(np.float32)
    options = ReferenceSettings(max_seconds=3.0) if short else ReferenceSettings()
    try:
        recording = record(wave_S)
        before_S = recording.wave_S.copy()
        reference = prepare_reference(recording, options)
    except AudioError:
        assert len(wave_S) < RATE or not wave_S.any()
        return
    report = reference.report
    assert np.array_equal(recording.wave_S, before_S)
    assert np.isfinite(reference.wave_S).all() and np.abs(reference.wave_S).max() <= 0.9501
    assert report.duration_out == len(reference.wave_S) / RATE <= options.max_seconds
    assert report.duration_out >= 1.0 - 2 / RATE
    assert 0 <= report.start < report.end <= report.duration_in + 1e-9
    assert report.end - report.start == pytest.approx(report.duration_out)
    assert 0 <= report.speech_share <= 1
    json.dumps(report.to_dict(), allow_nan=False)
    assert report.sentences()


@settings(max_examples=20, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.integers(24000, 30000),
        elements=st.floats(-1, 1, width=32),
        fill=st.just(0.1),
    )
)
def test_any_second_of_numbers(wave_S: np.ndarray) -> None:
    try:
        assert np.isfinite(prepare_reference(record(wave_S)).wave_S).all()
    except AudioError as error:
        assert "constant offset" in str(error) or "silence" in str(error)


def test_a_lone_short_burst_is_cropped_to_no_less_than_the_least() -> None:
    """Half a second, two seconds of nothing, half a second: only one fits into three seconds."""
    generator = np.random.default_rng(0)
    burst_S = generator.uniform(-0.3, 0.3, RATE // 2)
    wave_S = np.concatenate([np.zeros(RATE), burst_S, np.zeros(2 * RATE), burst_S])
    reference = prepare_reference(
        record(wave_S.astype(np.float32)), ReferenceSettings(max_seconds=3.0)
    )
    assert 1.0 - 2 / RATE <= reference.report.duration_out <= 3.0


def test_preparing_twice_changes_little() -> None:
    first = prepare_reference(record(speech([4.0, 5.0, 2.0], [1.0, 0.4, 0.5, 1.0]) * 0.1))
    second = prepare_reference(record(first.wave_S))
    assert abs(len(second.wave_S) - len(first.wave_S)) <= 0.05 * RATE
    assert abs(second.report.gain_db) < 0.1
