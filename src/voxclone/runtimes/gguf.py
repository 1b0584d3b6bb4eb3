"""GGUF files of a few texts and one tensor, which is what loom.cpp takes for a voice.

Version 3: magic, version, counts, key-value pairs, descriptions of tensors, and their numbers at a
multiple of 32 bytes, all little-endian (github.com/ggml-org/ggml, docs/gguf.md).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from voxclone.errors import VoiceError
from voxclone.io import atomic_file
from voxclone.readers import read_bytes

MAGIC, VERSION = b"GGUF", 3
ALIGNMENT = 32
MAX_BYTES = 256 * 2**20
MAX_PAIRS, MAX_TENSORS, MAX_DIMS, MAX_TEXT = 64, 1, 4, 2**16
UINT32, STRING = 4, 8
NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
F32 = 0


@dataclass(frozen=True, eq=False)
class GgufFile:
    """The texts and numbers of a file by their keys, and its only tensor (float32)."""

    values: dict[str, Any]
    name: str
    tensor: np.ndarray


def write_gguf(path: Path, values: Mapping[str, str | int], name: str, tensor: np.ndarray) -> None:
    """Write one float32 tensor with these texts and 32-bit numbers."""
    parts = [MAGIC, struct.pack("<IQQ", VERSION, 1, len(values))]
    for key, value in values.items():
        kind = STRING if isinstance(value, str) else UINT32
        data = _text(value) if isinstance(value, str) else struct.pack("<I", value)
        parts += [_text(key), struct.pack("<I", kind), data]
    shape = tensor.shape[::-1]  # the fastest dimension comes first
    parts += [_text(name), struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, F32, 0)]
    header = b"".join(parts)
    with atomic_file(path) as file:
        file.write(header + bytes(-len(header) % ALIGNMENT))
        file.write(np.ascontiguousarray(tensor, dtype="<f4").tobytes())


def read_gguf(path: Path) -> GgufFile:
    """Read such a file. Raises VoiceError for anything else."""
    content = read_bytes(path, VoiceError, limit=MAX_BYTES)
    try:
        return _parse(content)
    except (ValueError, struct.error) as error:
        raise VoiceError(f"{path} is no GGUF file of one voice: {error}.") from None


class _Cursor:
    """A position in bytes; reading beyond their end raises ValueError."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.position:
            raise ValueError("it ends too soon")
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        length = self.number("Q")
        if length > MAX_TEXT:
            raise ValueError(f"it has a text of {length} bytes")
        return self.take(length).decode()


def _parse(data: bytes) -> GgufFile:
    cursor = _Cursor(data)
    if cursor.take(4) != MAGIC or cursor.number("I") not in (2, VERSION):
        raise ValueError("it begins otherwise")
    tensors, pairs = cursor.number("Q"), cursor.number("Q")
    if tensors != MAX_TENSORS or pairs > MAX_PAIRS:
        raise ValueError(f"it holds {tensors} tensors and {pairs} values")
    values: dict[str, Any] = {}
    for _ in range(pairs):
        key, kind = cursor.text(), cursor.number("I")
        if kind != STRING and kind not in NUMBERS:
            raise ValueError(f"{key!r} is of the type {kind}")
        values[key] = cursor.text() if kind == STRING else cursor.number(NUMBERS[kind])
    name, dimensions = cursor.text(), cursor.number("I")
    if dimensions > MAX_DIMS:
        raise ValueError(f"its tensor has {dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
    kind, offset = cursor.number("I"), cursor.number("Q")
    if kind != F32:
        raise ValueError(f"its tensor is of the type {kind}, not float32")
    alignment = values.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 4096:
        raise ValueError(f"its alignment is {alignment}")
    begin = cursor.position + -cursor.position % alignment + offset
    if begin + 4 * prod(shape) > len(data):
        raise ValueError("it ends too soon")
    tensor = np.frombuffer(data, "<f4", prod(shape), begin).reshape(shape).copy()
    return GgufFile(values, name, tensor)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
