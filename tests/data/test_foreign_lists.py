"""Lists as people have them get a sentence with the way out; a byte order mark is passed over."""

import json
from pathlib import Path

import pytest

from voxclone.audio.files import read_recording
from voxclone.data.manifest import Item, Manifest, read_manifest
from voxclone.errors import AudioError, ConfigError

ROW = {"id": "a", "path": "a.wav", "speaker": "ada", "duration": 1.0}


@pytest.mark.parametrize(
    "content, way_out",
    [
        ("a.wav|Hello there.|hello there\n", "CSV, LJSpeech"),
        ("path,speaker\na.wav,ada\n", "name the folder of the recordings"),
        (json.dumps({k: v for k, v in ROW.items() if k != "speaker"}), "Give each clip a speaker"),
        (json.dumps(ROW | {"speaker": ""}), "Give each clip a speaker"),
        (json.dumps(ROW | {"speaker": None}), "Give each clip a speaker"),
    ],
)
def test_a_list_of_another_kind(content: str, way_out: str, tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=way_out) as caught:
        read_manifest(path)
    assert "Line 1 of" in str(caught.value) and "\n" not in str(caught.value)


def test_paths_of_windows(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"write / instead of \\ between"):
        read_recording(tmp_path / "ada\\a.wav")


def test_byte_order_marks_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(json.dumps(ROW), encoding="utf-8-sig")
    assert [clip.id for clip in read_manifest(path)] == ["a"] == [c.id for c in Manifest(path)]
    (tmp_path / "a.txt").write_text("Hello.", encoding="utf-8-sig")
    item = Item("a", tmp_path / "a.wav", "ada", text_beside=True)
    assert item.transcript() == "Hello."
