"""Bytes of files moved and compared a few megabytes at a time.

The largest tensor of the real release has 805 MB: what goes through here is never whole in memory.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxclone.errors import ReleaseError
from voxclone.release.shards import DTYPE_BYTES, TensorInfo, replacing

CHUNK = 4 * 2**20

Advance = Callable[[int], object]


@dataclass(frozen=True)
class Placed:
    """A tensor and the file that it is in."""

    name: str
    path: Path
    info: TensorInfo


def read_span(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """The bytes `start` to `stop` of a file, in pieces. Raises ReleaseError if it ends before."""
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while start < stop:
            piece = file.read(min(CHUNK, stop - start))
            if not piece:
                raise ReleaseError(f"{path} became shorter while it was read: try again.")
            start += len(piece)
            yield piece


class Digests:
    """SHA-256 of spans of files. What several names of one file (hard links) share is read once."""

    def __init__(self, advance: Advance = lambda count: None) -> None:
        self._advance = advance
        self._known: dict[tuple[int, int, int, int], str] = {}

    def span(self, path: Path, start: int, stop: int) -> str:
        """Digest of the bytes `start` to `stop` of a file, as hexadecimal digits."""
        status = path.stat()
        key = (status.st_dev, status.st_ino, start, stop)
        if key not in self._known:
            digest = hashlib.sha256()
            for piece in read_span(path, start, stop):
                digest.update(piece)
                self._advance(len(piece))
            self._known[key] = digest.hexdigest()
        return self._known[key]

    def file(self, path: Path) -> str:
        """Digest of a whole file."""
        return self.span(path, 0, path.stat().st_size)

    def tensor(self, placed: Placed) -> str:
        """Digest of a tensor's bytes."""
        return self.span(placed.path, placed.info.start, placed.info.stop)


def copy_file(source: Path, target: Path, advance: Advance) -> None:
    """Copy a file; the copy appears complete or not at all."""
    with replacing(target) as file:
        for piece in read_span(source, 0, source.stat().st_size):
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
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for each in ordered:
            for piece in read_span(each.path, each.info.start, each.info.stop):
                file.write(piece)
                advance(len(piece))


def sync_folders(folder: Path) -> None:
    """Have the names in a folder and in all below it written to the disk."""
    if os.name == "nt":  # a folder cannot be opened there, and need not be
        return
    for place, _, _ in os.walk(folder):
        opened = os.open(place, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
