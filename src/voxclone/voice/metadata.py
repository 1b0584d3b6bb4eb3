"""The metadata of a voice file: consent, origin, and the migration of older formats.

A voice file may be hostile, and its text ends on terminals. Reading refuses control characters and
characters that turn the direction of writing; writing replaces them.
"""

import datetime
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from voxclone.config import Settings, parse_settings
from voxclone.errors import ConfigError, VoiceError

FORMAT = "voxclone.voice/3"
MAX_DEPTH = 12
SHOWN = 300
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
DEVICES = re.compile(r"con|prn|aux|nul|com\d|lpt\d")  # Windows opens these instead of a file
BIDI_CONTROLS = set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

ConsentKind = Literal["self", "written", "public-domain", "synthetic", "unstated"]


class Consent(Settings):
    """Who allowed this voice to be made. `unstated` is for voices that are used once and thrown
    away; no file is written with it."""

    kind: ConsentKind
    statement: str = ""
    date: str = Field(default_factory=lambda: datetime.date.today().isoformat())


class VoiceMetadata(Settings):
    """The metadata of a voice file. Hashes are SHA-256 in hexadecimal digits."""

    format: str = FORMAT
    name: str
    consent: Consent
    license: str = "CC BY-NC 4.0 where made with weights of Voxtral-4B-TTS-2603"
    encoder_hash: str
    table_hash: str
    codebook_hash: str | None = None
    """See `release.encoder_file.codebook_hash`; format 1 did not store it."""
    enrollment_id: str | None = None
    """See `cloning.identity.enrollment_id`."""
    reference_seconds: float = Field(allow_inf_nan=False)
    reference_hash: str
    preprocessing: dict[str, Any] = Field(default_factory=dict)
    """The report of the reference, and of a refinement if there was one."""
    similarity: dict[str, float] = Field(default_factory=dict)
    """Cosine of the decoded codes to the reference, by speaker encoder."""
    tool: str


def _from_1(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"format": "voxclone.voice/2", "book_hash": None, "enrolment": None}


def _from_2(values: dict[str, Any]) -> dict[str, Any]:
    return _renamed(values, RENAMED_IN_3) | {"format": "voxclone.voice/3"}


RENAMED_IN_3 = {
    "ask_every": "predict_every",
    "book_hash": "codebook_hash",
    "enrolment": "enrollment_id",
    "judge": "select_by",
    "judge_every": "evaluate_every",
    "judged": "evaluations",
    "level_rate": "level_lr",
    "licence": "license",
    "likely_levels": "flow",
    "likely_semantic": "model_exponent",
    "likeness": "similarity",
    "near_levels": "level_distance",
    "near_semantic": "semantic_kl",
    "origin": "init",
    "semantic_rate": "semantic_lr",
    "unity": "speaker_consistency",
}


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """The value with other names for the keys of its mappings, at any depth."""
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return value


# Each old format, and the function that gives the next one.
MIGRATIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "voxclone.voice/1": _from_1,
    "voxclone.voice/2": _from_2,
}


def parse_metadata(text: str, path: Path) -> VoiceMetadata:
    """Metadata from the header of the file `path`, migrated to the present format.

    Raises VoiceError for anything else. For a later format, it names the version to use.
    """
    damaged = f"The header of {path} is damaged"
    try:
        values = json.loads(text)
        _check_printable(values)
    except (ValueError, RecursionError) as error:
        raise VoiceError(f"{damaged}: {shorten(error)}.") from None
    if not isinstance(values, dict):
        raise VoiceError(f"{damaged}: it is no mapping.")
    while (found := values.get("format")) != FORMAT:
        if not isinstance(found, str) or found not in MIGRATIONS:
            known = ", ".join([*MIGRATIONS, FORMAT])
            tool = shorten(values.get("tool", "it does not say which"))
            raise VoiceError(
                f"{path} is of the format {shorten(found)!r}, and this version reads {known}: use "
                f"the version that made it ({tool}) or a later one."
            )
        values = MIGRATIONS[found](values)
    if isinstance(values.get("consent"), dict) and "date" not in values["consent"]:
        raise VoiceError(f"{damaged}: its consent has no date.")
    try:
        return parse_settings(VoiceMetadata, values, str(path))
    except ConfigError as error:
        raise VoiceError(shorten(error)) from None


def check_name(name: str) -> str:
    """The name, if it is an identifier. Runtimes turn names to lower case and make file names of
    them. Raises VoiceError for another name."""
    if NAME.fullmatch(name) and not DEVICES.fullmatch(name):
        return name
    raise VoiceError(
        f"The name {shorten(name)!r} cannot be a voice's: use up to 64 of a-z, 0-9, - and _, and "
        "no device name such as con."
    )


def printable(value: Any) -> Any:
    """The value with `?` for every character that a voice file may not hold."""
    if isinstance(value, str):
        return "".join("?" if _is_hidden(c) else c for c in value)
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable(item) for item in value]
    return value


def shorten(value: object) -> str:
    """The beginning of a text on one printable line; the text may be long or hostile."""
    text = printable(str(value))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _check_printable(value: Any) -> None:
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if isinstance(item, str) and any(_is_hidden(c) for c in item):
            raise ValueError("it holds control characters")
        if isinstance(item, float) and abs(item) > 1e300:
            raise ValueError("it holds a number that is not finite")
        if isinstance(item, dict):
            waiting += [(each, depth + 1) for pair in item.items() for each in pair]
        elif isinstance(item, list):
            waiting += [(each, depth + 1) for each in item]


def _is_hidden(character: str) -> bool:
    return character in BIDI_CONTROLS or unicodedata.category(character) in ("Cc", "Cs")
