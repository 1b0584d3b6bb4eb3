"""The metadata of a voice file: consent, origin, and the migration of older formats.

A voice file may be hostile, and its text ends on terminals. Reading refuses control characters and
characters that turn the direction of writing; writing replaces them.
"""

import datetime
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from voxclone.config import Settings
from voxclone.errors import VoiceError, printable, shorten
from voxclone.readers import load_json
from voxclone.records import parse_record

FORMAT = "voxclone.voice/3"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
DEVICES = re.compile(r"con|prn|aux|nul|com\d|lpt\d")  # Windows opens these instead of a file

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
    adapter_hash: str | None = None
    """Of the adapter by whose gain the crops were chosen; None, and not written, without one."""
    reference_seconds: float = Field(allow_inf_nan=False)
    reference_hash: str
    preprocessing: dict[str, Any] = Field(default_factory=dict)
    """The report of the reference, and of a refinement if there was one."""
    similarity: dict[str, float] = Field(default_factory=dict)
    """Cosine of the decoded codes to the reference, by speaker encoder."""
    transcript: str = Field(default="", max_length=4096)
    """Text of the recording, if somebody wrote it down; nothing here needs it."""
    description: str = Field(default="", max_length=1000)
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
        values = load_json(text)
    except ValueError as error:
        raise VoiceError(f"{damaged}: {shorten(error)}.") from None
    if printable(values) != values:
        raise VoiceError(f"{damaged}: it holds control characters.")
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
    return parse_record(VoiceMetadata, values, str(path), VoiceError)


def is_name(name: str) -> bool:
    """Whether a voice can have this name."""
    return bool(NAME.fullmatch(name)) and not DEVICES.fullmatch(name)


def check_name(name: str) -> str:
    """The name, if it is an identifier. Runtimes turn names to lower case and make file names of
    them. Raises VoiceError for another name."""
    if is_name(name):
        return name
    raise VoiceError(
        f"The name {shorten(name)!r} cannot be a voice's: use up to 64 of a-z, 0-9, - and _, and "
        "no device name such as con."
    )
