"""Identities of inputs: by their contents, or where these are too large to be read again at every
start, by what the file system says of them."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from voxclone.errors import ConfigError, os_errors
from voxclone.io import hash_file
from voxclone.readers import read_json
from voxclone.release.release import HUB_FILES, Release


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_stats(paths: list[Path], root: Path) -> dict[str, list[int]]:
    """Size (bytes) and time of change (ns) of files, by their paths below `root`."""
    stats = {path: path.stat() for path in paths}
    return {
        path.relative_to(root).as_posix(): [each.st_size, each.st_mtime_ns]
        for path, each in stats.items()
    }


def release_identity(release: Release, known: Path) -> dict[str, Any]:
    """SHA-256 of a release's files together, and sizes and times by which they are the same files.

    Reading 8 GB takes half a minute, so the result of an earlier call, which `known` holds under
    `release`, is taken where no size and no time has changed.
    """
    with os_errors(f"{release.path} cannot be read", ConfigError):
        paths = sorted({each for name in HUB_FILES for each in release.path.glob(name)})
        stats = file_stats(paths, release.path)
        before = read_json(known).get("release", {}) if known.is_file() else {}
        if before.get("files") == stats:
            return dict(before)
        sums = {path.relative_to(release.path).as_posix(): hash_file(path) for path in paths}
    return {"sha256": digest_of(sums), "files": stats}


def folder_identity(folder: Path) -> str:
    """SHA-256 of the names, sizes and times of all files below a folder."""
    rows: list[tuple[str, int, int]] = []
    with os_errors(f"{folder} cannot be listed", ConfigError):
        for parent, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                path = Path(parent, name)
                if path.exists():  # a link to nothing is the business of the preparation
                    info = path.stat()
                    inner = os.fsencode(path.relative_to(folder)).decode(errors="replace")
                    rows.append((inner, info.st_size, info.st_mtime_ns))
    return digest_of(rows)
