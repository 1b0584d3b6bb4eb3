"""The demonstration clip is what its notice says, and a reference without a fault."""

import hashlib
from pathlib import Path

import soundfile

from voxclone.audio.files import read_recording
from voxclone.audio.reference import prepare_reference

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_notice_names_these_very_samples() -> None:
    samples_S, rate = soundfile.read(EXAMPLES / "reference.flac", dtype="int16")
    notice = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert rate == 48000 and samples_S.ndim == 1
    assert hashlib.sha256(samples_S.astype("<i2").tobytes()).hexdigest() in notice
    assert f"{len(samples_S):,} of int16" in notice and f"{len(samples_S) / rate:.1f} s" in notice
    license_text = (EXAMPLES / "COPYING").read_text(encoding="utf-8")
    assert "GNU GENERAL PUBLIC LICENSE" in license_text and "Version 2, June 1991" in license_text


def test_it_is_a_reference_without_a_fault() -> None:
    report = prepare_reference(read_recording(EXAMPLES / "reference.flac")).report
    assert not report.warnings and not report.hints
    assert 10 <= report.duration_out <= 16 and report.bandwidth_hz > 10000
