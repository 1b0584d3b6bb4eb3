"""Stored voices are found by name, only in their folder, and leave nothing when removed."""

import os
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_release import write_tiny_release
from tests.voice.test_file import metadata
from voxclone.errors import UnknownVoiceError, UsageError, VoiceError, VoiceExistsError
from voxclone.io import remove_abandoned
from voxclone.release.release import Release
from voxclone.voice import store
from voxclone.voice.file import Voice, read_metadata


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return Release.open(write_tiny_release(tmp_path_factory.mktemp("store") / "release"))


def put(folder: Path, name: str, **changes: object) -> Path:
    path = store.voice_path(store.open_folder(folder), name)
    codes_KT = torch.zeros(7, 5, dtype=torch.long)
    Voice(codes_KT, torch.zeros(6, 12), metadata(name=name, **changes)).save(path)
    return path


def test_a_voice_is_listed_found_and_removed(tmp_path: Path, release: Release) -> None:
    folder = tmp_path / "a" / "voices"
    assert store.list_voices(folder) == []
    path = put(folder, "zoe")
    put(folder, "ada")
    assert folder.stat().st_mode & 0o077 == 0
    assert [each.name for each in store.list_voices(folder)] == ["ada", "zoe"]
    assert store.find_stored(folder, "zoe") == store.find_voice("zoe", release, folder) == path
    assert store.remove_voice(folder, "zoe") == path
    store.remove_voice(folder, "ada")
    assert list(folder.iterdir()) == []
    with pytest.raises(VoiceError, match="no voice 'zoe'"):
        store.remove_voice(folder, "zoe")


def test_a_voice_gets_another_name_unless_that_is_taken(tmp_path: Path) -> None:
    put(tmp_path, "ada"), put(tmp_path, "zoe")
    with pytest.raises(VoiceExistsError):
        store.rename_voice(tmp_path, "ada", "zoe")
    path = store.rename_voice(tmp_path, "ada", "eva")
    assert [each.name for each in store.list_voices(tmp_path)] == ["eva", "zoe"]
    assert read_metadata(path).name == "eva"
    with pytest.raises(UnknownVoiceError, match="no voice 'ada'"):
        store.rename_voice(tmp_path, "ada", "bea")
    with pytest.raises(VoiceError, match="cannot be a voice's"):
        store.rename_voice(tmp_path, "eva", "../eva")


def test_names_of_others_are_never_paths(tmp_path: Path, release: Release) -> None:
    path = put(tmp_path, "zoe")
    assert store.find_by_name("zoe", release, tmp_path) == path
    assert store.find_by_name("anna", release, tmp_path) is None
    for name in (str(path), path.name, "./zoe", "zoe/", "../zoe", "ZOE"):
        with pytest.raises(UnknownVoiceError, match="Presets are anna"):
            store.find_by_name(name, release, tmp_path)


def test_files_of_a_killed_writer_are_removed_when_they_are_old(tmp_path: Path) -> None:
    put(tmp_path, "zoe")
    old, new = tmp_path / ".voxclone-1.tmp", tmp_path / ".voxclone-2.tmp"
    old.touch(), new.touch()
    os.utime(old, (1, 1))
    remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".voxclone-2.tmp", "zoe.voice.safetensors"
    ]  # fmt: skip


def test_a_damaged_file_is_listed_with_its_problem_and_can_be_removed(tmp_path: Path) -> None:
    put(tmp_path, "ada")
    (tmp_path / "bad.voice.safetensors").write_bytes(b"not a voice")
    (tmp_path / "Upper Case.voice.safetensors").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("mine")
    found = {each.name: each for each in store.list_voices(tmp_path)}
    assert set(found) == {"ada", "bad", "Upper Case"}
    assert found["ada"].problem is None and found["bad"].metadata is None
    assert "no voice file" in str(found["bad"].problem)
    store.remove_voice(tmp_path, "bad")
    assert (tmp_path / "notes.txt").exists() and len(store.list_voices(tmp_path)) == 2


@pytest.mark.parametrize(
    "name", ["../secret", "..", "/etc/passwd", "a\x00b", "A", "", "con", "a/b"]
)
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    folder = store.open_folder(tmp_path / "voices")
    (tmp_path / "secret.voice.safetensors").write_bytes(b"x")
    for use in (store.find_stored, store.remove_voice, store.voice_path):
        with pytest.raises(VoiceError, match="cannot be a voice's"):
            use(folder, name)
    assert (tmp_path / "secret.voice.safetensors").exists()


def test_what_speak_finds(tmp_path: Path, release: Release) -> None:
    assert store.find_voice("bert", release, tmp_path) is None
    assert store.find_voice("x/y.voice.safetensors", release, tmp_path) == Path(
        "x/y.voice.safetensors"
    )
    put(tmp_path, "berta")
    with pytest.raises(VoiceError, match=r"no voice 'bertha' \(did you mean 'berta'\?\).* berta"):
        store.find_voice("bertha", release, tmp_path)
    (tmp_path / "Not so.voice.safetensors").write_bytes(b"")  # listed, and no name
    with pytest.raises(VoiceError, match=r"no voice 'Not so'\. "):
        store.find_voice("Not so", release, tmp_path)
    put(tmp_path, "bert")
    with pytest.raises(UsageError, match=r"'bert' is a preset of .* and a stored voice"):
        store.find_voice("bert", release, tmp_path)


def test_an_enrollment_is_found_by_its_identity(tmp_path: Path) -> None:
    path = put(tmp_path / "voices", "ada", enrollment_id="one")
    put(tmp_path / "voices", "zoe", enrollment_id="two")
    (tmp_path / "voices" / "bad.voice.safetensors").write_bytes(b"x")
    aside = put(tmp_path / "aside", "ada", enrollment_id="one")
    find = store.find_enrollment
    assert find([], tmp_path / "voices", "one") == path
    assert find([aside, tmp_path / "none"], tmp_path / "voices", "one") == aside
    assert find([aside], tmp_path / "voices", "three") is None
    assert find([], tmp_path / "nowhere", "one") is None


def test_what_is_stored_and_is_no_file(tmp_path: Path, release: Release) -> None:
    """It is called what it is, not unknown; the list has it with its problem."""
    (tmp_path / "dir.voice.safetensors").mkdir()
    for find in (
        lambda: store.find_stored(tmp_path, "dir"),
        lambda: store.find_voice("dir", release, tmp_path),
    ):
        with pytest.raises(VoiceError, match="'dir' is stored, but it is no voice") as refusal:
            find()
        assert not isinstance(refusal.value, UnknownVoiceError)
    (listed,) = store.list_voices(tmp_path)
    assert listed.name == "dir" and "directory" in str(listed.problem)


def test_no_folder_can_be_made_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(VoiceError, match=r"No folder for voices .*: a file is there\.$"):
        store.open_folder(tmp_path / "file")
    with pytest.raises(VoiceError, match="No folder for voices"):
        store.open_folder(tmp_path / "file" / "voices")
