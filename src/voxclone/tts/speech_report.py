"""The report of a spoken text: every part with its seed, length and similarity, and its codes, so
that some parts can be spoken again and the others stay as they are.

Shapes: S samples, K codebooks, T frames.
"""

import base64
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.errors import ConfigError, UsageError, VoxcloneError
from voxclone.readers import read_json
from voxclone.records import Record, Seconds, parse_record
from voxclone.tts.speech import Speech, SpokenPart

SCHEMA = "voxclone.speech/1"
MAX_FRAMES = 4096


class PartRecord(Record):
    """A part of a text; `similarity` is None where it is too short to be measured. `codes` are
    int16 [K, T], little-endian, in base64."""

    text: str
    pause: Seconds
    seed: int
    start: Seconds
    seconds: Seconds
    similarity: float | None
    truncated: bool
    silent: bool
    rejected: list[int]
    codes: str


class SpeechRecord(Record):
    """A spoken text. `voice_sha256` is of the voice embedding."""

    format: Literal["voxclone.speech/1"] = Field(alias="schema")
    model: str
    voice: str
    voice_sha256: str
    seed: int
    cfg: float
    parts: list[PartRecord]


def speech_report(
    speech: Speech,
    similarities: Sequence[float | None],
    *,
    model: str,
    voice: str,
    voice_sha256: str,
) -> dict[str, Any]:
    """The values of a report, which `read_speech_report` reads."""
    parts, start = list[dict[str, Any]](), 0.0
    for part, similarity in zip(speech.parts, similarities, strict=True):
        start += part.pause
        seconds = len(part.wave_S) / speech.sampling_rate
        codes = part.codes_KT.numpy().astype("<i2").tobytes()
        parts.append(
            {
                "number": len(parts) + 1,
                "text": part.text,
                "pause": part.pause,
                "seed": part.seed,
                "start": round(start, 3),
                "seconds": round(seconds, 3),
                "similarity": similarity,
                "truncated": part.truncated,
                "silent": part.silent,
                "rejected": list(part.rejected),
                "codes": base64.b64encode(codes).decode(),
            }
        )
        start += seconds
    return {
        "schema": SCHEMA,
        "model": model,
        "voice": voice,
        "voice_sha256": voice_sha256,
        "seed": speech.seed,
        "cfg": speech.cfg,
        "seconds": round(speech.duration, 3),
        "parts": parts,
    }


def read_speech_report(path: Path) -> SpeechRecord:
    """The report of an earlier run. Raises ConfigError."""
    return parse_record(SpeechRecord, read_json(path, what="The report"), f"the report {path}")


def parse_redo(text: str, parts: int) -> set[int]:
    """The indices (from 0) of the parts in a list such as `3,7`, which counts from 1. Raises
    UsageError for what is no part."""
    numbers = text.replace(" ", "").split(",")
    if not all(each.isascii() and each.isdigit() and 0 < len(each) < 9 for each in numbers):
        raise UsageError(f"--redo is {text!r}: give numbers of parts, such as 3,7.")
    found = {int(each) - 1 for each in numbers}
    wrong = sorted(each + 1 for each in found if not 0 <= each < parts)
    if wrong:
        raise UsageError(f"There is no part {wrong[0]}: the text was spoken in {parts} parts.")
    return found


def kept_parts(
    record: SpeechRecord, redo: Collection[int], texts: Sequence[str], codec: Codec
) -> dict[int, SpokenPart]:
    """The parts of a report by their indices, without those to be spoken again. Raises UsageError
    if the report is of other texts, ConfigError for damaged codes."""
    if [part.text for part in record.parts] != list(texts):
        raise UsageError(
            "The report is of another text: give the same text as before, or leave out --redo."
        )
    return {
        index: _spoken(part, index + 1, codec)
        for index, part in enumerate(record.parts)
        if index not in redo
    }


@torch.inference_mode()
def _spoken(part: PartRecord, number: int, codec: Codec) -> SpokenPart:
    codes_KT = _decoded(part.codes, codec.num_codebooks, number)
    try:
        wave_S = codec.decode(codes_KT[None].to(codec.device))[0].cpu()
    except VoxcloneError as error:
        raise ConfigError(
            f"The codes of part {number} in the report are damaged: {error}"
        ) from None
    return SpokenPart(
        part.text, part.pause, part.seed, wave_S, codes_KT, part.truncated, part.silent,
        tuple(part.rejected),
    )  # fmt: skip


def _decoded(text: str, codebooks: int, number: int) -> Tensor:
    try:
        codes = np.frombuffer(base64.b64decode(text, validate=True), "<i2")
        if len(codes) % codebooks or len(codes) > codebooks * MAX_FRAMES:
            raise ValueError(f"they are {len(codes)} numbers for {codebooks} codebooks")
    except ValueError as error:
        raise ConfigError(
            f"The codes of part {number} in the report are damaged: {error}."
        ) from None
    return torch.from_numpy(codes.astype(np.int64)).view(codebooks, -1)
