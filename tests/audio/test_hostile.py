"""Files made to do harm, or damaged by chance: a sentence or a sound recording, never more."""

import io
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.audio.test_reading import FORMATS, encode, message
from tests.helpers.signals import syllables
from voxclone.audio.files import ReadingLimits, Recording, read_recording
from voxclone.errors import AudioError

MAGIC = [b"", b"RIFF\x24\0\0\0WAVEfmt ", b"fLaC\0\0\0\x22", b"OggS\0\2", b"ID3\3", b"\xff\xfb\x90"]
MAGIC += [b"FORM\0\0\0\x40AIFFCOMM", b"FORM\0\0\0\x40AIFCFVER"]
SEEDS = [
    encode(syllables(0.3).astype(np.float32), 24000, container, encoding)
    for container, encodings in FORMATS.items()
    for encoding in encodings[-2:]
]
FUZZ = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check(data: bytes) -> None:
    """What is accepted can be used without a further look."""
    try:
        recording = read_recording(data, ReadingLimits(max_seconds=20))
    except AudioError as error:
        assert "\n" not in str(error)
        return
    assert isinstance(recording, Recording)
    assert recording.wave_S.dtype == np.float32 and recording.wave_S.ndim == 1
    assert 0 < len(recording.wave_S) <= 20 * 24000 + 1
    assert np.isfinite(recording.wave_S).all()
    assert 0 <= recording.clipped_share <= 1


@FUZZ
@given(st.sampled_from(MAGIC), st.binary(max_size=400))
def test_random_bytes(magic: bytes, rest: bytes) -> None:
    check(magic + rest)


@FUZZ
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 255)), min_size=1, max_size=12),
    st.booleans(),
    st.floats(0, 1),
)
def test_damaged_files(
    seed: bytes, damages: list[tuple[int, int]], head_only: bool, kept: float
) -> None:
    data = bytearray(seed)
    for place, value in damages:  # damage to headers does more than damage to samples
        data[place % (min(len(data), 120) if head_only else len(data))] = value
    check(bytes(data[: max(int(len(data) * kept), 1)]) if kept < 0.9 else bytes(data))


def silent_flac(hours: float, length_known: bool) -> bytes:
    """Hours of silence after one audible second, in some hundred kilobytes."""
    stream = io.BytesIO()
    with soundfile.SoundFile(stream, "w", 8000, 1, format="FLAC", subtype="PCM_16") as file:
        file.write(syllables(1.0, 8000))
        for _ in range(round(hours * 60)):
            file.write(np.zeros(8000 * 60, np.int16))
    data = bytearray(stream.getvalue())
    if not length_known:  # the 36 bits of STREAMINFO that hold the number of samples
        data[21] &= 0xF0
        data[22:26] = bytes(4)
    return bytes(data)


@pytest.mark.parametrize("length_known, most", [(True, 1e6), (False, 80e6)])
def test_a_decompression_bomb_costs_no_memory(length_known: bool, most: float) -> None:
    bomb = silent_flac(1, length_known)
    assert len(bomb) < 1_000_000
    read_recording(SEEDS[0])  # what is allocated once, on the first call, is not counted
    tracemalloc.start()
    text = message(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ("60 min 1 s long" in text) if length_known else ("than its header says" in text)
    assert "at most 10 min" in text and peak < most


def test_a_header_that_promises_too_much() -> None:
    data = bytearray(encode(syllables(1.0), 24000, "FLAC", "PCM_16"))
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    assert "at most 10 min" in message(bytes(data))


def test_a_stream_whose_length_is_not_in_its_header() -> None:
    """As ffmpeg writes FLAC into a pipe."""
    wave_S = syllables(1.5).astype(np.float32)
    data = bytearray(encode(wave_S, 24000, "FLAC", "PCM_16"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert np.abs(read_recording(bytes(data)).wave_S - wave_S).max() < 1e-4


@pytest.mark.parametrize("channels, rate", [(255, 24000), (1, 1), (1, 2**31 - 1)])
def test_absurd_headers(channels: int, rate: int) -> None:
    data = bytearray(encode(syllables(0.5), 24000, "WAV", "PCM_16"))
    data[22:24] = channels.to_bytes(2, "little")
    data[24:28] = rate.to_bytes(4, "little")
    message(bytes(data))
