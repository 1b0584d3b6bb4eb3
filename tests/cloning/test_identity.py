"""Which contents give the same enrollment, and which do not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tiny_release import (
    tiny_params,
    write_encoder,
    write_relative,
    write_tiny_release,
)
from voxclone.cloning.identity import enrollment_id, file_hash
from voxclone.cloning.options import EnrollOptions
from voxclone.release.encoder_file import stored_hash
from voxclone.release.release import Release
from voxclone.spec import TABLE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("identity")
    write_tiny_release(folder / "withheld")
    write_tiny_release(folder / "complete", with_encoder=True)
    write_relative(folder / "other", folder / "withheld", (TABLE,))
    write_encoder(folder / "encoder.safetensors", tiny_params())
    shutil.copytree(folder / "withheld", folder / "moved")
    shutil.copytree(folder / "withheld", folder / "windows")
    params = json.loads((folder / "windows" / "params.json").read_text())
    params["multimodal"]["audio_tokenizer_args"]["attn_sliding_window_size"] *= 2
    (folder / "windows" / "params.json").write_text(json.dumps(params))
    return folder


def test_contents_and_options_decide(folder: Path) -> None:
    encoder, plain = folder / "encoder.safetensors", EnrollOptions()

    def of(name: str, recordings: list[str], options: EnrollOptions = plain) -> str:
        release = Release.open(folder / name)
        used = None if name == "complete" else encoder
        return enrollment_id(recordings, release, used, options)

    first = of("withheld", ["a", "b"])
    assert first == of("withheld", ["a", "b"], EnrollOptions(level_dbfs=-20.0))
    assert first == of("moved", ["a", "b"])
    different = {
        of("withheld", ["b", "a"]),
        of("withheld", ["ab"]),
        of("other", ["a", "b"]),
        of("windows", ["a", "b"]),
        of("complete", ["a", "b"]),
        of("withheld", ["a", "b"], EnrollOptions(level_dbfs=-23.0)),
        of("withheld", ["a", "b"], EnrollOptions(without=("crop",))),
        of("withheld", ["a", "b"], EnrollOptions(best_of=2)),
    }
    assert len(different | {first}) == 9
    withheld = Release.open(folder / "withheld")
    with_adapter = enrollment_id(["a", "b"], withheld, encoder, plain, "an adapter's hash")
    assert with_adapter not in different | {first}


def test_one_number_of_the_encoder_decides(folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(folder / "encoder.safetensors", tmp_path))
    release = Release.open(folder / "withheld")
    before = enrollment_id(["a"], release, path, EnrollOptions())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert enrollment_id(["a"], release, path, EnrollOptions()) != before


def test_torch_is_not_needed(folder: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from voxclone.cloning.identity import enrollment_id\n"
        "from voxclone.cloning.options import EnrollOptions\n"
        "from voxclone.release.release import Release\n"
        f"release = Release.open(Path({str(folder / 'complete')!r}))\n"
        "enrollment_id(['a'], release, None, EnrollOptions())\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_hashes_are_of_the_bytes_as_they_are_stored(folder: Path) -> None:
    import hashlib

    import torch

    release = Release.open(folder / "withheld")
    stored = release.files.load(TABLE).view(torch.uint8).numpy().tobytes()
    assert stored_hash(release.files, [TABLE]) == hashlib.sha256(stored).hexdigest()


def test_what_is_no_file_has_no_hash(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for path in (tmp_path, empty, tmp_path / "none", Path("/dev/zero")):
        assert file_hash(path) is None
