"""Every format, encoded in pieces: the bytes join to a file that readers read whole."""

import io
import wave

import numpy as np
import pytest
import soundfile

from voxclone.audio.files import read_recording
from voxclone.serve.encoding import MEDIA_TYPES, is_streamed, open_encoder, wave_header
from voxclone.serve.schemas import Format

RATE = 24000
SOUNDFILE: tuple[Format, ...] = ("mp3", "opus", "flac", "wav")


def tone(seconds: float) -> np.ndarray:
    time_S = np.arange(round(seconds * RATE)) / RATE
    return (0.4 * np.sin(2 * np.pi * 220 * time_S)).astype(np.float32)


def encoded(name: Format, wave_S: np.ndarray, piece: int = 9600) -> list[bytes]:
    encoder = open_encoder(name, RATE)
    parts = [encoder.add(wave_S[start : start + piece]) for start in range(0, len(wave_S), piece)]
    return [*parts, encoder.finish()]


@pytest.mark.parametrize("name", SOUNDFILE)
@pytest.mark.parametrize("seconds", [0.3, 4.0])
def test_the_pieces_are_the_recording(name: Format, seconds: float) -> None:
    wave_S = tone(seconds)
    recording = read_recording(b"".join(encoded(name, wave_S)))
    assert 0 <= len(recording.wave_S) - len(wave_S) < 0.1 * RATE  # MP3 adds a frame or two
    peak = np.abs(recording.wave_S[len(wave_S) // 2 :][:2400]).max()
    assert 0.3 < peak < 0.5
    if name in ("flac", "wav"):
        assert np.abs(recording.wave_S - wave_S).max() < 2**-14


def test_aac_is_the_recording() -> None:
    av = pytest.importorskip("av", exc_type=ImportError)
    content = b"".join(encoded("aac", tone(2)))
    frames = av.open(io.BytesIO(content)).decode(audio=0)
    assert 0 <= sum(frame.samples for frame in frames) - 2 * RATE < 0.1 * RATE


@pytest.mark.parametrize("name", MEDIA_TYPES)
@pytest.mark.parametrize("piece", [960, 9600])
def test_the_same_samples_are_the_same_bytes(name: Format, piece: int) -> None:
    if name == "aac":
        pytest.importorskip("av", exc_type=ImportError)
    first, again = (b"".join(encoded(name, tone(3), piece)) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_what_is_streamed_comes_with_the_samples(name: Format) -> None:
    if name == "aac":
        pytest.importorskip("av", exc_type=ImportError)
    parts = encoded(name, tone(6))
    early = sum(len(part) for part in parts[:8])
    if is_streamed(name):
        assert early > 0.3 * sum(map(len, parts))  # after half of the samples
    else:
        assert early == 0
    if name in ("pcm", "wav"):
        assert len(parts[0]) >= 2 * 9600


def test_a_streamed_wave_is_read_by_pythons_own_reader() -> None:
    wave_S = tone(1)
    with wave.open(io.BytesIO(b"".join(encoded("wav", wave_S)))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        assert len(file.readframes(file.getnframes())) == 2 * len(wave_S)


def test_a_known_length_is_in_the_header() -> None:
    content = wave_header(RATE, 100) + bytes(200)
    with wave.open(io.BytesIO(content)) as file:
        assert file.getnframes() == 100
    assert soundfile.info(io.BytesIO(content)).frames == 100


@pytest.mark.parametrize("name", ["wav", "mp3", "pcm", "flac", "opus"])
def test_nothing_at_all_and_far_beyond_full_scale(name: Format) -> None:
    encoder = open_encoder(name, RATE)
    assert isinstance(encoder.add(np.zeros(0, np.float32)) + encoder.finish(), bytes)
    loud = read_recording(b"".join(encoded("wav", 9 * tone(1))))
    assert np.abs(loud.wave_S).max() <= 1


def test_memory_does_not_grow_with_the_stream() -> None:
    encoder = open_encoder("opus", RATE)
    for _ in range(20):
        encoder.add(tone(1))
        assert len(encoder._sink._kept) == 0  # type: ignore[attr-defined]
