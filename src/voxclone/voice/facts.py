"""What a voice file says of itself: consent, origin, and how older files are brought up to date.

All of it is text from a file that may be hostile, and ends on terminals: control characters and
characters that turn the direction of writing are refused, and replaced in what is made here.
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
TURNING = set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

ConsentKind = Literal["self", "written", "public-domain", "synthetic", "unstated"]


class Consent(Settings):
    """Who allowed this voice to be made. `unstated` is for voices that are used at once and thrown
    away; a file is never written with it."""

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
    book_hash: str | None = None
    """Of the code book (`release.encoders.book_hash`); files of format 1 do not tell."""
    enrolment: str | None = None
    """Identity of recordings, options, encoder and release (`cloning.identity`)."""
    reference_seconds: float = Field(allow_inf_nan=False)
    reference_hash: str
    preprocessing: dict[str, Any] = Field(default_factory=dict)
    likeness: dict[str, float] = Field(default_factory=dict)
    transcript: str = Field(default="", max_length=4096)
    """What the recording says, if somebody wrote it down; nothing in here needs it."""
    description: str = Field(default="", max_length=1000)
    tool: str


def _from_1(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"format": "voxclone.voice/2", "book_hash": None, "enrolment": None}


# format: what makes the next format of it
MIGRATIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "voxclone.voice/1": _from_1,
    "voxclone.voice/2": lambda values: values | {"format": "voxclone.voice/3"},
}


def parse_facts(text: str, path: Path) -> VoiceFacts:
    """Facts from the header of the file `path`, brought to today's format.

    Raises VoiceError for anything else, with the version of the tool to use for a later format.
    """
    damaged = f"The header of {path} is damaged"
    try:
        values = json.loads(text)
        _check_plain(values)
    except (ValueError, RecursionError) as error:
        raise VoiceError(f"{damaged}: {short(error)}.") from None
    if not isinstance(values, dict):
        raise VoiceError(f"{damaged}: it is no mapping.")
    while (found := values.get("format")) != FORMAT:
        if not isinstance(found, str) or found not in MIGRATIONS:
            known = ", ".join([*MIGRATIONS, FORMAT])
            raise VoiceError(
                f"{path} is of the format {short(found)!r}, and this version reads {known}: use "
                f"the version that made it ({short(values.get('tool', 'it does not say which'))}) "
                "or a later one."
            )
        values = MIGRATIONS[found](values)
    if isinstance(values.get("consent"), dict) and "date" not in values["consent"]:
        raise VoiceError(f"{damaged}: its consent has no date.")
    try:
        return parse_settings(VoiceFacts, values, str(path))
    except ConfigError as error:
        raise VoiceError(short(error)) from None


def check_name(name: str) -> str:
    """The name, if it is an identifier. Raises VoiceError, since runtimes turn names to lower case
    and make file names of them."""
    if NAME.fullmatch(name) and not DEVICES.fullmatch(name):
        return name
    raise VoiceError(
        f"The name {short(name)!r} cannot be a voice's: use up to 64 of a-z, 0-9, - and _, and no "
        "device name such as con."
    )


def plain(value: Any) -> Any:
    """The value with every character replaced by `?` that a voice file may not hold."""
    if isinstance(value, str):
        return "".join("?" if _is_hidden(c) else c for c in value)
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def short(value: object) -> str:
    """The beginning of a text that may be long, hostile, or both, on one line."""
    text = plain(str(value))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _check_plain(value: Any) -> None:
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
    return character in TURNING or unicodedata.category(character) in ("Cc", "Cs")
