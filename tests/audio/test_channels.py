"""Channels that hold different sounds, and sounds that are no speech."""

import numpy as np
import pytest

from tests.helpers.signals import speech
from voxclone.audio.files import Recording, read_recording
from voxclone.audio.reference import prepare_reference

RATE = 24000
TIME_S = np.arange(5 * RATE) / RATE


def voice(seed: int = 0) -> np.ndarray:
    """Five seconds whose level changes as that of speech does."""
    rng = np.random.default_rng(seed)
    syllables = np.repeat(rng.uniform(-30, 0, 25), len(TIME_S) // 25)
    return (0.2 * 10 ** (syllables / 20) * rng.standard_normal(len(TIME_S))).astype(np.float32)


def hum() -> np.ndarray:
    return 0.2 * np.sin(2 * np.pi * 50 * TIME_S) + 0.1 * np.sin(2 * np.pi * 150 * TIME_S)


def stereo(left_S: np.ndarray, right_S: np.ndarray) -> Recording:
    return read_recording((np.stack([left_S, right_S], axis=1).astype(np.float32), RATE))


@pytest.mark.parametrize("clean", [0, 1])
def test_the_channel_without_hum_is_used_alone(clean: int) -> None:
    channels = [hum(), hum()]
    channels[clean] = voice()
    found = stereo(*channels)
    assert f"Used channel {clean + 1} of 2 alone: it has the speech" in found.notes[-1]
    assert np.array_equal(found.wave_S, voice())
    report = prepare_reference(found).report
    assert any(f"channel {clean + 1}" in action for action in report.actions)


def test_channels_of_one_voice_are_averaged() -> None:
    late_S = np.roll(voice(), 24)
    for other_S in (voice(), 0.3 * voice(), late_S, voice() + 0.001 * voice(1)):
        assert stereo(voice(), other_S).notes[-1] == "Averaged 2 channels to one."


def test_a_speaker_on_each_channel_is_a_warning() -> None:
    found = stereo(0.5 * voice(1), voice(2))
    assert "Used channel 2 of 2 alone" in found.notes[-1]
    report = prepare_reference(found).report
    assert any("its own speaker" in warning for warning in report.warnings)


@pytest.mark.parametrize("sound", ["noise", "tone", "hum"])
def test_a_steady_sound_is_no_speech(sound: str) -> None:
    noise_S = 0.1 * np.random.default_rng(0).standard_normal(len(TIME_S))
    sounds = {"noise": noise_S, "tone": 0.3 * np.sin(2 * np.pi * 440 * TIME_S), "hum": hum()}
    recording = read_recording((sounds[sound].astype(np.float32), RATE))
    report = prepare_reference(recording).report
    assert report.speech_share == 0 and report.steady_share == 1
    assert any(warning.startswith("No speech?") for warning in report.warnings)
    assert "0% of it speech" in report.sentences()[0]


def test_speech_is_no_steady_sound() -> None:
    recording = read_recording((speech([1.0, 1.2], [0.1, 0.3, 0.2]), RATE))
    assert prepare_reference(recording).report.steady_share == 0


def test_a_very_quiet_clip_is_to_be_louder_only() -> None:
    steps_S = np.round(voice() * 0.001 * 32768) / 32768
    report = prepare_reference(read_recording((steps_S.astype(np.float32), RATE))).report
    sentences = " ".join(report.warnings)
    assert "Too quiet" in sentences and "lower level" not in sentences and report.clipped_share == 0
