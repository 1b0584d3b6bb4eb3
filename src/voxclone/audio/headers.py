"""WAV files whose header does not say how many samples follow, or says too few.

A recorder that is stopped by a crash, or writes into a pipe, leaves the sizes in a header at 0.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

MAX_CHUNKS = 64
CHUNK = struct.Struct("<4sI")


@dataclass(frozen=True)
class SampleChunk:
    """The chunk of a WAV that holds its samples, in bytes: the position of its size, that size, and
    what follows the samples and belongs to no chunk."""

    size_at: int
    size: int
    unclaimed: int


def sample_chunk(stream: BinaryIO, file_size: int) -> SampleChunk | None:
    """Find the samples of a WAV; None if it has no such chunk."""
    stream.seek(0)
    if stream.read(4) != b"RIFF":
        return None
    begin = _walk(stream, 12, file_size, stop_at=b"data")
    head = _head(stream, begin)
    if head is None or head[0] != b"data":
        return None
    size = head[1]
    after = begin + CHUNK.size + size + size % 2
    return SampleChunk(begin + 4, size, max(file_size - _walk(stream, after, file_size), 0))


class PatchedFile:
    """A file for reading in which 4 bytes at a position are replaced. The original is not
    changed."""

    def __init__(self, stream: BinaryIO, position: int, value: bytes) -> None:
        self._stream, self._position, self._value = stream, position, value

    def read(self, count: int = -1) -> bytes:
        """As the original, with the replaced bytes."""
        begin = self._stream.tell()
        data = self._stream.read(count)
        for offset, byte in enumerate(self._value, self._position - begin):
            if 0 <= offset < len(data):
                data = data[:offset] + bytes([byte]) + data[offset + 1 :]
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """As the original."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """As the original."""
        return self._stream.tell()


def _walk(stream: BinaryIO, begin: int, file_size: int, stop_at: bytes | None = None) -> int:
    """Where a sequence of whole chunks from `begin` on ends, or its chunk `stop_at` begins."""
    for _ in range(MAX_CHUNKS):
        head = _head(stream, begin)
        if head is None or head[0] == stop_at:
            break
        name, size = head
        end = begin + CHUNK.size + size + size % 2
        if not (name.isascii() and name.decode().isprintable()) or end > file_size + 1:
            break
        begin = end
    return begin


def _head(stream: BinaryIO, begin: int) -> tuple[bytes, int] | None:
    stream.seek(begin)
    data = stream.read(CHUNK.size)
    return CHUNK.unpack(data) if len(data) == CHUNK.size else None
