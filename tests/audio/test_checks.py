"""Six checks of a recording: each defect is found, by its own check, with something to do."""

from collections.abc import Callable

import numpy as np
import pytest

from voxclone.audio.checks import Check, clip_checks, worst
from voxclone.audio.files import read_recording
from voxclone.audio.filters import high_pass
from voxclone.audio.reference import prepare_reference

RATE = 24000


def speech(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Noise in syllables between pauses, at -20 dBFS where it is active."""
    rng = np.random.default_rng(seed)
    time_S = np.arange(round(seconds * rate)) / rate
    active_S = (time_S % 1.3 < 1.0) * np.abs(np.sin(2 * np.pi * 2 * time_S))
    hiss_S = rng.normal(size=len(time_S)) * 1e-4
    return (0.15 * active_S * rng.normal(size=len(time_S)) + hiss_S).astype(np.float32)


def checks(
    wave_S: np.ndarray, rate: int = RATE, consistency: float | None = 0.9
) -> dict[str, Check]:
    report = prepare_reference(read_recording((wave_S, rate))).report.with_speaker_consistency(
        consistency
    )
    return {check.name: check for check in clip_checks(report)}


def test_a_good_clip_is_called_good() -> None:
    found = checks(speech(12))
    assert worst(found.values()) == "good"
    assert not any(check.suggestion for check in found.values())
    assert list(found) == ["length", "level", "noise", "clipping", "bandwidth", "speakers"]


DEFECTS: dict[str, tuple[str, str, Callable[[], dict[str, Check]]]] = {
    "short": ("length", "bad", lambda: checks(speech(2))),
    "rather short": ("length", "fair", lambda: checks(speech(6))),
    "quiet": ("level", "bad", lambda: checks(speech(12) / 30)),
    "rather quiet": ("level", "fair", lambda: checks(speech(12) / 8)),
    "noisy": ("noise", "bad", lambda: checks(speech(12) + noise(12, 0.03))),
    "rather noisy": ("noise", "fair", lambda: checks(speech(12) + noise(12, 0.01))),
    "clipped": ("clipping", "bad", lambda: checks((speech(12) * 12).clip(-0.5, 0.5))),
    "telephone": ("bandwidth", "bad", lambda: checks(speech(12, 8000), 8000)),
    "dull": ("bandwidth", "fair", lambda: checks(speech(12, 16000), 16000)),
    "two people": ("speakers", "bad", lambda: checks(speech(12), consistency=0.6)),
    "undecided": ("speakers", "fair", lambda: checks(speech(12), consistency=None)),
}


def noise(seconds: float, amplitude: float) -> np.ndarray:
    white_S = np.random.default_rng(9).normal(size=round(seconds * RATE)) * amplitude
    return high_pass(white_S, RATE, 40.0).astype(np.float32)


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_is_found_with_a_remedy(name: str) -> None:
    where, verdict, make = DEFECTS[name]
    found = make()
    assert found[where].verdict == verdict
    assert found[where].suggestion.endswith(".") and found[where].finding
    others = [check for check in found.values() if check.name != where]
    assert all(check.verdict != "bad" for check in others), others
