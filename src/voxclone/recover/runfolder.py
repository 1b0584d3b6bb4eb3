"""The folder of a run: which release it is of, and the calibrations that were made."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from voxclone.errors import ConfigError, os_errors
from voxclone.io import atomic_file, refuse_inside, remove_abandoned
from voxclone.outputs import check_folder, refuse_inputs
from voxclone.readers import read_json, require_local
from voxclone.records import Record, parse_record
from voxclone.recover.identity import digest_of, release_identity
from voxclone.recover.options import Options
from voxclone.release.release import Release

FILE, SCHEMA = "run.json", "voxclone.recover/1"


class RunFile(Record):
    """`run.json`: the release's identity, the paths at the last call, and calibrations by a hash of
    what they are of."""

    schema_: str = Field(alias="schema")
    release: dict[str, Any]
    paths: dict[str, str]
    calibrations: dict[str, dict[str, Any]] = Field(default_factory=dict)


@dataclass
class RunFolder:
    """A run's folder: SHA-256 of the release, whether paths have changed since the last call, and
    known calibrations."""

    path: Path
    release: dict[str, Any]
    paths: dict[str, str]
    moved: bool
    calibrations: dict[str, dict[str, Any]]

    @property
    def model(self) -> str:
        return str(self.release["sha256"])

    def save(self) -> None:
        """Write `run.json`, in a folder that is made for it."""
        values = {
            "schema": SCHEMA,
            "release": self.release,
            "paths": self.paths,
            "calibrations": self.calibrations,
        }
        with os_errors(f"{self.path} cannot be written", ConfigError):
            self.path.mkdir(parents=True, exist_ok=True)
            with atomic_file(self.path / FILE) as file:
                file.write(json.dumps(values, indent=1).encode())


def open_run(options: Options, release: Release) -> RunFolder:
    """The folder of a run, which is not written yet. Raises UsageError for one that cannot be
    written or is an input, ConfigError for one that holds something else or another release's
    recovery."""
    out = options.out
    require_local(options.speech, ConfigError, "speech")
    check_folder(out, [options.speech, options.model])
    if options.speech.is_dir():
        refuse_inputs(out, [options.speech])
    refuse_inside(out, release.path)
    paths = {"model": str(release.path.resolve()), "out": str(out.resolve())}
    file = out / FILE
    identity = release_identity(release, file)
    if not file.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise ConfigError(f"{out} holds something else already: name a new folder.")
        return RunFolder(out, identity, paths, False, {})
    found = parse_record(RunFile, read_json(file), str(file))
    if found.schema_ != SCHEMA:
        raise ConfigError(f"{out} is of another version of voxclone: name a new folder.")
    if found.release["sha256"] != identity["sha256"]:
        raise ConfigError(
            f"{out} holds the recovery of another release ({found.paths['model']}) than "
            f"{options.model}: name a new folder."
        )
    remove_abandoned(out)
    moved = found.paths != paths
    return RunFolder(out, identity, paths, moved, found.calibrations)


def calibration_key(config: dict[str, Any], model: str, device: torch.device) -> str:
    """A hash of what a calibration is of."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return digest_of({"config": config, "model": model, "device": name})[:16]
