"""Manifests: lists of recordings, one JSON object a line.

A line has at least `id`, `path` (relative to the manifest), `speaker` and `duration` (seconds);
`language`, `text`, `split` and `licence` are optional, and what else there is, is passed over.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from voxclone.errors import ConfigError


@dataclass(frozen=True)
class Clip:
    """One recording of one speaker."""

    id: str
    path: Path
    speaker: str
    duration: float
    language: str | None = None
    text: str | None = None
    split: str = "train"
    licence: str = "unknown"


def read_manifest(path: str | Path) -> list[Clip]:
    """Clips of a JSON-lines manifest, in its order. Raises ConfigError naming the bad line."""
    path = Path(path)
    clips = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"The manifest {path} cannot be read: {error.strerror}.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            known = {key: row[key] for key in Clip.__dataclass_fields__ if row.get(key) is not None}
            clips.append(Clip(**(known | {"path": path.parent / row["path"]})))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"Line {number} of {path} is no valid clip: {error!r}.") from None
    if not clips:
        raise ConfigError(f"The manifest {path} lists no clip.")
    return clips
