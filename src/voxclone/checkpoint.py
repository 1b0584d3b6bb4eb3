"""Checkpoints: a directory that exists complete or not at all.

Tensors go into safetensors and everything else into JSON, under a temporary name; a manifest of
sizes and hashes is written last, everything is flushed, and the directory is renamed. The newest
directory that verifies is the latest; a damaged one is named and passed over. One that is written
again at the same step is moved aside first, where it still counts until the new one is there.
"""

import errno
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from voxclone.errors import ConfigError, TrainingError, reason, shorten
from voxclone.io import ASIDE, hash_file, replace_folder, sync, tensor_errors
from voxclone.readers import read_json
from voxclone.records import Record, parse_record

KEEP = 2
MANIFEST = "manifest.json"
TENSORS = "state.safetensors"
VALUES = "values.json"
UNFINISHED = ".tmp"


class FileEntry(Record):
    """A file of a checkpoint, as its manifest lists it."""

    bytes: int
    sha256: str


class Manifest(Record):
    """The file that is written last."""

    step: int
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: tensors by name, and JSON values."""

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, *, writer: int = 0) -> Path:
    """Write `folder/step-NNNNNNN` and remove all but the newest two. Returns the new directory.
    Processes that hold the same and do not know of each other may save at the same time, each as
    another `writer`. Raises TrainingError, in one sentence, if it cannot be written."""
    try:
        return _save(folder, checkpoint, writer)
    except (OSError, SafetensorError) as error:
        temporary = folder / f".step-{checkpoint.step:07d}.{writer}{UNFINISHED}"
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk needs the room
        raise _unwritten(folder, checkpoint, error) from None


def _unwritten(folder: Path, checkpoint: Checkpoint, error: Exception) -> TrainingError:
    steps = sorted(_step_of(path) for path in folder.glob("step-*"))
    kept = "no earlier one is there: mend that, and begin again"
    if steps:
        kept = f"that of step {steps[-1]} is kept: mend that, and go on with `--resume`"
    why = reason(error) if isinstance(error, OSError) else shorten(error)
    return TrainingError(
        f"The checkpoint of step {checkpoint.step} cannot be written to {folder}: {why}; {kept}."
    )


def _save(folder: Path, checkpoint: Checkpoint, writer: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{checkpoint.step:07d}"
    temporary = folder / f".{target.name}.{writer}{UNFINISHED}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()
    }
    with tensor_errors():
        save_file(tensors, temporary / TENSORS)
    (temporary / VALUES).write_text(json.dumps(checkpoint.values, indent=1), encoding="utf-8")
    files = {name: _describe(temporary / name) for name in (TENSORS, VALUES)}
    manifest = Manifest(step=checkpoint.step, files=files).model_dump_json(indent=1)
    (temporary / MANIFEST).write_text(manifest, encoding="utf-8")
    for path in [*temporary.iterdir(), temporary]:
        sync(path)
    try:
        replace_folder(temporary, target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        shutil.rmtree(temporary, ignore_errors=True)  # another writer was quicker
        sync(folder)
    for old in [*folder.glob(f".step-*{ASIDE}"), *sorted(folder.glob("step-*"))[:-KEEP]]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def drop_leftovers(folder: Path) -> None:
    """Remove what processes left that were killed while they saved."""
    for temporary in folder.glob(f".step-*{UNFINISHED}"):
        shutil.rmtree(temporary, ignore_errors=True)


def require_none(folder: Path, option: str) -> None:
    """Raise ConfigError if `folder` holds checkpoints, which a run that begins would mix with its
    own; `option` is the one that names another folder."""
    if list(folder.glob("step-*")):
        raise ConfigError(
            f"{folder} already holds checkpoints: go on with `--resume`, or name another "
            f"folder with `{option}`."
        )


def optimizer_tensors(optimizer: Optimizer, prefix: str) -> dict[str, Tensor]:
    """What an optimizer remembers, under `PREFIXindex.key`."""
    return {
        f"{prefix}{index}.{key}": torch.as_tensor(value)
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }


def load_optimizer(optimizer: Optimizer, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; other names are passed over."""
    entries: dict[int, dict[str, Tensor]] = {}
    for full, value in tensors.items():
        if full.startswith(prefix):
            index, key = full[len(prefix) :].split(".", 1)
            entries.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})


def load(directory: Path) -> Checkpoint:
    """Read one checkpoint. Raises ConfigError, in one sentence, if it is missing or damaged, or if
    its manifest is another's."""
    try:
        listed = read_json(directory / MANIFEST)
        manifest = parse_record(Manifest, listed, str(directory / MANIFEST))
        if manifest.step != _step_of(directory):
            raise ConfigError(
                f"The checkpoint {directory} has the manifest of step {manifest.step}."
            )
        for name in (TENSORS, VALUES):
            if _describe(directory / name) != manifest.files.get(name):
                raise ConfigError(f"The checkpoint {directory} is damaged: {name} has changed.")
        tensors = load_file(directory / TENSORS)
        values = read_json(directory / VALUES)
        if not isinstance(values, dict):
            raise ConfigError(f"The checkpoint {directory} is damaged: {VALUES} is no mapping.")
        return Checkpoint(manifest.step, tensors, values)
    except OSError as error:
        raise ConfigError(f"The checkpoint {directory} cannot be read: {reason(error)}.") from None
    except SafetensorError as error:
        raise ConfigError(f"The checkpoint {directory} is damaged: {shorten(error)}.") from None


def load_latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies (None if there is none), and what was passed over."""
    _, found, complaints = find_latest(folder)
    return found, complaints


def find_latest(folder: Path) -> tuple[Path | None, Checkpoint | None, list[str]]:
    """As `load_latest`, with the directory of the checkpoint first."""
    complaints: list[str] = []
    there = [*folder.glob("step-*"), *folder.glob(f".step-*{ASIDE}")]
    for directory in sorted(there, key=lambda path: (_step_of(path), path.name), reverse=True):
        try:
            return directory, load(directory), complaints
        except ConfigError as error:
            complaints.append(str(error))
    return None, None, complaints


def _step_of(directory: Path) -> int:
    """The step that a directory's name tells; -1 where it tells none."""
    number = directory.name.removeprefix(".").removesuffix(ASIDE).removeprefix("step-")
    return int(number) if number.isdecimal() else -1


def _describe(path: Path) -> FileEntry:
    return FileEntry(bytes=path.stat().st_size, sha256=hash_file(path))
