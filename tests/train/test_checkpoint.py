"""Checkpoints are complete or not there, and damage is seen."""

import json
import os
from pathlib import Path

import pytest
import torch

from voxclone.errors import ConfigError
from voxclone.train import checkpoint
from voxclone.train.checkpoint import Checkpoint


def make(step: int) -> Checkpoint:
    return Checkpoint(step, {"a": torch.full((3,), float(step))}, {"n": step})


def test_round_trip_keeps_the_newest_two(tmp_path: Path) -> None:
    for step in (1, 2, 30):
        checkpoint.save(tmp_path, make(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000002", "step-0000030"]
    found, complaints = checkpoint.load_latest(tmp_path)
    assert found is not None and found.step == 30 and not complaints
    assert torch.equal(found.tensors["a"], torch.full((3,), 30.0)) and found.values == {"n": 30}


FILES = ("state.safetensors", "values.json", "manifest.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["truncate", "flip", "delete", "empty"])
def test_damage_is_seen_and_the_one_before_is_taken(name: str, kind: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, make(1))
    newest = checkpoint.save(tmp_path, make(2))
    path = newest / name
    content = bytearray(path.read_bytes())
    if kind == "truncate":
        path.write_bytes(content[:-3])
    elif kind == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    found, complaints = checkpoint.load_latest(tmp_path)
    assert found is not None and found.step == 1
    assert len(complaints) == 1 and str(newest) in complaints[0]
    with pytest.raises(ConfigError):
        checkpoint.load(newest)


def test_a_save_that_dies_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Die at every rename, flush and write of a save in turn."""
    checkpoint.save(tmp_path, make(1))
    calls = {"left": 0}

    class Died(BaseException):
        pass

    def dying(function):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            if calls["left"] == 0:
                raise Died
            calls["left"] -= 1
            return function(*args, **kwargs)

        return call

    survived = 0
    for death in range(40):
        with monkeypatch.context() as patched:
            calls["left"] = death
            for name in ("rename", "fsync", "open"):
                patched.setattr(os, name, dying(getattr(os, name)))
            patched.setattr(Path, "write_text", dying(Path.write_text))
            patched.setattr(Path, "mkdir", dying(Path.mkdir))
            try:
                checkpoint.save(tmp_path, make(100 + death))
                survived += 1
            except Died:
                pass
        found, _ = checkpoint.load_latest(tmp_path)
        assert found is not None
        assert json.dumps(found.values) == json.dumps({"n": found.step})
    assert 0 < survived < 40
