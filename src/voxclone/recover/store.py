"""Where stages keep their results: RUN/STAGE-HASH/, by a hash of what the result depends on.

`stage.json` is written when a stage begins and again when it ends. A folder whose stage has not
ended is continued. An option that is changed back finds the earlier result again.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from voxclone.config import flatten
from voxclone.errors import ConfigError, os_errors, shorten
from voxclone.io import atomic_file, hash_file
from voxclone.readers import read_json
from voxclone.records import Record, parse_record
from voxclone.recover.identity import digest_of

FILE, SCHEMA = "stage.json", "voxclone.recover-stage/1"


@dataclass(frozen=True)
class Inputs:
    """What a result depends on. `identity`: another value makes another result. `limits`: another
    value continues the same one (more steps, more minutes)."""

    identity: Mapping[str, Any]
    limits: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a stage has made: JSON values for later stages and the report, SHA-256 of its files by
    their names, and where a gate failed, why. `skipped` says why there was nothing to do."""

    values: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    failed: str | None = None
    skipped: str | None = None


class StageFile(Record):
    """`stage.json`; `result` is missing until the stage has ended."""

    schema_: str = Field(alias="schema")
    stage: str
    identity: dict[str, Any]
    limits: dict[str, Any]
    seconds: float
    result: dict[str, Any] | None = None


@dataclass(frozen=True)
class Kept:
    """What is known of a stage before it runs: its folder, its result if that still holds, the
    seconds spent on it, and a clause that says what is done again and why (empty for a new one)."""

    folder: Path
    result: Result | None
    seconds: float
    why: str


def look_up(run: Path, stage: str, inputs: Inputs) -> Kept:
    """Find what `run` holds of a stage with these inputs."""
    folder = run / f"{stage}-{digest_of(inputs.identity)[:10]}"
    if not (folder / FILE).is_file():
        return Kept(folder, None, 0.0, _why_anew(run, stage, inputs))
    found = _read(folder)
    if found.result is None:
        return Kept(folder, None, found.seconds, "it was interrupted and continues")
    if found.limits != json.loads(json.dumps(dict(inputs.limits))):
        changes = differences(found.limits, inputs.limits)
        return Kept(folder, None, found.seconds, f"it continues: {changes}")
    result = Result(**found.result)
    for name, digest in result.files.items():
        if not (folder / name).is_file():
            return Kept(folder, None, 0.0, f"its result {name} is missing")
        if hash_file(folder / name) != digest:
            return Kept(folder, None, 0.0, f"its result {name} has changed")
    return Kept(folder, result, found.seconds, "")


def begin(kept: Kept, stage: str, inputs: Inputs) -> None:
    """Make the folder of a stage, if it is not there, and note its inputs."""
    with os_errors(f"{kept.folder} cannot be made", ConfigError):
        kept.folder.mkdir(parents=True, exist_ok=True)
        _write(kept.folder, stage, inputs, kept.seconds, None)


def finish(kept: Kept, stage: str, inputs: Inputs, seconds: float, result: Result) -> None:
    """Note the result of a stage and the seconds that it took this time."""
    _write(kept.folder, stage, inputs, kept.seconds + seconds, result)


def hashes(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of files in a folder."""
    return {name: hash_file(folder / name) for name in names}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which values differ, as a clause."""
    old, new = (flatten(json.loads(json.dumps(dict(each)))) for each in (before, now))
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    clauses = []
    for key in keys[:4]:
        values = [shorten(json.dumps(each.get(key)), 40) for each in (old, new)]
        # The hash of an input tells a reader nothing.
        plain = max(map(len, values)) < 40
        clauses.append(f"{key} was {values[0]}, now {values[1]}" if plain else f"{key} has changed")
    more = f", and {len(keys) - 4} more" if len(keys) > 4 else ""
    return "; ".join(clauses) + more


def _why_anew(run: Path, stage: str, inputs: Inputs) -> str:
    """Why a stage begins anew, where `run` holds it with other inputs."""
    others = [path.parent for path in run.glob(f"{stage}-*/{FILE}")]
    if not others:
        return ""
    newest = max(others, key=lambda folder: (folder / FILE).stat().st_mtime_ns)
    return f"{differences(_read(newest).identity, inputs.identity)} ({newest.name} is kept)"


def _read(folder: Path) -> StageFile:
    path = folder / FILE
    found = parse_record(StageFile, read_json(path), str(path))
    if found.schema_ != SCHEMA:
        raise ConfigError(
            f"{folder} is of another version ({shorten(found.schema_)}): name a new folder."
        )
    return found


def _write(folder: Path, stage: str, inputs: Inputs, seconds: float, result: Result | None) -> None:
    values = {
        "schema": SCHEMA,
        "stage": stage,
        "identity": dict(inputs.identity),
        "limits": dict(inputs.limits),
        "seconds": seconds,
        "result": None if result is None else asdict(result),
    }
    with atomic_file(folder / FILE) as file:
        file.write(json.dumps(values, indent=1, allow_nan=False).encode())
