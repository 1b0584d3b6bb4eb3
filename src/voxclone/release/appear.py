"""Folders, and files in folders, that appear complete or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voxclone.errors import ReleaseError, UsageError
from voxclone.release.streams import sync_folders


def require_new(out: Path) -> None:
    """Raise UsageError unless a folder `out` can be made: itself missing, its parent there."""
    if os.path.lexists(out):
        raise UsageError(f"{out} exists already: name a new folder, nothing is overwritten.")
    parent = out.resolve().parent
    if not parent.is_dir():
        raise UsageError(f"{out} cannot be made: there is no directory {parent}.")
    if not os.access(parent, os.W_OK):
        raise UsageError(f"{out} cannot be made: the directory {parent} is read-only.")


def leftovers(out: Path) -> list[Path]:
    """What earlier runs that were killed have left beside `out`, or in it."""
    out = Path(os.path.abspath(out))  # `.` has no name
    places = [out.resolve().parent, *([out] if out.is_dir() else [])]
    return sorted(path for place in places for path in place.glob(f".{_escaped(out.name)}.*.tmp"))


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A folder to fill, which is renamed to `out` if the block ends well and removed otherwise.

    Killed at any moment, it leaves at most a hidden folder `.OUT.*.tmp` beside `out`. Raises
    ReleaseError for whatever the disk refuses.
    """
    with _workshop(out, out.resolve().parent) as folder:
        yield folder
        sync_folders(folder)
        require_new(out)
        folder.rename(out)


@contextmanager
def adding(out: Path) -> Iterator[Path]:
    """What to fill for `out`, a file or a folder that is there: the file, or a folder whose files
    are moved into `out` if the block ends well, in place of those of their names.

    Otherwise as `appearing`; the hidden folder `.OUT.*.tmp` lies in `out` if that is a folder.
    """
    place = out if out.is_dir() else out.parent
    with _workshop(out, place) as folder:
        yield folder if place == out else folder / out.name
        for path in sorted(folder.iterdir()):
            path.replace(place / path.name)
        folder.rmdir()


@contextmanager
def _workshop(out: Path, place: Path) -> Iterator[Path]:
    """A hidden folder in `place`, which is removed if the block does not end well."""
    folder = place / f".{out.name}.{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir()
        yield folder
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise ReleaseError(
            f"{out} could not be made: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}. Nothing of it was left."
        ) from None


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
