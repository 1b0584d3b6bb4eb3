"""Whatever is given becomes float32 mono at 24 kHz, or one sentence says why not."""

import hashlib
import io
import math
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from tests.helpers.signals import speech, syllables
from voxclone.audio.decode import check_header
from voxclone.audio.files import ReadingLimits, Recording, read_part, read_recording, read_wave
from voxclone.errors import AudioError

FORMATS = {
    "WAV": ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"),
    "WAVEX": ("PCM_16",),
    "AIFF": ("PCM_S8", "PCM_16", "PCM_24", "FLOAT"),
    "FLAC": ("PCM_16", "PCM_24"),
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_III",),
}
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000)


def encode(wave: np.ndarray, rate: int, container: str, encoding: str) -> bytes:
    """A file, written in half-second blocks."""
    stream = io.BytesIO()
    channels = 1 if wave.ndim == 1 else wave.shape[1]
    with soundfile.SoundFile(
        stream, "w", rate, channels, format=container, subtype=encoding
    ) as file:
        for start in range(0, len(wave), rate // 2):
            file.write(wave[start : start + rate // 2])
    return stream.getvalue()


def message(source: object, **options: object) -> str:
    """The refusal of `source`: one sentence."""
    with pytest.raises(AudioError) as caught:
        read_recording(source, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and ". " not in text.removesuffix("."), text
    return text


def cosine(a_S: np.ndarray, b_S: np.ndarray) -> float:
    """Cosine of two waves of one length."""
    return float(a_S @ b_S / np.sqrt((a_S @ a_S) * (b_S @ b_S)))


@pytest.mark.parametrize(
    "container, encoding", [(c, e) for c, encodings in FORMATS.items() for e in encodings]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_gives_the_same_wave(
    container: str, encoding: str, channels: int, tmp_path: Path
) -> None:
    wave_S = syllables(1.0, 24000, top_hz=4000).astype(np.float32)
    wave_SC = np.stack([wave_S] * channels, axis=1)
    path = tmp_path / "clip.bin"  # the name says nothing: only the content counts
    path.write_bytes(encode(wave_SC, 24000, container, encoding))
    recording = read_recording(path)
    assert recording.wave_S.dtype == np.float32 and recording.wave_S.shape == (24000,)
    assert (recording.native_rate, recording.channels) == (24000, channels)
    assert recording.duration == 1.0 and recording.source == "clip.bin"
    assert recording.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert cosine(recording.wave_S, wave_S) > (0.9 if encoding == "OPUS" else 0.99)
    from_bytes = read_recording(path.read_bytes(), name="clip")
    assert np.array_equal(from_bytes.wave_S, recording.wave_S)
    assert from_bytes.sha256 == recording.sha256 and from_bytes.source == "clip"


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_rate_gives_the_same_wave(rate: int, channels: int, tmp_path: Path) -> None:
    truth_S = syllables(1.0, 24000, top_hz=3000)
    wave_S = syllables(1.0, rate, top_hz=3000)
    path = tmp_path / "clip.wav"
    path.write_bytes(encode(np.stack([wave_S] * channels, axis=1), rate, "WAV", "FLOAT"))
    recording = read_recording(path)
    assert recording.native_rate == rate and abs(len(recording.wave_S) - 24000) <= 1
    assert np.abs(recording.wave_S[100:-100] - truth_S[100 : len(recording.wave_S) - 100]).max() < (
        0.003
    )
    array = read_recording((np.stack([wave_S] * channels, axis=1), rate))
    assert np.array_equal(array.wave_S, recording.wave_S)


@pytest.mark.parametrize("rate, channels", [(44100, 2), (48000, 1), (16000, 1), (24000, 2)])
def test_reading_in_blocks_equals_reading_at_once(rate: int, channels: int, tmp_path: Path) -> None:
    """What training read before recordings were read in blocks stays the same to the bit."""
    generator = np.random.default_rng(0)
    wave_SC = (generator.standard_normal((7 * rate + 123, channels)) * 0.1).astype(np.float32)
    path = tmp_path / "clip.flac"
    soundfile.write(path, wave_SC, rate)
    samples_SC, _ = soundfile.read(path, dtype="float32", always_2d=True)
    truth_S = samples_SC.mean(axis=1)
    truth_S = truth_S if rate == 24000 else soxr.resample(truth_S, rate, 24000)
    assert np.array_equal(read_wave(path), truth_S)
    assert np.array_equal(read_wave(str(path)), truth_S)


def test_up_to_eight_channels_are_averaged() -> None:
    wave_S = syllables(1.0)
    wave_SC = wave_S[:, None] * np.arange(1, 9)
    recording = read_recording((wave_SC, 24000))
    assert np.allclose(recording.wave_S, wave_S * 4.5, atol=1e-6)
    assert recording.notes == ("Averaged 8 channels to one.",)
    assert np.array_equal(read_recording((wave_SC.T, 24000)).wave_S, recording.wave_S)
    assert "9 channels" in message((np.ones((24000, 9)), 24000))


def test_opposite_channels_do_not_cancel() -> None:
    wave_S = syllables(1.0, 48000).astype(np.float32)
    recording = read_recording((np.stack([wave_S * 0.9, -wave_S], axis=1), 48000))
    assert np.allclose(recording.wave_S, soxr.resample(-wave_S, 48000, 24000))
    assert "channel 2 of 2" in recording.notes[1]


@pytest.mark.parametrize(
    "dtype, scale",
    [("u1", 128), ("i2", 2**15), ("i4", 2**31), ("f4", 1), ("f8", 1), (">i2", 2**15)],
)
def test_arrays_of_any_type(dtype: str, scale: int) -> None:
    wave_S = syllables(1.0) * 0.9
    given = wave_S * scale + (128 if dtype == "u1" else 0)
    before = given.astype(dtype).copy()
    array = before.copy()
    recording = read_recording((array, np.int64(24000)))  # type: ignore[arg-type]
    assert np.abs(recording.wave_S - wave_S).max() < (0.01 if dtype == "u1" else 1e-4)
    recording.wave_S[:] = 0
    assert np.array_equal(array, before)


def test_refusals_of_paths(tmp_path: Path) -> None:
    assert message(tmp_path / "none.wav") == f"There is no file {tmp_path / 'none.wav'}."
    assert "is a folder" in message(tmp_path)
    empty = tmp_path / "empty.wav"
    empty.touch()
    assert "is empty" in message(empty)
    text = tmp_path / "notes.wav"
    text.write_text("This is not audio.")
    assert "not an audio file" in message(text)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.wav")
        assert "not an ordinary file" in message(tmp_path / "pipe.wav")
    assert "cannot be read" in message(tmp_path / ("x" * 300))


def test_standard_input_and_open_pipes_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(syllables(1.0), 24000, "WAV", "PCM_16")
    truth = read_recording(data)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    piped = read_recording(Path("-"))
    assert piped.sha256 == truth.sha256 and piped.source == "standard input"
    assert np.array_equal(piped.wave_S, truth.wave_S)
    assert "standard input is empty" in message(Path("-"))  # it was read already
    sys.stdin.close()
    assert "Standard input is closed" in message("-")
    ends = os.pipe()
    writer = threading.Thread(target=lambda: write_and_close(ends[1], data))
    writer.start()
    assert read_recording(f"/dev/fd/{ends[0]}").sha256 == truth.sha256
    writer.join()
    os.close(ends[0])


def write_and_close(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb") as pipe:
        pipe.write(data)


def test_an_address_is_not_a_missing_file() -> None:
    for address in ("https://host/a.wav", Path("http://host/a.wav")):
        assert "download the file first" in message(address)
    assert "give the path of the file, /a.wav" in message("file:///a.wav")


def test_refusals_of_content() -> None:
    wave_S = syllables(1.0).astype(np.float32)
    wav = encode(wave_S, 24000, "WAV", "FLOAT")
    assert "cannot be decoded" in message(b"fLaC" + bytes(100))
    assert "cannot be decoded" in message(wav[:20])
    assert "no samples" in message(encode(wave_S[:0], 24000, "WAV", "PCM_16"))
    assert "digital silence" in message(encode(wave_S * 0, 24000, "FLAC", "PCM_16"))
    assert "at most 0.1 can" in message(wav * 2, limits=ReadingLimits(max_bytes=100_000))
    assert "4000 Hz" in message(encode(wave_S, 4000, "WAV", "PCM_16"))
    assert "4000000 Hz" in message(encode(wave_S, 4_000_000, "WAV", "PCM_16"))
    assert "9 channels" in message(encode(np.ones((100, 9)), 24000, "WAV", "PCM_16"))
    limits = ReadingLimits(max_seconds=0.5)
    assert "is 1.0 s long, and at most 0.5 s" in message(wav, limits=limits)


@pytest.mark.parametrize(
    "seconds, most, words",
    [
        (301, 300, "is 5 min 1 s long, and at most 5 min can be read"),
        (300.001, 300, "is 5 min 0.1 s long, and at most 5 min can be read"),
        (100.001, 100, "is 100.1 s long, and at most 100.0 s can be read"),
        (7199.99, 600, "is 2 h 0 min long, and at most 10 min can be read"),
        (10**7, 600, "is 2777 h 47 min long, and at most 10 min can be read"),
    ],
)
def test_what_is_a_little_too_long_is_not_called_as_long_as_it_may_be(
    seconds: float, most: float, words: str
) -> None:
    with pytest.raises(AudioError, match=words):
        check_header(24000, 1, math.ceil(seconds * 24000), "a.wav", most)


def test_numbers_that_are_not_finite_are_counted_and_placed() -> None:
    wave_SC = np.stack([syllables(12.0, 48000)] * 2, axis=1).astype(np.float32)
    wave_SC[480000, 1] = np.nan
    wave_SC[480010] = np.inf
    text = message(encode(wave_SC, 48000, "WAV", "FLOAT"))
    assert "3 samples that are NaN or infinite, the first at 10.000 s (sample 480000)" in text
    wave_SC[480000:480011] = 0
    wave_SC[7, 0] = -np.inf
    assert "1 sample that is NaN or infinite, the first at 0.000 s" in message((wave_SC, 48000))
    wave_SC[7:9] = 3e38
    assert "far beyond" in message((wave_SC, 48000))


@pytest.mark.parametrize(
    "array, rate, reason",
    [
        (np.ones((2, 3, 4)), 24000, "shape is"),
        (np.array(1.0), 24000, "shape is"),
        (np.array(["a"]), 24000, "type is"),
        (np.ones(9, complex), 24000, "type is"),
        (np.ones(24000), 22050.5, "whole number"),
        (np.ones(24000), None, "samples"),
        (np.ones(24000), float("nan"), "samples"),
        (np.ones(24000), 0, "0 Hz"),
        (np.zeros(0), 24000, "no samples"),
        (np.zeros((0, 2)), 24000, "no samples"),
        (np.ones(24000 * 601), 24000, "10 min"),
    ],
)
def test_refusals_of_arrays(array: np.ndarray, rate: int, reason: str) -> None:
    assert reason in message((array, rate))


def test_clipping_is_counted_at_the_native_rate() -> None:
    wave_S = speech([3.0], [0.5, 0.5], rate=48000)
    assert read_recording((wave_S, 48000)).clipped_share < 1e-4
    limit = np.percentile(np.abs(wave_S), 98)
    clipped_S = wave_S.clip(-limit, limit)
    inside = np.abs(clipped_S) >= limit
    share = read_recording((clipped_S, 48000)).clipped_share
    assert 0.5 * inside.mean() < share <= 1.2 * inside.mean()


def test_a_recording_is_a_value() -> None:
    recording = read_recording((syllables(1.0), 24000))
    with pytest.raises(AttributeError):
        recording.duration = 2.0  # type: ignore[misc]
    assert isinstance(recording, Recording) and recording.sampling_rate == 24000


@pytest.mark.parametrize(
    ("start", "seconds"),
    [(float("nan"), 1), (0, float("nan")), (-1, 1), (0, 0), (float("inf"), 1), (0, 1e300)],
)
def test_a_part_that_is_none_is_refused(tmp_path: Path, start: float, seconds: float) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(24000, 0.1), 24000)
    with pytest.raises(AudioError, match="no part of a recording"):
        read_part(path, start, seconds)
