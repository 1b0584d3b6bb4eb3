"""Files of phones, browsers and recorders: read whole, with a sentence on what was chosen."""

import builtins
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.audio.test_reading import cosine, encode, message
from tests.helpers.media import encode_media, speex_in_ogg
from tests.helpers.signals import syllables
from voxclone.audio.files import ReadingLimits, read_part, read_recording

# FFmpeg's container, codec, rate, codec of pictures
FILES = {
    "m4a": ("ipod", "aac", 24000, None),
    "m4a, lossless": ("ipod", "alac", 24000, None),
    "mp4": ("mp4", "aac", 24000, "mpeg4"),
    "mov": ("mov", "pcm_s16le", 24000, "mpeg4"),
    "webm of a browser": ("webm", "libopus", 48000, None),
    "webm of a screen": ("webm", "libopus", 48000, "libvpx"),
    "mkv": ("matroska", "flac", 24000, "mpeg4"),
    "avi": ("avi", "pcm_s16le", 24000, "mpeg4"),
    "avi of a camera": ("avi", "mp2", 24000, "mpeg4"),
    "aac": ("adts", "aac", 24000, None),
    "asf": ("asf", "libmp3lame", 24000, None),
    "wma": ("asf", "wmav2", 24000, None),
    "wma, old": ("asf", "wmav1", 24000, None),
    "wmv": ("asf", "wmav2", 24000, "mpeg4"),
    "caf": ("caf", "pcm_s16le", 24000, None),
    "caf, alac": ("caf", "alac", 24000, None),
    "au": ("au", "pcm_s16be", 24000, None),
    "w64": ("w64", "pcm_s16le", 24000, None),
    "flac in ogg": ("ogg", "flac", 24000, None),
    "mp2": ("mp2", "mp2", 24000, None),
    "amr": ("amr", "libopencore_amrnb", 8000, None),
    "3gp": ("3gp", "libopencore_amrnb", 8000, None),
}


def test_the_kinds_are_read() -> None:
    truth_S = syllables(1.0, top_hz=3000).astype(np.float32)
    for name, (container, codec, rate, video) in FILES.items():
        wave_S = syllables(1.0, rate, top_hz=3000).astype(np.float32)
        recording = read_recording(encode_media(container, codec, wave_S, rate, video=video))
        assert recording.native_rate == rate and recording.channels == 1, name
        longest = 1.2 if codec.startswith("wma") else 1.1  # with what `encode_media` adds
        assert 0.97 < recording.duration < longest, (name, recording.duration)
        used = "Used the sound of a video."
        assert (used in recording.notes) == (video is not None), name
        delays = range(0, len(recording.wave_S) - 22000, 12)
        best = max(cosine(recording.wave_S[d:][:22000], truth_S[:22000]) for d in delays)
        assert best > (0.45 if "amr" in codec else 0.98), (name, best)


def test_a_file_is_read_as_its_bytes_are(tmp_path: Path) -> None:
    path = tmp_path / "Neue Aufnahme 12.mp3"
    path.write_bytes(encode_media("ipod", "aac", syllables(1.0)))
    recording = read_recording(path)
    assert recording.source == path.name
    assert np.array_equal(recording.wave_S, read_recording(path.read_bytes()).wave_S)


def test_speex_is_read() -> None:
    recording = read_recording(speex_in_ogg(2.0))
    assert (recording.native_rate, recording.channels) == (8000, 1)
    assert abs(recording.duration - 2.0) < 0.05


def test_rf64_is_read() -> None:
    wave_S = syllables(1.0).astype(np.float32)
    assert cosine(read_recording(encode(wave_S, 24000, "RF64", "PCM_16")).wave_S, wave_S) > 0.999


def test_the_first_of_several_tracks_is_used() -> None:
    data = encode_media("matroska", "flac", syllables(1.0), tracks=2)
    assert "Used the first of 2 audio tracks of the file." in read_recording(data).notes


def test_refusals_are_sentences() -> None:
    assert "has no audio track" in message(
        encode_media("mp4", "aac", syllables(0.5), video="mpeg4", tracks=0)
    )
    m4a = encode_media("ipod", "aac", syllables(1.0))
    assert "cannot be decoded as MP4" in message(m4a[:2000])
    limits = ReadingLimits(max_seconds=0.5)
    assert "at most 0.5 s" in message(m4a, limits=limits)
    assert "at most 0.0 can" in message(m4a, limits=ReadingLimits(max_bytes=5000))
    silent = encode_media("ipod", "alac", np.zeros(24000))
    assert "digital silence" in message(silent)


def test_without_pyav_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = builtins.__import__

    def without_av(name: str, *args: object) -> object:
        if name == "av":
            raise ImportError(name)
        return find(name, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_av)
    text = message(b"\0\0\0\x20ftypM4A " + bytes(100), name="me.m4a")
    assert text.startswith("me.m4a is MP4") and "voxclone[media]" in text and "ffmpeg" in text


def wav(seconds: float = 1.0) -> bytearray:
    return bytearray(encode(syllables(seconds).astype(np.float32), 24000, "WAV", "PCM_16"))


@pytest.mark.parametrize("riff", [0, 0xFFFFFFFF, None])
@pytest.mark.parametrize("source", ["bytes", "file"])
def test_a_wav_whose_samples_were_not_counted(
    riff: int | None, source: str, tmp_path: Path
) -> None:
    data = wav()
    at = data.index(b"data")
    data[at + 4 : at + 8] = bytes(4)
    if riff is not None:
        data[4:8] = riff.to_bytes(4, "little")
    path = tmp_path / "stopped.wav"
    path.write_bytes(data)
    recording = read_recording(path if source == "file" else bytes(data))
    assert np.array_equal(recording.wave_S, read_recording(bytes(wav())).wave_S)


def test_a_wav_without_samples_stays_one() -> None:
    empty = bytes(encode(np.zeros(0, np.float32), 24000, "WAV", "PCM_16"))
    assert "no samples" in message(empty)
    tagged = empty + struct.pack("<4sI", b"LIST", 12) + b"INFOIART\0\0\0\0"
    assert "no samples" in message(tagged)


def test_a_header_that_counts_half_of_the_samples() -> None:
    data = wav(2.0)
    at = data.index(b"data")
    data[at + 4 : at + 8] = (48000).to_bytes(4, "little")
    recording = read_recording(bytes(data))
    assert recording.duration == 1.0
    assert "counts 1.0 s; about 1.0 s after them were left out" in recording.notes[0]
    assert not read_recording(bytes(wav() + b"LIST\x04\0\0\0abcd")).notes


def test_a_part_of_a_file_that_has_no_positions(tmp_path: Path) -> None:
    path = tmp_path / "hour.m4a"
    path.write_bytes(encode_media("ipod", "aac", syllables(1.0)))
    with pytest.raises(ValueError, match=r"parts of MP4 .* cannot be read.*ffmpeg"):
        read_part(path, 0.2, 0.5)
