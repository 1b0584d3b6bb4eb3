"""Files and folders that appear complete or not at all, and hashes of what is in them.

Whatever is written goes to a hidden temporary name beside its place, is flushed to the disk, and is
then renamed: who reads finds the old content or the new one, after a kill at any moment too.
"""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from voxclone.errors import ReleaseError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 4 * 2**20
NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}

Advance = Callable[[int], object]
"""Is called with how many bytes were just read or written."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write a file to, which takes the place of `path` if the block ends well
    and is removed otherwise."""
    # A short name of our own: that of `path` may be as long as the file system allows, and tempfile
    # would make a file that only its owner can read.
    temporary = path.with_name(f".voxclone-{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write in place of `path`, which changes only if the block ends well."""
    with atomic_path(path) as temporary, temporary.open("xb") as file:
        yield file


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which is renamed to `out` if the block ends well and removed otherwise.

    Killed at any moment, it leaves at most a hidden folder `.OUT.*.tmp` beside `out`. Raises
    ReleaseError for whatever the disk refuses.
    """
    with _hidden_folder(out, out.resolve().parent) as folder:
        yield folder
        sync_folders(folder)
        require_new(out)
        folder.rename(out)


@contextmanager
def atomic_add(out: Path) -> Iterator[Path]:
    """What to fill for `out`, a file or a folder that is there: the file, or a folder whose files
    are moved into `out` if the block ends well, in place of those of their names.

    Otherwise as `atomic_folder`; the hidden folder `.OUT.*.tmp` lies in `out` if that is a folder.
    """
    place = out if out.is_dir() else out.parent
    with _hidden_folder(out, place) as folder:
        yield folder if place == out else folder / out.name
        for path in sorted(folder.iterdir()):
            path.replace(place / path.name)
        folder.rmdir()


def require_new(out: Path) -> None:
    """Raise UsageError unless a folder `out` can be made: itself missing, its parent there."""
    if os.path.lexists(out):
        raise UsageError(f"{out} exists already: name a new folder, nothing is overwritten.")
    parent = out.resolve().parent
    if not parent.is_dir():
        raise UsageError(f"{out} cannot be made: there is no directory {parent}.")
    if not os.access(parent, os.W_OK):
        raise UsageError(f"{out} cannot be made: the directory {parent} is read-only.")


def refuse_inside(out: Path, source: Path) -> None:
    """Raise UsageError if `out` is the release folder `source` or lies in it."""
    if out.resolve().is_relative_to(source.resolve()):
        raise UsageError(
            f"{out} lies in the release {source}, which is never written: name a folder outside it."
        )


def leftovers(out: Path) -> list[Path]:
    """What earlier runs that were killed have left beside `out`, or in it."""
    out = Path(os.path.abspath(out))  # `.` has no name
    places = [out.resolve().parent, *([out] if out.is_dir() else [])]
    return sorted(path for place in places for path in place.glob(f".{_escaped(out.name)}.*.tmp"))


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk."""
    if os.name == "nt" and path.is_dir():  # a folder cannot be opened there, and need not be
        return
    opened = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_folders(folder: Path) -> None:
    """Have the names in a folder and in all below it written to the disk."""

    def refuse(error: OSError) -> None:
        raise error

    for place, _, _ in os.walk(folder, onerror=refuse):
        sync(Path(place))


def hard_link(source: Path, target: Path) -> bool:
    """Give a file a second name; False where the file systems do not allow it."""
    try:
        # A link to a symbolic link would point nowhere: files of the Hub's cache are such.
        os.link(os.path.realpath(source), target)
    except OSError as error:
        if error.errno in NO_LINKS:
            return False
        raise
    return True


def copy_file(source: Path, target: Path, advance: Advance) -> None:
    """Copy a file; the copy appears complete or not at all."""
    with source.open("rb", buffering=0) as original, atomic_file(target) as file:
        for piece in pieces(original, 0, source.stat().st_size):
            file.write(piece)
            advance(len(piece))


def hash_file(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_file(path: Path, advance: Advance) -> str:
    """As `hash_file`, for a file so large that somebody wants to see it go on."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        for piece in pieces(file, 0, path.stat().st_size):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest()


def tensor_hash(*tensors: "Tensor") -> str:
    """SHA-256 over shapes and bytes: the identity of a table or an encoder."""
    import torch

    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def pieces(file: FileIO, start: int, stop: int) -> Iterator[bytes]:
    """The bytes `start` to `stop` of a file, a few megabytes at a time. Raises ReleaseError if it
    ends before."""
    file.seek(start)
    while start < stop:
        piece = file.read(min(CHUNK, stop - start))
        if not piece:
            raise ReleaseError(f"{file.name!s} became shorter while it was read: try again.")
        start += len(piece)
        yield piece


@contextmanager
def _hidden_folder(out: Path, place: Path) -> Iterator[Path]:
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
