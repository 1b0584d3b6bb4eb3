"""A folder that appears complete or not at all."""

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
    """What earlier runs that were killed have left beside `out`."""
    return sorted(out.resolve().parent.glob(f".{_escaped(out.name)}.*.tmp"))


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A folder to fill, which is renamed to `out` if the block ends well and removed otherwise.

    Killed at any moment, it leaves at most a hidden folder `.OUT.*.tmp` beside `out`. Raises
    ReleaseError for whatever the disk refuses.
    """
    folder = out.resolve().parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir()
        yield folder
        sync_folders(folder)
        require_new(out)
        folder.rename(out)
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
