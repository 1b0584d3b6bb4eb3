"""Checkpoints: a directory that exists complete or not at all.

Tensors go into safetensors and everything else into JSON, under a temporary name; a manifest of
sizes and hashes is written last, everything is flushed, and the directory is renamed. The newest
directory that verifies is the latest; a damaged one is named and passed over.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from voxclone.errors import ConfigError

KEEP = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: tensors by name, and JSON values."""

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write `folder/step-NNNNNNN` and remove all but the newest two. Returns the new directory."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{checkpoint.step:07d}"
    temporary = folder / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()
    }
    save_file(tensors, temporary / "state.safetensors")
    (temporary / "values.json").write_text(
        json.dumps(checkpoint.values, indent=1), encoding="utf-8"
    )
    files = {path.name: _describe(path) for path in sorted(temporary.iterdir())}
    manifest = json.dumps({"step": checkpoint.step, "files": files}, indent=1)
    (temporary / MANIFEST).write_text(manifest, encoding="utf-8")
    for path in [*temporary.iterdir(), temporary]:
        _flush(path)
    shutil.rmtree(target, ignore_errors=True)
    os.rename(temporary, target)
    _flush(folder)
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load(directory: Path) -> Checkpoint:
    """Read one checkpoint. Raises ConfigError, in one sentence, if it is missing or damaged."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        for name, described in manifest["files"].items():
            if _describe(directory / name) != described:
                raise ConfigError(f"The checkpoint {directory} is damaged: {name} has changed.")
        tensors = load_file(directory / "state.safetensors")
        values = json.loads((directory / "values.json").read_text(encoding="utf-8"))
        return Checkpoint(int(manifest["step"]), tensors, values)
    except (OSError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigError(f"The checkpoint {directory} cannot be read: {error}.") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"The checkpoint {directory} is damaged: {error}.") from None


def load_latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies (None if there is none), and what was passed over."""
    complaints: list[str] = []
    for directory in sorted(folder.glob("step-*"), reverse=True):
        try:
            return load(directory), complaints
        except ConfigError as error:
            complaints.append(str(error))
    return None, complaints


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
