"""Bytes of files moved and compared a few megabytes at a time.

The largest tensor of the real release has 805 MB: what goes through here is never whole in memory.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from voxclone.errors import ReleaseError
from voxclone.release.safetensors import DTYPE_BYTES, TensorInfo, replacing

CHUNK = 4 * 2**20

Advance = Callable[[int], object]


@dataclass(frozen=True)
class Placed:
    """A tensor and the file that it is in."""

    name: str
    path: Path
    info: TensorInfo

    @property
    def span(self) -> tuple[int, int]:
        """Its bytes in the file."""
        return self.info.start, self.info.stop


def digest_file(path: Path, advance: Advance) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        for piece in _pieces(file, 0, path.stat().st_size):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest()


def digest_tensors(tensors: Iterable[Placed], advance: Advance) -> dict[str, str]:
    """SHA-256 of each tensor's bytes, each file being opened once."""
    found = {}
    with ExitStack() as opened:
        files: dict[Path, FileIO] = {}
        for each in tensors:
            digest = hashlib.sha256()
            for piece in _pieces(_opened(each.path, files, opened), *each.span):
                digest.update(piece)
                advance(len(piece))
            found[each.name] = digest.hexdigest()
    return found


def copy_file(source: Path, target: Path, advance: Advance) -> None:
    """Copy a file; the copy appears complete or not at all."""
    with source.open("rb", buffering=0) as original, replacing(target) as file:
        for piece in _pieces(original, 0, source.stat().st_size):
            file.write(piece)
            advance(len(piece))


def write_placed(
    path: Path, tensors: Sequence[Placed], metadata: dict[str, str], advance: Advance
) -> None:
    """Write a safetensors file of tensors as they are in others, byte for byte."""
    # Wide numbers first keep every tensor aligned to its own size.
    ordered = sorted(tensors, key=lambda each: -DTYPE_BYTES[each.info.dtype])
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for each in ordered:
        start, end = end, end + each.info.stop - each.info.start
        header[each.name] = {
            "dtype": each.info.dtype,
            "shape": list(each.info.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with ExitStack() as opened, replacing(path) as file:
        files: dict[Path, FileIO] = {}
        file.write(len(text).to_bytes(8, "little") + text)
        for each in ordered:
            for piece in _pieces(_opened(each.path, files, opened), *each.span):
                file.write(piece)
                advance(len(piece))


def sync_folders(folder: Path) -> None:
    """Have the names in a folder and in all below it written to the disk."""
    if os.name == "nt":  # a folder cannot be opened there, and need not be
        return

    def refuse(error: OSError) -> None:
        raise error

    for place, _, _ in os.walk(folder, onerror=refuse):
        opened = os.open(place, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _opened(path: Path, files: dict[Path, FileIO], stack: ExitStack) -> FileIO:
    if path not in files:
        files[path] = stack.enter_context(path.open("rb", buffering=0))
    return files[path]


def _pieces(file: FileIO, start: int, stop: int) -> Iterator[bytes]:
    """The bytes `start` to `stop` of a file. Raises ReleaseError if it ends before."""
    file.seek(start)
    while start < stop:
        piece = file.read(min(CHUNK, stop - start))
        if not piece:
            raise ReleaseError(f"{file.name!s} became shorter while it was read: try again.")
        start += len(piece)
        yield piece
