"""Hundreds of clones in one process: memory stays as it is, and so do open files."""

import os
from pathlib import Path

import pytest

from tests.helpers.media import encode_media
from tests.helpers.memory import needs_proc, resident_memory
from tests.helpers.signals import speech
from voxclone.audio.files import read_recording
from voxclone.cloning.enroll import enroll
from voxclone.release.release import Release
from voxclone.tts.tts import TTS
from voxclone.voice.metadata import Consent

WARM_UP, CLONES = 30, 300
MAX_GROWTH = 30e6


@needs_proc
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_300_clones_in_one_process(tiny_release: Release, tiny_tts: TTS, tmp_path: Path) -> None:
    path = tmp_path / "me.m4a"
    path.write_bytes(encode_media("ipod", "aac", speech([1.5, 1.0], [0.2, 0.3, 0.3])))
    consent = Consent(kind="unstated")
    before = files = 0
    for number in range(WARM_UP + CLONES):
        recording = read_recording(path)
        voice = enroll(recording, tiny_release, tiny_tts.codec, name="x", consent=consent).voice
        speech_made = tiny_tts.speak("One.", voice.embedding_ND, seed=number)
        speech_made.save(tmp_path / "out.wav")
        if number == WARM_UP:
            before, files = resident_memory(), len(os.listdir("/proc/self/fd"))
    assert resident_memory() - before < MAX_GROWTH
    assert len(os.listdir("/proc/self/fd")) == files
