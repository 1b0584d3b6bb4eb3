"""The files in which runtimes find a voice, read by the rules of those runtimes.

Each function gives the embedding, or None, and a sentence for each problem. None of them runs a
pickle, or raises for a bad file.

Shapes: N frames, D width.
"""

import struct
from pathlib import Path

import torch
from torch import Tensor

from voxclone.errors import ReleaseError, VoiceError
from voxclone.readers import read_bytes
from voxclone.release.presets import read_preset
from voxclone.release.safetensors import FLOATS, TensorFiles, read_header

# Where voxtral-tts.c (voxtral_tts_voice.c) and ExecuTorch's runner look for the numbers, in order.
STORED_ENTRIES = ("voice_embed/data/0", "archive/data/0", "data/0")
MAX_BYTES = 256 * 2**20
END_OF_DIRECTORY, DIRECTORY_ENTRY = 0x06054B50, 0x02014B50
TAIL = 65536

Found = tuple[Tensor | None, list[str]]


def read_torch(path: Path, dim: int) -> Found:
    """A `.pt` file as `torch.load` reads it, if it is one plain bf16 matrix [N, D]. For anything
    else the pickle would have to be run."""
    try:
        return read_preset(path, dim), []
    except VoiceError as error:
        return None, [str(error)]


def read_stored(path: Path, width: int, *, small: bool = False) -> Found:
    """A `.pt` file as voxtral-tts.c reads it, and ExecuTorch's runner (`small`): the bytes of a
    stored zip entry, N by their number (checkpoint spec, 4.4; ecosystem spec, 2).

    voxtral-tts.c finds nothing in a file below 64 KiB: `i > file_size - 65536` on unsigned numbers
    ends its search before it begins.
    """
    try:
        content = _content(path)
        if not small and len(content) < TAIL:
            raise ValueError(f"it has {len(content)} bytes, and nothing below {TAIL} is searched")
        begin, size = _stored_entry(content)
    except ValueError as error:
        return None, [f"{path} is not read: {error}."]
    if not size or size % (2 * width):
        return None, [
            f"{path} is not read: it holds {size} bytes, which are no frames of {width} numbers in "
            "16 bits."
        ]
    return _bf16(content[begin : begin + size], width), []


def read_embedding(path: Path) -> Found:
    """A safetensors file as mlx-audio and mlx-voxtral-swift read it: the tensor `embedding`, else
    whichever comes first."""
    try:
        header = read_header(path)
    except ReleaseError as error:
        return None, [str(error)]
    names = list(header.tensors)
    if not names:
        return None, [f"{path} holds no tensor."]
    name = "embedding" if "embedding" in names else names[0]
    info = header.tensors[name]
    if info.dtype not in FLOATS or len(info.shape) != 2 or 0 in info.shape:
        shape = list(info.shape)
        return None, [f"In {path}, {name!r} is {info.dtype} {shape}: no embedding [N, D]."]
    problems = []
    if name != "embedding" and len(names) > 1:
        problems.append(f"{path} has {len(names)} tensors and no 'embedding': any may be taken.")
    try:
        return TensorFiles([header]).load(name), problems
    except ReleaseError as error:
        return None, [str(error)]


def tensor_names(path: Path) -> list[str]:
    """Names of the tensors in a safetensors file; empty if it cannot be read."""
    try:
        return list(read_header(path).tensors)
    except ReleaseError:
        return []


def read_raw(path: Path, width: int, expected: tuple[int, ...]) -> Found:
    """A `.bin` file as ExecuTorch's runner reads it (`load_bin_voice_tensor`): frames of 32-bit
    numbers if by its size there would be one of the `expected` counts, else of 16-bit numbers."""
    try:
        content = _content(path)
    except ValueError as error:
        return None, [f"{path} is not read: {error}."]
    if not content or len(content) % (2 * width):
        return None, [
            f"{path} has {len(content)} bytes, which are no frames of {width} numbers in 16 bits."
        ]
    frames = len(content) // (4 * width)
    if frames in expected and len(content) == 4 * width * frames:
        return torch.frombuffer(bytearray(content), dtype=torch.float32).view(-1, width), [
            f"{path} is taken for {frames} frames of 32-bit numbers instead of {2 * frames} of "
            "16-bit ones, which makes noise: put the voice as .pt beside it."
        ]
    return _bf16(content, width), []


def _bf16(content: bytes, width: int) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.bfloat16).view(-1, width)


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path, ReleaseError, limit=MAX_BYTES)
    except ReleaseError as error:
        raise ValueError(str(error).removeprefix(f"{path} ").rstrip(".")) from None


def _stored_entry(content: bytes) -> tuple[int, int]:
    """First byte and size of the entry that holds the numbers. Raises ValueError with the reason
    why voxtral-tts.c finds none."""
    first, last = max(1, len(content) - TAIL + 1), len(content) - 22
    end = content.rfind(END_OF_DIRECTORY.to_bytes(4, "little"), first, max(0, last + 4))
    if end < 0:
        raise ValueError("there is no end of a zip directory in its last 64 KiB")
    (position,) = struct.unpack_from("<I", content, end + 16)
    entries: dict[str, tuple[int, int, int]] = {}
    while position + 46 < len(content):
        signature, method, packed, size, name_length, extra, comment, local = struct.unpack_from(
            "<I6xH8xIIHHH8xI", content, position
        )
        if signature != DIRECTORY_ENTRY:
            break
        name = content[position + 46 : position + 46 + name_length].decode("utf-8", "replace")
        entries.setdefault(name, (method, size or packed, local))
        position += 46 + name_length + extra + comment
    for wanted in STORED_ENTRIES:
        if wanted not in entries:
            continue
        method, size, local = entries[wanted]
        if method:
            continue
        if local + 30 > len(content):
            continue
        name_length, extra = struct.unpack_from("<HH", content, local + 26)
        begin = local + 30 + name_length + extra
        if begin + size <= len(content):
            return begin, size
    raise ValueError(f"its zip has none of {', '.join(STORED_ENTRIES)}, stored and whole")
