"""Waves become complete files, or none at all."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.helpers.signals import syllables
from voxclone.audio.files import read_recording
from voxclone.audio.writing import write_wave
from voxclone.errors import AudioError

# suffix: (format, encoding, least cosine to the written wave)
WRITTEN = {
    ".wav": ("WAV", "PCM_16", 0.99999),
    ".flac": ("FLAC", "PCM_16", 0.99999),
    ".ogg": ("OGG", "OPUS", 0.9),
    ".opus": ("OGG", "OPUS", 0.9),
    ".mp3": ("MP3", "MPEG_LAYER_III", 0.99),
}


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("samples", [1, 11999, 12000, 100_001])
def test_round_trip(suffix: str, samples: int, tmp_path: Path) -> None:
    container, encoding, least = WRITTEN[suffix]
    path = tmp_path / f"speech{suffix.upper() if samples == 1 else suffix}"
    path.write_bytes(b"an older file")
    wave_S = syllables(samples / 24000).astype(np.float32) + np.float32(1e-3)
    before_S = wave_S.copy()
    assert write_wave(path, wave_S) == 0
    assert np.array_equal(wave_S, before_S) and os.listdir(tmp_path) == [path.name]
    info = soundfile.info(str(path))
    assert (info.format, info.subtype, info.samplerate, info.channels) == (
        container,
        encoding,
        24000,
        1,
    )
    read_S = read_recording(path).wave_S
    assert len(read_S) == samples
    if samples > 1:
        norm = np.sqrt((read_S @ read_S) * (wave_S @ wave_S))
        assert read_S @ wave_S / norm > least


@pytest.mark.parametrize("suffix", WRITTEN)
def test_the_same_samples_are_the_same_file(suffix: str, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in files:
        write_wave(path, syllables(1.5).astype(np.float32))
    first, second = (path.read_bytes() for path in files)
    assert first == second


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_what_was_read_is_written_again_to_the_bit(suffix: str, tmp_path: Path) -> None:
    codes_S = np.random.default_rng(0).integers(-32768, 32768, 30000).astype(np.int16)
    wave_S = codes_S.astype(np.float32) / 32768
    write_wave(tmp_path / f"a{suffix}", wave_S)
    assert np.array_equal(read_recording(tmp_path / f"a{suffix}").wave_S, wave_S)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_samples_out_of_range_are_clipped_and_counted(suffix: str, tmp_path: Path) -> None:
    wave_S = syllables(1.0).astype(np.float32) * 0.5
    wave_S[100:103] = (1.5, -3.0, 1.0)
    assert write_wave(tmp_path / f"a{suffix}", wave_S) == 2
    if suffix in (".wav", ".flac"):
        read_S = read_recording(tmp_path / f"a{suffix}").wave_S
        assert read_S[100:103].tolist() == [32767 / 32768, -1.0, 32767 / 32768]


def test_long_speech_at_48_khz(tmp_path: Path) -> None:
    wave_S = np.random.default_rng(0).standard_normal(48000 * 10).astype(np.float32) * 0.1
    write_wave(tmp_path / "a.opus", wave_S, 48000)
    assert soundfile.info(str(tmp_path / "a.opus")).frames == len(wave_S)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3"])
def test_half_an_hour(suffix: str, tmp_path: Path) -> None:
    second_S = syllables(1.0).astype(np.float32) * 0.5
    path = tmp_path / f"a{suffix}"
    assert write_wave(path, np.tile(second_S, 1800)) == 0
    with soundfile.SoundFile(path) as file:
        assert (file.frames, file.samplerate) == (1800 * len(second_S), 24000)
        for at in (0, 900, 1799):  # it plays at the same speed all along
            file.seek(at * len(second_S))
            read_S = file.read(len(second_S), dtype="float32")
            assert np.corrcoef(read_S, second_S)[0, 1] > 0.9, at


def refusal(path: Path, wave: np.ndarray, rate: int = 24000) -> str:
    """Why writing fails: one sentence, after which there is nothing new in the folder."""
    folder = path.parent if path.parent.is_dir() else path.parent.parent
    before = sorted(os.listdir(folder))
    with pytest.raises(AudioError) as caught:
        write_wave(path, wave, rate)
    assert sorted(os.listdir(folder)) == before
    text = str(caught.value)
    assert text.startswith(f"{path} cannot be written: ") and "\n" not in text
    return text


def test_refusals(tmp_path: Path) -> None:
    wave_S = syllables(0.1).astype(np.float32)
    assert "must end in one of .wav, .flac" in refusal(tmp_path / "a.m4a", wave_S)
    assert "must end in one of" in refusal(tmp_path / "a", wave_S)
    assert "there is no folder" in refusal(tmp_path / "none" / "a.wav", wave_S)
    assert "shape [0]" in refusal(tmp_path / "a.wav", wave_S[:0])
    assert "shape [1, 2400]" in refusal(tmp_path / "a.wav", wave_S[None])
    assert "int16" in refusal(tmp_path / "a.wav", wave_S.astype(np.int16))
    assert "NaN or infinite" in refusal(tmp_path / "a.wav", wave_S * np.float32("nan"))
    assert "Opus only supports" in refusal(tmp_path / "a.opus", wave_S, 44100)
    assert "MPEG" in refusal(tmp_path / "a.mp3", wave_S, 96000)
    refusal(tmp_path / "a.wav", wave_S, 0)
    (tmp_path / "folder.wav").mkdir()
    assert "directory" in refusal(tmp_path / "folder.wav", wave_S)


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, who runs tests, may write anywhere
    assert "may not be written to" in refusal(tmp_path / "a.wav", syllables(0.1))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on file size is Linux's")
@pytest.mark.parametrize("suffix", [".wav", ".mp3"])
def test_a_full_disk_leaves_nothing_behind(suffix: str, tmp_path: Path) -> None:
    code = (
        "import resource, sys, numpy as np\n"
        "from voxclone.audio.writing import write_wave\n"
        "from voxclone.errors import AudioError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "wave_S = np.random.default_rng(0).standard_normal(480000) * 0.1\n"
        "try:\n    write_wave(sys.argv[1], wave_S)\n"
        "except AudioError as error:\n    print(error)\n"
    )
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"an older file")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "cannot be written: " in done.stdout and "disk is full" in done.stdout, done.stderr
    assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == b"an older file"
