"""Several recordings become one reference: whole phrases, in order, at one level, with pauses."""

import json
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.signals import RATE, speech
from voxclone.audio import measure
from voxclone.audio.files import Recording, read_recording
from voxclone.audio.joining import best_alone, fair_shares, prepare_joined
from voxclone.audio.reference import ReferenceSettings, candidate_segments
from voxclone.audio.report import ReferenceReport
from voxclone.errors import AudioError

SETTINGS = ReferenceSettings(max_seconds=16.0)


def record(
    phrases: Sequence[float], pauses: Sequence[float], name: str, gain: float = 1.0, **odd: float
) -> Recording:
    return read_recording((speech(phrases, pauses, **odd) * np.float32(gain), RATE), name=name)  # type: ignore[arg-type]


def test_short_recordings_are_joined_whole_at_one_level() -> None:
    parts = [
        record([3.0], [0.4, 0.5], "a.wav"),
        record([2.0, 2.5], [0.3, 0.4, 0.3], "b.wav", gain=0.1),
        record([4.0], [0.2, 0.2], "c.wav", gain=2.0),
    ]
    reference = prepare_joined(parts, SETTINGS)
    report = reference.report
    assert [part.source for part in report.parts] == ["a.wav", "b.wav", "c.wav"]
    assert report.source == "a.wav, b.wav, c.wav"
    assert report.duration_out == len(reference.wave_S) / RATE == pytest.approx(12.8, abs=0.3)
    begin = 0
    for part in report.parts:
        end = begin + round(part.duration_out * RATE)
        level = measure.speech_level(reference.wave_S[begin:end], RATE)
        assert level == pytest.approx(-20.0, abs=0.3)
        begin = end
    assert any("Joined 3 parts at their pauses" in action for action in report.actions)
    speech_found = measure.speech_segments(
        measure.active_frames(measure.frame_powers(reference.wave_S, RATE))
    )
    gaps = [b[0] - a[1] for a, b in pairwise(speech_found)]
    assert len(speech_found) == 4 and min(gaps) * 0.02 >= 0.24


def test_long_recordings_share_the_seconds_and_are_cut_between_pauses() -> None:
    parts = [
        record([3.0] * 6, [0.4] * 7, "long.wav"),
        record([2.0], [0.3, 0.3], "short.wav"),
        record([2.5] * 8, [0.5] * 9, "longer.wav"),
    ]
    reference = prepare_joined(parts, SETTINGS)
    report = reference.report
    long, short, longer = report.parts
    assert 12 < report.duration_out <= 16.0
    assert short.duration_out == pytest.approx(2.3, abs=0.1)  # needs less than a third
    assert min(long.duration_out, longer.duration_out) > 5
    for part in (long, longer):
        assert part.actions[0] == (
            f"Kept {part.start:.2f} s to {part.end:.2f} s of {part.duration_in:.2f} s."
        )
    assert not report.warnings and not report.hints


def test_parts_without_a_pause_get_one() -> None:
    parts = [record([2.5], [0.0, 0.0], name) for name in ("a.wav", "b.wav")]
    parts[1] = record([2.7], [0.0, 0.0], "b.wav")
    report = prepare_joined(parts, SETTINGS.model_copy(update={"end_on_pause": False})).report
    assert any("silence where a part had no pause" in action for action in report.actions)


def test_the_same_recording_twice_is_used_once() -> None:
    twice = [record([4.0], [0.3, 0.3], name) for name in ("a.wav", "copy.wav")]
    reference = prepare_joined(twice, SETTINGS)
    assert not reference.report.parts and reference.report.duration_out < 5
    assert reference.report.actions[0] == ("Left out copy.wav: it is the same recording as a.wav.")


def test_what_does_not_fit_with_whole_phrases_is_left_out_the_worst_first() -> None:
    parts = [record([3.0 + i / 10], [0.3, 0.3], f"{i}.wav") for i in range(9)]
    parts.insert(4, record([3.0], [0.5, 0.5], "noisy.wav", noise_db=-28.0))
    report = prepare_joined(parts, SETTINGS).report
    assert len(report.parts) == 4 and 13 < report.duration_out <= 16.0
    left_out = [action for action in report.actions if action.startswith("Left out")]
    assert len(left_out) == 6 and left_out[0].startswith("Left out noisy.wav: no whole phrase")
    assert all(part.duration_out > 3 for part in report.parts)


def test_where_one_recording_is_left_it_is_used_as_it_would_be_alone() -> None:
    parts = [record([15.0], [0.3, 0.3], "a.wav"), record([15.5], [0.3, 0.3], "b.wav")]
    report = prepare_joined(parts, SETTINGS).report
    assert not report.parts and report.duration_out > 15
    assert report.actions[0].startswith("Left out ")


def test_the_best_recording_alone() -> None:
    parts = [
        record([2.0], [0.3, 0.3], "short.wav"),
        record([4.0, 4.0], [0.3, 0.3, 0.3], "good.wav"),
        record([9.0], [0.5, 0.5], "noisy.wav", noise_db=-28.0),
    ]
    report = best_alone(parts, SETTINGS).report
    assert report.source == "good.wav" and not report.parts
    assert report.actions[0].startswith("Used good.wav alone")


def test_a_recording_that_cannot_be_used_is_named() -> None:
    good, bad = record([3.0], [0.3, 0.3], "good.wav"), record([0.3], [0.1, 0.1], "bad.wav")
    with pytest.raises(AudioError, match=r"bad.wav is 0.50 s long"):
        prepare_joined([good, bad], SETTINGS)


def test_the_report_survives_json() -> None:
    parts = [record([3.0], [0.4, 0.5], "a.wav"), record([2.0], [0.3, 0.4], "b.wav")]
    report = prepare_joined(parts, SETTINGS).report.with_speaker_consistency(0.5)
    again = ReferenceReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report and again.sentences() == report.sentences()
    assert any("Several speakers?" in sentence for sentence in report.sentences())
    assert report.sentences()[0].startswith("a.wav: ")
    for damaged in (
        {},
        {"parts": 1},
        {"actions": [1]},
        report.to_dict() | {"duration_out": "long"},
    ):
        with pytest.raises(ValueError):
            ReferenceReport.from_dict(damaged)


@given(st.lists(st.floats(0.5, 60), min_size=1, max_size=9), st.floats(2, 30))
def test_shares_fill_the_room_and_cut_no_more_than_needed(
    lengths: list[float], most: float
) -> None:
    found = fair_shares(lengths, most)
    assert sum(found) == pytest.approx(min(most, sum(lengths)))
    assert all(share <= length for share, length in zip(found, lengths, strict=True))
    cut = [share for share, length in zip(found, lengths, strict=True) if share < length]
    assert max(cut, default=0) - min(cut, default=0) < 1e-9
    assert all(share <= min(cut, default=most) + 1e-9 for share in found)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.2, 7), st.floats(0, 1.5)), min_size=1, max_size=8),
    st.integers(1, 5),
)
def test_segments_lie_between_pauses_and_overlap_little(
    parts: list[tuple[float, float]], count: int
) -> None:
    phrases, pauses = [p for p, _ in parts], [0.3, *(pause for _, pause in parts)]
    recording = record(phrases, pauses, "clip.wav")
    found = candidate_segments(recording, ReferenceSettings(max_seconds=6.0), count)
    assert len(found) <= count
    for number, (start, end) in enumerate(found):
        assert 0 <= start < end <= len(recording.wave_S)
        assert 1.0 <= (end - start) / RATE <= 6.0
        for first, last in found[:number]:
            shared = max(min(end, last) - max(start, first), 0)
            assert 2 * shared <= min(end - start, last - first)
