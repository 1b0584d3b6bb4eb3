"""Ogg pages with a serial number of ours."""

import io

import numpy as np
import pytest
import soundfile

from voxclone.audio.ogg import with_fixed_serial


@pytest.mark.parametrize("subtype", ["OPUS", "VORBIS"])
def test_other_serial_numbers_are_other_bytes_of_the_same_sound(subtype: str) -> None:
    noise_S = np.random.default_rng(0).normal(size=72_000).astype(np.float32) / 10
    files = []
    for _ in range(2):
        buffer = io.BytesIO()
        soundfile.write(buffer, noise_S, 24_000, format="OGG", subtype=subtype)
        files.append(buffer.getvalue())
    first, second = map(with_fixed_serial, files)
    assert files[0] != files[1] and first == second and len(first) == len(files[0])
    assert first.count(b"OggS\0") > 2
    before, after = (soundfile.read(io.BytesIO(each))[0] for each in (files[0], first))
    assert len(after) == len(noise_S) and np.array_equal(before, after)  # checksums hold
    damaged = bytearray(first)
    damaged[22] ^= 1
    with pytest.raises(soundfile.LibsndfileError):  # and are read
        soundfile.read(io.BytesIO(damaged))


@pytest.mark.parametrize("pages", [b"RIFF" + bytes(40), b"OggS", b"OggS" + bytes(22) + b"\2\1\1x"])
def test_what_is_no_whole_page_is_refused(pages: bytes) -> None:
    with pytest.raises(ValueError, match="byte 0"):
        with_fixed_serial(pages)
