"""Checkpoints are complete or not there, and damage is seen."""

import errno
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.helpers.deaths import OPERATIONS, dies_at
from tests.helpers.disk import files_of_at_most, no_permission
from voxclone import checkpoint
from voxclone.checkpoint import Checkpoint
from voxclone.errors import ConfigError, TrainingError


def make(step: int) -> Checkpoint:
    return Checkpoint(step, {"a": torch.full((3,), float(step))}, {"n": step})


def test_round_trip_keeps_the_newest_two(tmp_path: Path) -> None:
    for step in (1, 2, 30):
        checkpoint.save(tmp_path, make(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000002", "step-0000030"]
    found, complaints = checkpoint.load_latest(tmp_path)
    assert found is not None and found.step == 30 and not complaints
    assert torch.equal(found.tensors["a"], torch.full((3,), 30.0)) and found.values == {"n": 30}


def test_a_folder_that_cannot_be_written_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("mine")
    with pytest.raises(TrainingError, match="The checkpoint of step 1 cannot be written to"):
        checkpoint.save(tmp_path / "text", make(1))


def test_processes_that_save_the_same_leave_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process renames its directory just before this one does."""
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        checkpoint.save(tmp_path, make(2), writer=1)
        rename(source, target)

    checkpoint.save(tmp_path, make(1))
    monkeypatch.setattr(os, "rename", late)
    checkpoint.save(tmp_path, make(2))
    assert {path.name for path in tmp_path.iterdir()} == {"step-0000001", "step-0000002"}
    found, complaints = checkpoint.load_latest(tmp_path)
    assert found is not None and found.step == 2 and not complaints


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, make(1))
    (tmp_path / ".step-0000002.3.tmp").mkdir()
    checkpoint.drop_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000001"]


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


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", [2, 3], ids=["again", "next"])
def test_a_save_that_dies_leaves_a_checkpoint(
    step: int, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Die before or after every operation on files in turn, of a save of the next step and of one
    that replaces the newest; the save after that must work, too."""
    operations = [*OPERATIONS, (checkpoint, "save_file")]
    for death in range(200):
        folder = tmp_path / str(death)
        checkpoint.save(folder, make(1))
        checkpoint.save(folder, make(2))
        new = Checkpoint(step, {"a": torch.zeros(3)}, {"n": step, "new": True})
        save = partial(checkpoint.save, folder, new)
        finished = not dies_at(death, save, monkeypatch, after=after, operations=operations)
        found, complaints = checkpoint.load_latest(folder)
        assert found is not None and found.step in (2, step), death
        assert not complaints, complaints
        assert found.values in ({"n": 2}, new.values)
        checkpoint.save(folder, make(4))
        newest, _ = checkpoint.load_latest(folder)
        assert newest is not None and newest.step == 4
        assert not list(folder.glob(".step-*.old"))
        if finished:
            break
    assert finished and death > 20


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_goes_unseen(name: str, tmp_path: Path) -> None:
    """Every bit of the small files; of the tensors, every bit of the beginning and the end."""
    path = checkpoint.save(tmp_path, make(1)) / name
    content = path.read_bytes()
    places = [*range(min(60, len(content))), *range(max(60, len(content) - 60), len(content))]
    for place in places:
        for bit in range(0, 8, 3):
            spoiled = bytearray(content)
            spoiled[place] ^= 1 << bit
            path.write_bytes(spoiled)
            with pytest.raises(ConfigError):
                checkpoint.load(path.parent)


BROKEN = (
    "[]", "3", "null", '{"step": 2}', '{"step": "x", "files": {}}', '{"step": 2, "files": []}',
    '{"step": 2, "files": {}}',
)  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_a_manifest_that_is_none_or_another_s_is_named(text: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, make(1))
    newest = checkpoint.save(tmp_path, make(2))
    (newest / "manifest.json").write_text(text)
    found, complaints = checkpoint.load_latest(tmp_path)
    assert found is not None and found.step == 1
    assert len(complaints) == 1 and str(newest) in complaints[0]


def test_a_checkpoint_under_another_step_s_name_is_named(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, make(1))
    moved = checkpoint.save(tmp_path, make(2)).rename(tmp_path / "step-0000009")
    found, complaints = checkpoint.load_latest(tmp_path)
    assert found is not None and found.step == 1
    assert len(complaints) == 1 and str(moved) in complaints[0] and "step 2" in complaints[0]


def test_a_folder_that_may_not_be_written_any_more_is_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    checkpoint.save(folder, make(1))
    with no_permission(folder), pytest.raises(TrainingError) as caught:
        checkpoint.save(folder, make(2))
    message = str(caught.value)
    assert "permission is denied" in message and "step 1 is kept" in message
    assert checkpoint.load(checkpoint.save(folder, make(2))).step == 2


def test_a_disk_that_became_read_only_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, make(1))

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", refuse)
        with pytest.raises(TrainingError, match=r"the disk is read-only.*step 1 is kept"):
            checkpoint.save(tmp_path, make(2))
    assert checkpoint.load(checkpoint.save(tmp_path, make(2))).step == 2


def test_a_disk_that_is_full_is_a_sentence_with_the_way_on(tmp_path: Path) -> None:
    big = Checkpoint(1, {"weight": torch.zeros(100_000)}, {})
    with files_of_at_most(10_000), pytest.raises(TrainingError) as caught:
        checkpoint.save(tmp_path, big)
    message = str(caught.value)
    assert "larger than the system allows" in message and "begin again" in message
    assert "SafetensorError" not in message and not list(tmp_path.iterdir())
    checkpoint.save(tmp_path, big)
    with files_of_at_most(10_000), pytest.raises(TrainingError, match=r"step 1 is kept.*--resume"):
        checkpoint.save(tmp_path, replace(big, step=2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000001"]
    assert checkpoint.load(tmp_path / "step-0000001").step == 1
