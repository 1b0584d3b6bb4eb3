"""Damaged sound files and videos: a sentence or a recording, soon, in little memory."""

import random
import time
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from tests.audio.test_hostile import SEEDS, check
from tests.audio.test_media import FILES
from tests.helpers.media import encode_media
from tests.helpers.memory import needs_proc, peak_memory, resident_memory
from tests.helpers.signals import syllables

MAX_SECONDS, MAX_GROWTH = 5.0, 300e6
EXTREMES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\x10\0")
HEADER = 400


@cache
def seeds(video: bool) -> list[bytes]:
    """A file of half a second of every kind, with or without pictures."""
    made = [
        encode_media(
            container, codec, syllables(0.5, rate).astype(np.float32), rate, video=pictures
        )
        for container, codec, rate, pictures in FILES.values()
        if (pictures is not None) == video
    ]
    return made if video else made + SEEDS


def mutations(originals: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Damaged copies: bytes and sizes overwritten, half of the time in the header, some cut off."""
    draws = random.Random(seed)
    for number in range(count):
        data = bytearray(originals[number % len(originals)])
        end = min(len(data), HEADER) if draws.random() < 0.5 else len(data)
        for _ in range(draws.randint(1, 12)):
            at = draws.randrange(end)
            if draws.random() < 0.3:
                data[at : at + 4] = draws.choice(EXTREMES)
            else:
                data[at] = draws.randrange(256)
        cut = draws.random() < 0.2
        yield bytes(data[: draws.randrange(1, len(data))] if cut else data)


@needs_proc
@pytest.mark.parametrize(
    "count", [100, pytest.param(5000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
@pytest.mark.parametrize("video", [False, True])
def test_damaged_files_get_a_sentence(video: bool, count: int) -> None:
    for original in seeds(video):
        check(original)
    peak_memory()
    before = resident_memory()
    for number, data in enumerate(mutations(seeds(video), count, seed=count)):
        begun = time.monotonic()
        check(data)
        assert time.monotonic() - begun < MAX_SECONDS, f"mutation {number}"
    assert peak_memory() - before < MAX_GROWTH
