"""Hostile voice files are refused: nothing in them runs, nothing crashes, memory stays flat."""

import json
import os
import pickle
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.voice import hostile
from voxclone.errors import VoiceError
from voxclone.voice.file import Voice

ROOT = Path(__file__).parents[2]
# Kinds of which some files are voices after all: a flipped bit in a statement, an odd report that
# nobody can show, the offsets that were there before.
HARMLESS = {
    "flipped", "odd_metadata", "odd_reports", "great_shapes", "lying_offsets", "odd_dtypes",
}  # fmt: skip


@pytest.mark.parametrize("cases", [475, pytest.param(2400, marks=pytest.mark.slow)])
def test_hostile_files_are_refused_in_flat_memory(cases: int, tmp_path: Path) -> None:
    path, rng = tmp_path / "case.voice.safetensors", random.Random(2603)
    header, data = hostile.built()
    hostile.write(path, hostile.packed(hostile.text(header), data))
    outcomes = Counter[tuple[str, str]]()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.voice.hostile"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdin is not None and child.stdout is not None
        for number in range(-1, cases):
            kind = list(hostile.KINDS)[number % len(hostile.KINDS)]
            if number >= 0:
                hostile.write(path, hostile.KINDS[kind](rng, tmp_path))
            child.stdin.write(f"{path}\n")
            child.stdin.flush()
            found = json.loads(child.stdout.readline())
            message = found["message"]
            assert found["outcome"] != "wrong", (kind, message)
            assert found["outcome"] == "accepted" or number >= 0, message
            assert message.isprintable() and len(message) < 1500, (kind, message)
            outcomes[kind if number >= 0 else "a voice", found["outcome"]] += 1
        child.stdin.close()
    assert child.returncode == 0
    assert found["mib"] < 50, found["mib"]  # the largest that is let through has 16
    assert not (tmp_path / hostile.MARKER).exists()
    assert sum(outcomes.values()) == cases + 1
    assert all((kind, "refused") in outcomes for kind in hostile.KINDS)
    accepted = {kind for kind, outcome in outcomes if outcome == "accepted"}
    assert accepted <= HARMLESS | {"a voice"}, outcomes


def test_the_generator_starts_from_a_voice(tmp_path: Path) -> None:
    """Otherwise every case would be refused for the same reason."""
    path = tmp_path / "a.voice.safetensors"
    header, data = hostile.built()
    hostile.write(path, hostile.packed(hostile.text(header), data))
    assert Voice.load(path).metadata.name == "anna"


def test_the_gadgets_would_do_harm(tmp_path: Path) -> None:
    pickle.loads(hostile.pickled(random.Random(0), tmp_path))
    assert (tmp_path / hostile.MARKER).exists()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    pipe, loop = tmp_path / "pipe.voice.safetensors", tmp_path / "loop.voice.safetensors"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for path in (pipe, loop, Path("/dev/zero"), tmp_path):
        with pytest.raises(VoiceError, match=r"no voice file|no ordinary file|a directory"):
            Voice.load(path)
