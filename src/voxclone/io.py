"""Atomic files and folders, and hashes.

Everything is written under a hidden temporary name beside its path, flushed to the disk, and then
renamed: readers find the old content or the new one, even after a kill at any moment.
"""

import errno
import glob
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from voxclone.errors import TO_ADDRESS, ReleaseError, UsageError, is_address, reason

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 4 * 2**20
ASIDE = ".old"
"""What the hidden name of a folder ends in that another is about to replace."""
YOUNG_SECONDS = 60.0
NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}

Advance = Callable[[int], object]
"""Gets the number of bytes that were just read or written."""


@contextmanager
def atomic_path(path: Path, *, new: bool = False) -> Iterator[Path]:
    """A temporary path to write a file to. It replaces `path` if the block ends well, and is
    removed otherwise. With `new` it replaces nothing: raises FileExistsError if `path` exists. An
    OSError that names no file, as of a full disk, gets the name of `path`."""
    # The name of `path` may be as long as the file system allows, and tempfile would make a file
    # that only its owner can read.
    temporary = path.with_name(f".voxclone-{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        sync(temporary)
        if not new:
            os.replace(temporary, path)
        elif not hard_link(temporary, path):  # which refuses a name that is taken
            path.touch(exist_ok=False)
            os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path, *, new: bool = False) -> Iterator[BinaryIO]:
    """A file that replaces `path` if the block ends well; `new` as for `atomic_path`."""
    with atomic_path(path, new=new) as temporary, temporary.open("xb") as file:
        yield file


@contextmanager
def tensor_errors() -> Iterator[None]:
    """Within, what safetensors cannot write is an OSError, and not an error of its own, which has
    the system's code in its text alone."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        code = re.search(r"(?:code:|os error) (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from None


@contextmanager
def atomic_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill. It is renamed to `out` if the block ends well, and removed otherwise. With
    `replace` it takes the place of an older one (`replace_folder`).

    A kill leaves at most a hidden folder `.OUT.*.tmp` beside `out`. Raises ReleaseError for any
    error of the disk.
    """
    with _hidden_folder(out, out.resolve().parent) as folder:
        yield folder
        sync_folders(folder)
        if replace:
            replace_folder(folder, out)
        else:
            require_new(out)
            folder.rename(out)


def replace_folder(made: Path, out: Path) -> None:
    """Rename a folder to `out`. One that is there is moved aside first, and removed at the end:
    after a kill at any moment, `complete_folder(out)` is the old one or the new one. Raises OSError
    where `out` cannot be made, also because another process has just made it."""
    aside = _aside(out)
    if out.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(out, aside)
    try:
        os.rename(made, out)
    except OSError:
        if aside.exists() and not out.exists():
            os.rename(aside, out)
        raise
    sync(out.parent)
    shutil.rmtree(aside, ignore_errors=True)


def complete_folder(out: Path) -> Path:
    """Where a folder that `replace_folder` writes lies: aside, if a kill has left it there."""
    aside = _aside(out)
    return aside if aside.exists() and not out.exists() else out


@contextmanager
def atomic_add(out: Path) -> Iterator[Path]:
    """A path to write for `out`: a file, or for an existing folder a folder whose files are moved
    into it if the block ends well, replacing those of the same names.

    Otherwise as `atomic_folder`; the hidden folder `.OUT.*.tmp` is in `out` if that is a folder.
    """
    parent = out if out.is_dir() else out.parent
    with _hidden_folder(out, parent) as folder:
        yield folder if parent == out else folder / out.name
        for path in sorted(folder.iterdir()):
            path.replace(parent / path.name)
        folder.rmdir()


def require_new(out: Path) -> None:
    """Raise UsageError unless a folder `out` can be made: it is missing, and its parent is
    there."""
    if is_address(str(out)):
        raise UsageError(TO_ADDRESS)
    if os.path.lexists(out):
        raise UsageError(f"{out} exists already: name a new folder, nothing is overwritten.")
    parent = out.resolve().parent
    if not parent.is_dir():
        raise UsageError(f"{out} cannot be made: there is no directory {parent}.")
    if not os.access(parent, os.W_OK):
        raise UsageError(f"{out} cannot be made: the directory {parent} is read-only.")


def refuse_inside(out: Path, source: Path) -> None:
    """Raise UsageError if `out` is the release folder `source` or in it."""
    if out.resolve().is_relative_to(source.resolve()):
        raise UsageError(
            f"{out} lies in the release {source}, which is never written: name a folder outside it."
        )


def leftovers(out: Path) -> list[Path]:
    """Hidden folders that killed runs have left beside `out`, or in it."""
    out = Path(os.path.abspath(out))  # `.` has no name
    parents = [out.resolve().parent, *([out] if out.is_dir() else [])]
    pattern = f".{glob.escape(out.name)}.*.tmp"
    return sorted(path for parent in parents for path in parent.glob(pattern))


@contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """A hidden folder in `place` that is there for the block alone."""
    folder = place / f".voxclone-{secrets.token_hex(8)}.tmp"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(folder: Path) -> None:
    """Delete what `atomic_path` and `scratch_folder` left in a folder when their process was
    killed. What is younger may still be written by another process."""
    for path in folder.glob(".voxclone-*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime <= YOUNG_SECONDS:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    if os.name == "nt" and path.is_dir():  # a folder cannot be opened there, and need not be
        return
    opened = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_folders(folder: Path) -> None:
    """Flush the names in a folder, and in all folders below it, to the disk."""
    for path, _, _ in os.walk(folder, onerror=_raise):
        sync(Path(path))


def hard_link(source: Path, target: Path) -> bool:
    """Give a file a second name; False where the file systems do not allow it."""
    try:
        # Files of the Hub's cache are symbolic links, and a link to one of them would be relative.
        os.link(os.path.realpath(source), target)
    except OSError as error:
        if error.errno in NO_LINKS:
            return False
        raise
    return True


def copy_file(source: Path, target: Path, advance: Advance) -> None:
    """Copy a file atomically."""
    with source.open("rb", buffering=0) as original, atomic_file(target) as file:
        for piece in pieces(original, 0, source.stat().st_size):
            file.write(piece)
            advance(len(piece))


def hash_file(path: Path, advance: Advance = lambda count: None) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        for piece in pieces(file, 0, path.stat().st_size):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest()


def tensor_hash(*tensors: "Tensor") -> str:
    """SHA-256 over shapes, types and bytes: the identity of a table or an encoder."""
    import torch

    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def pieces(file: FileIO, start: int, stop: int) -> Iterator[bytes]:
    """The bytes `start` to `stop` of a file, a few megabytes at a time. Raises ReleaseError for a
    shorter file."""
    file.seek(start)
    while start < stop:
        piece = file.read(min(CHUNK, stop - start))
        if not piece:
            raise ReleaseError(f"{file.name!s} became shorter while it was read: try again.")
        start += len(piece)
        yield piece


def _aside(out: Path) -> Path:
    return out.with_name(f".{out.name}{ASIDE}")


def _raise(error: OSError) -> None:
    raise error


@contextmanager
def _hidden_folder(out: Path, parent: Path) -> Iterator[Path]:
    """A hidden folder in `parent`, which is removed if the block does not end well."""
    folder = parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir()
        yield folder
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise ReleaseError(
            f"{out} could not be made: {reason(error)}. Nothing of it remains."
        ) from None
