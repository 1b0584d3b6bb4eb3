"""Defects of recordings are named by the report: twelve kinds, each with several voices."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from voxclone.audio.files import read_recording
from voxclone.audio.reference import prepare_reference
from voxclone.errors import AudioError

RATE = 24000

Make = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def voice(rng: np.random.Generator, seconds: float = 5.0) -> np.ndarray:
    """Syllables of a buzz with a gliding pitch between pauses, and hiss below them."""
    time_S = np.arange(round(seconds * RATE)) / RATE
    pitch_S = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.3, 1) * time_S))
    phase_S = 2 * np.pi * np.cumsum(pitch_S) / RATE
    harmonics = range(1, 30)
    buzz_S = np.asarray(sum(np.sin(h * phase_S) / h for h in harmonics))
    count = round(seconds * 4)
    loud = np.where(rng.random(count) < 0.25, 0.0, 10 ** rng.uniform(-1.2, 0, count))
    loud[0], loud[-1], loud[1] = 0, 0, 1
    envelope_S = np.interp(time_S, np.arange(count) / 4, loud)
    wave_S = 0.15 * envelope_S * buzz_S + 3e-4 * rng.standard_normal(len(time_S))
    return np.asarray(wave_S, dtype=np.float32)


def two_channels(one_S: np.ndarray, other_S: np.ndarray) -> np.ndarray:
    return np.stack([one_S, other_S], axis=1)


def hum(like_S: np.ndarray, level: float) -> np.ndarray:
    return np.asarray(level * np.sin(2 * np.pi * 50 * np.arange(len(like_S)) / RATE))


# What is made of a voice, and the words of the report, or of the error.
DEFECTS: dict[str, tuple[Make, str]] = {
    "silent": (lambda w, rng: 0 * w, "digital silence"),
    "clipped": (lambda w, rng: np.clip(12 * w, -0.8, 0.8), "Clipped"),
    "offset": (lambda w, rng: w + rng.uniform(0.05, 0.2), "offset"),
    "rumble": (lambda w, rng: w + hum(w, 0.05) * np.cos(np.arange(len(w)) / 1e4), "rumble"),
    "short": (lambda w, rng: w[:2400], "needs at least"),
    "long": (lambda w, rng: np.tile(w, 9), "cannot be used"),
    "noisy": (lambda w, rng: w + 0.04 * rng.standard_normal(len(w)), "Noisy"),
    "noise": (lambda w, rng: rng.uniform(0.01, 0.2) * rng.standard_normal(len(w)), "No speech?"),
    "quiet": (lambda w, rng: w * 10 ** (-rng.uniform(40, 55) / 20), "Too quiet"),
    "opposite": (lambda w, rng: two_channels(w, -w), "opposite in sign"),
    "hum beside": (lambda w, rng: two_channels(hum(w, 0.1), w), "Used channel 2 of 2 alone"),
    "speakers": (lambda w, rng: two_channels(w, voice(rng)), "its own speaker"),
}


@pytest.mark.parametrize("voices", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_the_report_names_the_defect(voices: int) -> None:
    named, fine = Counter[str](), 0
    for number in range(voices):
        rng = np.random.default_rng(number)
        wave_S = voice(rng)
        for name, (make, words) in DEFECTS.items():
            named[name] += words in report_of(make(wave_S, rng))
        fine += "Warning" not in report_of(wave_S)
    assert sum(named.values()) >= 0.95 * voices * len(DEFECTS), named
    assert min(named.values()) >= 0.75 * voices and fine >= 0.75 * voices, (named, fine)


def report_of(samples: np.ndarray) -> str:
    try:
        report = prepare_reference(read_recording((samples.astype(np.float32), RATE))).report
        return " ".join(report.sentences())
    except AudioError as error:
        return str(error)
