"""Typed records in files: values are checked against a pydantic model or a dataclass, and every
mistake has a sentence.
"""

import codecs
import difflib
import functools
from collections.abc import Hashable, Mapping
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from voxclone.errors import ConfigError, shorten
from voxclone.readers import Kind, require_path

MAX_MISTAKES = 5  # in one message


class Record(BaseModel):
    """Base of records in files: frozen, numbers finite, no type taken for another one, unknown keys
    ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


PathText = Annotated[str, AfterValidator(require_path)]
"""A text that can be the path of a file."""
Name = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""A text, or a whole number that stands for one, as ids and speakers of corpora are."""
Seconds = Annotated[float, Field(ge=0, le=1e8)]
"""A position or duration in a recording."""

RecordT = TypeVar("RecordT")


def parse_record(
    record: type[RecordT], values: Any, label: str, kind: Kind = ConfigError
) -> RecordT:
    """Check values against a pydantic model or a dataclass. The error has a sentence for each
    mistake, and names the nearest key for an unknown one."""
    try:
        return _adapter(cast(Hashable, record)).validate_python(values)
    except ValidationError as error:
        raise kind(f"In {label}: {explain(error, record)}") from None


def parse_line(record: type[RecordT], line: bytes) -> RecordT:
    """The record of a line of JSON; unlike the other functions here, for millions of them. Raises
    ValueError, with a sentence for each mistake."""
    try:
        return _adapter(cast(Hashable, record)).validate_json(line.removeprefix(codecs.BOM_UTF8))
    except ValidationError as error:
        raise ValueError(explain(error, record)) from None


def explain(error: ValidationError, record: type[Any]) -> str:
    """A sentence for each of the first mistakes that a validation found."""
    items = error.errors(include_url=False, include_context=False)
    sentences = [_explain_one(record, dict(item)) for item in items[:MAX_MISTAKES]]
    if len(items) > MAX_MISTAKES:
        sentences.append(f"There are {len(items) - MAX_MISTAKES} more mistakes.")
    return " ".join(sentences)


def _explain_one(record: type[Any], item: dict[str, Any]) -> str:
    location = [str(part) for part in item["loc"]]
    name = shorten(".".join(location), 100)
    renamed: Mapping[str, str] = getattr(record, "renamed", {})
    if item["type"] == "extra_forbidden" and name in renamed:
        now = renamed[name]
        return f"{name!r} is now {now}." if now else f"{name!r} was removed: leave it out."
    if item["type"] == "extra_forbidden":
        known = _fields_at(record, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}."
        return f"{name!r} is not a known key; {hint}"
    if item["type"] == "missing":
        return f"{name!r} is missing."
    message = item["msg"].removeprefix("Value error, ")
    if not location:  # several values contradict each other: the message names them
        return f"{message}."
    found = shorten(repr(item["input"]), 60)
    return f"{name!r} is {found}: {message[:1].lower()}{message[1:]}."


def _fields_at(record: type[Any], parents: list[str]) -> list[str]:
    for name in parents:
        field = getattr(record, "model_fields", {}).get(name)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        record = inner
    return list(getattr(record, "model_fields", {}))


@functools.cache
def _adapter(record: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, record))
