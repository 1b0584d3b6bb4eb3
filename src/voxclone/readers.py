"""The one reader of text, JSON and YAML from files, and of typed records in them.

A file may be anything: a pipe, of any size, in another encoding, nested without end. Every reader
here takes the class of error to raise, which is one sentence that names the file.
"""

import codecs
import difflib
import functools
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar, cast

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from voxclone.errors import ConfigError, VoxcloneError, os_errors, shorten

MAX_TEXT = 64 * 2**20
MAX_LINE = 4 * 2**20
MAX_YAML = 128 * 2**10  # PyYAML takes a second for so much
MAX_DEPTH = 32
MAX_PATH = 4096
MAX_MISTAKES = 5  # in one message

Kind = type[VoxcloneError]


class Record(BaseModel):
    """Base of records in files: frozen, numbers finite, no type taken for another one, unknown keys
    ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


def require_path(text: str) -> str:
    """The text, if it can be the path of a file. Raises ValueError, with a clause, otherwise."""
    if not text or len(text) > MAX_PATH or "\0" in text:
        raise ValueError("it cannot be the path of a file")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError("it cannot be the path of a file") from None
    return text


PathText = Annotated[str, AfterValidator(require_path)]
"""A text that can be the path of a file."""
Name = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""A text, or a whole number that stands for one, as ids and speakers of corpora are."""
Seconds = Annotated[float, Field(ge=0, le=1e8)]
"""A position or duration in a recording."""

RecordT = TypeVar("RecordT")


def open_file(path: str | Path, kind: Kind = ConfigError, what: str = "") -> BinaryIO:
    """Open an ordinary file for reading; another one, such as a pipe, would wait for ever."""
    label = f"{what} {path}".lstrip()
    try:
        require_path(str(path))
    except ValueError as error:
        raise kind(f"{shorten(label)} cannot be read: {error}.") from None
    with os_errors(f"{label} cannot be read", kind):
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 (handed over)
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    raise kind(f"{label} cannot be read: it is no ordinary file.")


def read_bytes(
    path: str | Path, kind: Kind = ConfigError, what: str = "", limit: int = MAX_TEXT
) -> bytes:
    """The content of an ordinary file of at most `limit` bytes."""
    label = f"{what} {path}".lstrip()
    with open_file(path, kind, what) as file, os_errors(f"{label} cannot be read", kind):
        content = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)
    if len(content) > limit:
        raise kind(
            f"{label} has more than {limit / 2**20:.3g} MiB, too much for what it should be."
        )
    return content


def read_head(path: str | Path, count: int, kind: Kind = ConfigError) -> bytes:
    """The first bytes of an ordinary file, at most `count`."""
    with open_file(path, kind) as file, os_errors(f"{path} cannot be read", kind):
        return file.read(count)


def refuse_lfs_pointer(begin: bytes, path: str | Path, kind: Kind = ConfigError) -> None:
    """Raise the error for a file that begins as git-lfs's pointers do, in a clone without it."""
    if begin.startswith(b"version "):
        raise kind(
            f"{path} is a pointer of git-lfs instead of the file: fetch that with `git lfs pull`."
        )


def read_lines(file: BinaryIO, label: str, kind: Kind = ConfigError) -> Iterator[bytes]:
    """The lines of a binary file, each of at most 4 MiB."""
    while True:
        with os_errors(f"{label} cannot be read", kind):
            line = file.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            raise kind(f"{label} has a line of more than {MAX_LINE // 2**20} MiB.")
        if not line:
            return
        yield line


def decode_text(content: bytes, label: str, kind: Kind = ConfigError) -> str:
    """Text in UTF-8, without the byte order mark that some editors put before it."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise kind(f"{label} is in UTF-16: save it as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise kind(f"{label} is not in UTF-8 (byte {error.start}): save it as UTF-8.") from None
    if "\0" in text:
        raise kind(f"{label} holds a NUL character: it is no text in UTF-8.")
    return text


def read_text(
    path: str | Path, kind: Kind = ConfigError, what: str = "", limit: int = MAX_TEXT
) -> str:
    """A text file in UTF-8."""
    return decode_text(read_bytes(path, kind, what, limit), f"{what} {path}".lstrip(), kind)


def load_json(text: str) -> Any:
    """The value of a JSON text: nested at most 32 deep, numbers finite and within 64 bits, no name
    twice in a mapping. Raises ValueError, with a clause, for anything else."""
    try:
        value = json.loads(
            text,
            parse_constant=_float,
            parse_float=_float,
            parse_int=_integer,
            object_pairs_hook=_unique,
        )
        _check_depth(value)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def parse_json(text: str | bytes, label: str, kind: Kind = ConfigError) -> Any:
    """The value of a JSON text, as `load_json` reads it."""
    if isinstance(text, bytes):
        text = decode_text(text, label, kind)
    try:
        return load_json(text)
    except ValueError as error:
        raise kind(f"{label} is not valid JSON: {_clause(error)}.") from None


def read_json(
    path: str | Path, kind: Kind = ConfigError, what: str = "", limit: int = MAX_TEXT
) -> Any:
    """The value of a JSON file, as `parse_json` reads it."""
    content = read_bytes(path, kind, what, limit)
    return parse_json(content, f"{what} {path}".lstrip(), kind)


def parse_yaml(text: str, label: str, kind: Kind = ConfigError) -> Any:
    """The value of a YAML text: limits as for JSON, and no aliases or tags, which may ask for more
    than they show."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError("it is nested too deeply")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
                raise ValueError("aliases (*name) and tags (!name) are not read")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _check_keys(node)
        value = None if node is None else loader.construct_document(node)
        _check_numbers(value)
    except (yaml.YAMLError, ValueError, LookupError, OverflowError, RecursionError) as error:
        raise kind(f"{label} is not valid YAML: {_clause(error)}.") from None
    return value


def read_yaml(path: str | Path, kind: Kind = ConfigError, what: str = "") -> Any:
    """The value of a YAML file, as `parse_yaml` reads it."""
    return parse_yaml(read_text(path, kind, what, MAX_YAML), f"{what} {path}".lstrip(), kind)


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


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name occurs twice in a mapping")
    return values


def _check_keys(node: yaml.Node | None) -> None:
    """Raise ValueError for a key that is twice in a mapping, of which the last would win."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, yaml.MappingNode):
            keys = [key.value for key, _ in each.value if isinstance(key, yaml.ScalarNode)]
            repeated = [key for key, count in Counter(keys).items() if count > 1]
            if repeated:
                raise ValueError(f"the key {shorten(repeated[0], 60)!r} occurs twice")
            waiting += [value for _, value in each.value]
        elif isinstance(each, yaml.SequenceNode):
            waiting += each.value


def _check_depth(value: Any) -> None:
    """Raise ValueError for a value that is nested too deeply."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [item for items in inner for item in items if type(item) in (dict, list)]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("it holds a number that is not finite")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (value := int(text)) < 2**64:
        raise ValueError("it holds a number of more than 64 bits")
    return value


def _check_numbers(value: Any) -> None:
    """Raise ValueError for a number in a value that JSON of this reader would not have."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict | list):
            waiting.extend([*item, *item.values()] if isinstance(item, dict) else item)
        elif isinstance(item, float):
            _float(str(item))
        elif isinstance(item, int) and not -(2**63) <= item < 2**64:
            raise ValueError("it holds a number of more than 64 bits")


def _clause(error: Exception) -> str:
    """What is wrong with a text, as the end of a sentence; YAML's own words are several lines."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None or mark is None:
        return shorten(" ".join(str(error).split()))
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})"
