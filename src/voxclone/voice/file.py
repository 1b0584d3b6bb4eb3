"""The voice file: one safetensors with codes, rows and where they come from.

`codes` [K, T] (int16) can be embedded again by any release with the same code books; `embedding`
[T + 1, D] (bf16) is what the language model of one release reads, under the key that mlx-audio and
mlx-voxtral-swift look for. Everything else is text in the header.

Shapes: K code books, T frames, N = T + 1 rows, D width.
"""

import datetime
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from voxclone.errors import VoiceError
from voxclone.release.shards import read_header
from voxclone.settings import Settings, parse_settings

FORMAT = "voxclone.voice/1"
SUFFIX = ".voice.safetensors"
MAX_BYTES = 64 * 2**20
MAX_ROWS = 4096
MAX_HEADER = 64 * 2**10

ConsentKind = Literal["self", "written", "public-domain", "synthetic", "unstated"]


class Consent(Settings):
    """Who allowed this voice to be made. `unstated` is written where nobody was asked (a one-off
    clone) and is never taken for consent."""

    kind: ConsentKind
    statement: str = ""
    date: str = Field(default_factory=lambda: datetime.date.today().isoformat())


class VoiceFacts(Settings):
    """What a voice file says of itself."""

    format: str = FORMAT
    name: str
    consent: Consent
    licence: str = "CC BY-NC 4.0 where made with weights of Voxtral-4B-TTS-2603"
    encoder_hash: str
    table_hash: str
    reference_seconds: float
    reference_hash: str
    preprocessing: dict[str, Any] = Field(default_factory=dict)
    likeness: dict[str, float] = Field(default_factory=dict)
    tool: str


@dataclass(frozen=True)
class Voice:
    """Codes [K, T] without the shift, rows [T + 1, D] in bf16, and the facts."""

    codes_KT: Tensor
    rows_ND: Tensor
    facts: VoiceFacts


def tensor_hash(*tensors: Tensor) -> str:
    """SHA-256 over shapes and bytes: the identity of a table or an encoder."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_voice(voice: Voice, path: Path) -> None:
    """Write a voice under a temporary name and rename it. Raises VoiceError if it cannot be."""
    tensors = {
        "codes": voice.codes_KT.to(torch.int16).contiguous().clone(),
        "embedding": voice.rows_ND.to(torch.bfloat16).contiguous().clone(),
    }
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file(tensors, temporary, {"voxclone": voice.facts.model_dump_json()})
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise VoiceError(f"The voice cannot be written to {path}: {error}.") from None


def load_voice(path: Path) -> Voice:
    """Read and check a voice file. Raises VoiceError for anything else, before data is read."""
    if not path.is_file():
        raise VoiceError(f"There is no voice file at {path}.")
    if path.stat().st_size > MAX_BYTES:
        raise VoiceError(f"{path} has {path.stat().st_size} bytes: too large for a voice file.")
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > MAX_HEADER:
            raise VoiceError(
                f"{path} is no voice file: its header is longer than {MAX_HEADER} bytes."
            )
    try:
        header = read_header(path)
    except Exception as error:
        raise VoiceError(f"{path} is no voice file: {error}") from None
    shapes = {name: (entry.dtype, tuple(entry.shape)) for name, entry in header.tensors.items()}
    if set(shapes) != {"codes", "embedding"}:
        raise VoiceError(f"{path} is no voice file: it holds {sorted(shapes)[:8]}.")
    (codes_dtype, codes_shape), (rows_dtype, rows_shape) = shapes["codes"], shapes["embedding"]
    if (
        codes_dtype != "I16"
        or rows_dtype != "BF16"
        or len(codes_shape) != 2
        or len(rows_shape) != 2
    ):
        raise VoiceError(f"{path} is no voice file: {shapes}.")
    if rows_shape[0] != codes_shape[1] + 1 or not 2 <= rows_shape[0] <= MAX_ROWS:
        raise VoiceError(f"{path} has {codes_shape[1]} frames of codes and {rows_shape[0]} rows.")
    text = header.metadata.get("voxclone")
    if text is None:
        raise VoiceError(f"{path} does not say where it comes from: it was not made by voxclone.")
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise VoiceError(f"The header of {path} is damaged: {error}.") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else None
        raise VoiceError(f"{path} is of format {found!r}; this version reads {FORMAT!r}.")
    facts = parse_settings(VoiceFacts, values, str(path))
    tensors = load_file(path)
    if not bool(torch.isfinite(tensors["embedding"]).all()):
        raise VoiceError(f"The rows of {path} hold numbers that are not finite.")
    return Voice(tensors["codes"].long(), tensors["embedding"], facts)
