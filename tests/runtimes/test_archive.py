"""Exports that are sent: what is new, over a copy of the release, is the whole export."""

import io
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.runtimes.conftest import Example
from voxclone.errors import QualityError, UsageError
from voxclone.release.release import Release
from voxclone.runtimes.archive import pack_export, use_of
from voxclone.runtimes.table import RUNTIMES
from voxclone.runtimes.verify import verify


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_is_sent_is_read_by_every_runtime(runtime: str, wide: Example, tmp_path: Path) -> None:
    kind = RUNTIMES[runtime]
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    preset = "casual_male" if runtime == "comfyui" else None
    archive = pack_export(wide.voice, kind, wide.release, scratch, preset)
    if kind.input == "file":
        out = tmp_path / archive.file_name
        out.write_bytes(archive.content)
    else:
        if kind.input == "release":
            shutil.copytree(wide.release.path, out)
        with zipfile.ZipFile(io.BytesIO(archive.content)) as packed:
            names = packed.namelist()
            assert names[0] == "README.txt" and not any("consolidated" in n for n in names)
            note = packed.read("README.txt").decode()
            assert "dora" in note and use_of(kind, "", preset or "dora") in note
            packed.extractall(out)
    name = preset or "dora"
    name = archive.file_name.partition(".")[0] if kind.input == "file" else name
    (reading,) = verify(kind, out, wide.release, name=name, like=wide.voice)
    assert reading.usable, reading.problems
    assert archive.file_name == f"dora-{runtime}{kind.suffix if kind.input == 'file' else '.zip'}"


def test_the_weights_are_neither_sent_nor_copied(wide: Example, tmp_path: Path) -> None:
    archive = pack_export(wide.voice, RUNTIMES["vllm-omni"], wide.release, tmp_path, None)
    weights = wide.release.path / "consolidated.safetensors"
    left = tmp_path / "the export" / weights.name
    assert left.is_symlink() and left.resolve() == weights.resolve()
    assert len(archive.content) < weights.stat().st_size / 2


def test_what_cannot_be_exported_is_refused(tiny: Example, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'replace_preset'"):
        pack_export(tiny.voice, RUNTIMES["comfyui"], tiny.release, tmp_path, None)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_names_no_file_as_the_voice(wide: Example, tmp_path: Path) -> None:
    """Voxtral-tts.c opens one file of weights, which a sharded release does not have."""
    sharded = tmp_path / "sharded"
    shutil.copytree(wide.release.path, sharded)
    (sharded / "consolidated.safetensors").rename(sharded / "consolidated-1.safetensors")
    with pytest.raises(QualityError, match=r"the export has no consolidated\.safetensors"):
        pack_export(wide.voice, RUNTIMES["voxtral-tts.c"], Release.open(sharded), tmp_path, None)
