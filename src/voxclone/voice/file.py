"""The voice file: one safetensors with codes, rows and where they come from.

`codes` [K, T] (int16) can be embedded again by any release with the same code books; `embedding`
[T + 1, D] (bf16) is what the language model of one release reads, under the key that mlx-audio and
mlx-voxtral-swift look for. Everything else is text in the header (`voice.facts`).

Facts are read and changed without torch, so that listing voices is quick.

Shapes: K code books, T frames, N = T + 1 rows, D width.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from voxclone.errors import ReleaseError, VoiceError
from voxclone.io import atomic_file
from voxclone.release.safetensors import Header, read_header
from voxclone.voice.facts import FORMAT, Consent, ConsentKind, VoiceFacts, parse_facts, short

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FORMAT",
    "SUFFIX",
    "Consent",
    "ConsentKind",
    "Voice",
    "VoiceFacts",
    "copy_voice",
    "load_voice",
    "read_facts",
    "save_voice",
]

SUFFIX = ".voice.safetensors"
MAX_BYTES = 16 * 2**20
MAX_HEADER = 64 * 2**10
MAX_ROWS = 4096
MAX_WIDTH = 16384
MAX_BOOKS = 256
MAX_CODE = 2**15 - 1

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Voice:
    """Codes [K, T] without the shift, rows [T + 1, D] in bf16, and the facts."""

    codes_KT: "Tensor"
    rows_ND: "Tensor"
    facts: VoiceFacts


def save_voice(voice: Voice, path: Path) -> None:
    """Write a voice under a temporary name and rename it.

    Raises VoiceError if it cannot be written, could not be read again, or nobody's consent is
    stated.
    """
    import torch

    codes_KT, rows_ND = voice.codes_KT, voice.rows_ND
    if codes_KT.numel() and not 0 <= int(codes_KT.min()) <= int(codes_KT.max()) <= MAX_CODE:
        raise VoiceError(
            f"The voice cannot be written to {path}: its codes are not all within 0 to {MAX_CODE}."
        )
    parts = (codes_KT.to(torch.int16), rows_ND.to(torch.bfloat16))
    data = b"".join(
        part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() for part in parts
    )
    _write(path, voice.facts, tuple(codes_KT.shape), tuple(rows_ND.shape), data)


def copy_voice(source: Path, path: Path, facts: VoiceFacts) -> None:
    """Write the codes and rows of a voice file under other facts. Raises VoiceError."""
    header, _ = _checked(source)
    codes, rows = header.tensors["codes"], header.tensors["embedding"]
    try:
        content = source.read_bytes()
    except OSError as error:
        raise VoiceError(f"{source} cannot be read: {error.strerror}.") from None
    data = content[codes.start : codes.stop] + content[rows.start : rows.stop]
    _write(path, facts, codes.shape, rows.shape, data)


def read_facts(path: Path) -> VoiceFacts:
    """What a voice file says of itself. Raises VoiceError for anything that is no voice file; only
    its header is read."""
    return _checked(path)[1]


def load_voice(path: Path) -> Voice:
    """Read and check a voice file. Raises VoiceError for anything else, before data is read.

    Whether the codes are of a release is checked when they are used (`voice.embedding`).
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _, facts = _checked(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise VoiceError(f"{path} cannot be read: {short(error)}.") from None
    # In parts, because the check makes several copies of what it is given.
    if not all(bool(torch.isfinite(part).all()) for part in tensors["embedding"].split(256)):
        raise VoiceError(f"The rows of {path} hold numbers that are not finite.")
    if int(tensors["codes"].min()) < 0:
        raise VoiceError(f"The codes of {path} are negative: the file is damaged.")
    return Voice(tensors["codes"].long(), tensors["embedding"], facts)


def _checked(path: Path) -> tuple[Header, VoiceFacts]:
    """Header and facts of a file whose every byte is accounted for."""
    if not path.is_file():
        raise VoiceError(f"There is no voice file at {path}.")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise VoiceError(f"{path} has {size} bytes: too large for a voice file.")
        with path.open("rb") as file:
            if int.from_bytes(file.read(8), "little") > MAX_HEADER:
                raise VoiceError(
                    f"{path} is no voice file: its header is longer than {MAX_HEADER} bytes."
                )
        header = read_header(path)
    except OSError as error:
        raise VoiceError(f"{path} cannot be read: {error.strerror}.") from None
    except ReleaseError as error:
        raise VoiceError(f"{path} is no voice file: {short(error)}") from None
    shapes = {name: (entry.dtype, entry.shape) for name, entry in header.tensors.items()}
    if shapes.keys() != {"codes", "embedding"}:
        raise VoiceError(f"{path} is no voice file: it holds {short(sorted(shapes)[:8])}.")
    (codes_dtype, codes), (rows_dtype, rows) = shapes["codes"], shapes["embedding"]
    if codes_dtype != "I16" or rows_dtype != "BF16" or len(codes) != 2 or len(rows) != 2:
        raise VoiceError(f"{path} is no voice file: {short(shapes)}.")
    _check_shapes(path, codes, rows)
    text = header.metadata.get("voxclone")
    if text is None:
        raise VoiceError(f"{path} does not say where it comes from: it was not made by voxclone.")
    return header, parse_facts(text, path)


def _check_shapes(path: Path, codes: Shape, rows: Shape) -> None:
    if rows[0] != codes[1] + 1 or not 2 <= rows[0] <= MAX_ROWS:
        raise VoiceError(f"{path} has {codes[1]} frames of codes and {rows[0]} rows.")
    if not 1 <= codes[0] <= MAX_BOOKS or not 1 <= rows[1] <= MAX_WIDTH:
        raise VoiceError(f"{path} has {codes[0]} code books and rows of {rows[1]} numbers.")


def _write(path: Path, facts: VoiceFacts, codes: Shape, rows: Shape, data: bytes) -> None:
    if facts.consent.kind == "unstated":
        raise VoiceError(
            f"The voice is not written to {path}: nobody's consent is stated. State it: self, "
            "written, public-domain or synthetic."
        )
    _check_shapes(path, codes, rows)
    middle = 2 * codes[0] * codes[1]
    header = {
        "__metadata__": {"voxclone": facts.model_dump_json()},
        "codes": {"dtype": "I16", "shape": codes, "data_offsets": [0, middle]},
        "embedding": {"dtype": "BF16", "shape": rows, "data_offsets": [middle, len(data)]},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER or len(text) + len(data) > MAX_BYTES:
        raise VoiceError(
            f"The voice is not written to {path}: its facts have {len(text)} bytes (at most "
            f"{MAX_HEADER}), its numbers {len(data)} (at most {MAX_BYTES})."
        )
    try:
        with atomic_file(path) as file:
            file.write(len(text).to_bytes(8, "little") + text + data)
    except OSError as error:
        raise VoiceError(f"The voice cannot be written to {path}: {error}.") from None
