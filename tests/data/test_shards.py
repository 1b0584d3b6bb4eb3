"""Shards of a preparation and of pairs leave what one process would have made."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.data.test_pairs import FEW, MINUTES
from tests.helpers.corpora import put, run, voice
from voxclone.data import prepare as preparation
from voxclone.data.pairs import load_pairs, merge_pairs, speak_pairs
from voxclone.data.shards import Shard, note_end
from voxclone.errors import ConfigError
from voxclone.release.release import Release
from voxclone.tts.tts import TTS


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a preparation but for what shards note."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "shards"
    }


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(preparation, "PART", 2)
    for number in range(9):
        put(tmp_path / "corpus" / f"s{number % 3}" / f"{number}.wav", voice(number))
    put(tmp_path / "corpus" / "s0" / "copy.wav", voice(0))
    return tmp_path / "corpus"


def test_three_shards_make_what_one_process_makes(recordings: Path, tmp_path: Path) -> None:
    assert run("prepare", recordings, "-o", tmp_path / "one", "--jobs", 1)[0] == 0
    given = ("prepare", recordings, "-o", tmp_path / "three", "--jobs", 1)
    for index in (2, 0):
        code, out = run(*given, "--shard", f"{index}/3")
        assert code == 0 and "data merge" in out
    code, error = run("merge", tmp_path / "three")
    assert code == 1 and "these have not ended: 1/3" in error
    assert run(*given, "--shard", "1/3")[0] == 0
    assert run("merge", tmp_path / "three")[0] == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_what_is_missing_or_mixed_is_refused(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ("prepare", recordings, "-o", out, "--jobs", 1)
    code, error = run("merge", tmp_path)
    assert code == 1 and "no shard that ended" in error
    for index in range(2):
        assert run(*given, "--shard", f"{index}/2")[0] == 0
    (out / "parts" / "000003.jsonl").unlink()
    code, error = run("merge", out)
    assert code == 1 and "lost the results of part 3" in error
    assert run(*given, "--shard", "1/2")[0] == 0 and run("merge", out)[0] == 0
    assert run(*given, "--shard", "2/3")[0] == 0
    code, error = run("merge", out)
    assert code == 1 and "of other numbers of shards" in error
    assert run(*given, "--shard", "3/3")[0] == 2


@pytest.mark.slow
def test_a_killed_shard_continues(tmp_path: Path) -> None:
    for number in range(300):
        put(tmp_path / "corpus" / f"s{number % 3}" / f"{number}.flac", voice(number))
    command = ["data", "prepare", str(tmp_path / "corpus"), "-o", str(tmp_path / "out")]
    shard = [sys.executable, "-m", "voxclone", *command, "--jobs", "1", "--shard", "0/2"]
    process = subprocess.Popen(shard, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 200
    while not list((tmp_path / "out").glob("parts/*.jsonl")) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert run("merge", tmp_path / "out")[0] == 1
    for index in (0, 1):
        assert run(*command[1:], "--jobs", 1, "--shard", f"{index}/2")[0] == 0
    assert run("merge", tmp_path / "out")[0] == 0
    assert run("prepare", tmp_path / "corpus", "-o", tmp_path / "one", "--jobs", 1)[0] == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "out")


def test_pairs_of_two_shards_are_those_of_one(
    tiny_release: Release, tiny_tts: TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes of a file depend on its number alone; a surplus beyond a gap goes."""

    def draw(tts: TTS, voices: object, texts: object, settings: object, generator: object) -> list:
        assert isinstance(generator, torch.Generator)
        return [torch.randint(0, 9, (7, 40), generator=generator)]

    monkeypatch.setattr("voxclone.data.pairs._speak_batch", draw)
    two, one = tmp_path / "two", tmp_path / "one"
    speak_pairs(tiny_release, tiny_tts, ["A."], FEW, MINUTES, two, shard=Shard(1, 2))
    with pytest.raises(ConfigError, match="have not ended: 0/2"):
        merge_pairs(two)
    speak_pairs(tiny_release, tiny_tts, ["A."], FEW, MINUTES, two, shard=Shard(0, 2))
    (two / "batch-00099.safetensors").write_bytes(b"")
    kept, frames = merge_pairs(two)
    assert kept == len(list(two.glob("batch-*"))) >= 2
    assert frames == kept * 40
    note_end(two, Shard(0, 2), 0, 2 * MINUTES)
    with pytest.raises(ConfigError, match="other numbers of shards, minutes"):
        merge_pairs(two)
    note_end(two, Shard(0, 2), 0, MINUTES)
    speak_pairs(tiny_release, tiny_tts, ["A."], FEW, MINUTES, one)
    for path in one.glob("batch-*"):
        assert all(map(torch.equal, load_pairs(path), load_pairs(two / path.name)))
    assert json.loads((one / "pairs.json").read_text()) == json.loads(
        (two / "pairs.json").read_text()
    )
