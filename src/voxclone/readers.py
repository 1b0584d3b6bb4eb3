"""The one reader of text, JSON and YAML from files; `records` checks values for their types.

A file may be anything: a pipe, of any size, in another encoding, nested without end. Every reader
here takes the class of error to raise, which is one sentence that names the file.
"""

import json
import math
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from voxclone.errors import (
    ConfigError,
    VoxcloneError,
    is_address,
    not_fetched,
    os_errors,
    shorten,
)

MAX_TEXT = 64 * 2**20
MAX_LINE = 4 * 2**20
MAX_YAML = 128 * 2**10  # PyYAML takes a second for so much
MAX_DEPTH = 32
MAX_PATH = 4096
MAX_CONTROLS = 1 / 3
"""Of the characters of a text. Of UTF-16 without a byte order mark, half are."""

STANDARD_INPUT = "-"
_OPEN_FILE = re.compile(r"/dev/(stdin|fd/\d+)|/proc/self/fd/\d+")
# White space counts, too: the high bytes of Devanagari, Oriya, Telugu and Malayalam in UTF-16 are 9
# and 11 to 13. A run counts once, as an indent of tabs is one.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]|\t+|\v+|\f+|\r+(?![\r\n])")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"

Kind = type[VoxcloneError]


def require_path(text: str) -> str:
    """The text, if it can be the path of a file. Raises ValueError, with a clause, otherwise."""
    if not text or len(text) > MAX_PATH or "\0" in text:
        raise ValueError("it cannot be the path of a file")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError("it cannot be the path of a file") from None
    return text


def require_local(path: str | Path, kind: Kind = ConfigError, what: str = "file") -> None:
    """Raise the error for an address, from which nothing is fetched, and for `-` where `what` must
    be named."""
    if is_address(str(path)):
        raise kind(not_fetched(str(path), what))
    if str(path) == STANDARD_INPUT:
        raise kind(
            f"Standard input cannot be read here: write it to the disk, and name the {what}."
        )


def open_file(path: str | Path, kind: Kind = ConfigError, what: str = "") -> BinaryIO:
    """Open an ordinary file for reading; another one, such as a pipe, would wait for ever, and
    cannot be read twice. A pointer of git-lfs in the place of the file is named as one."""
    label = _label(path, what)
    try:
        require_path(str(path))
    except ValueError as error:
        raise kind(f"{shorten(label)} cannot be read: {error}.") from None
    require_local(path, kind)
    with os_errors(f"{label} cannot be read", kind):
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 (handed over)
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            begin = file.read(len(LFS_POINTER))
            file.seek(0)
            refuse_lfs_pointer(begin, label, kind)
            return file
        file.close()
    raise kind(
        f"{label} cannot be read: it is no ordinary file. Write what it gives to one, and name "
        "that."
    )


def is_piped(path: str | Path) -> bool:
    """Whether a path is `-`, or a pipe that is open already, such as `/dev/fd/63` of a shell's
    `<(...)`. Another pipe may have no writer, and reading it would wait for ever."""
    if str(path) == STANDARD_INPUT:
        return True
    try:
        return bool(_OPEN_FILE.fullmatch(str(path))) and stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def read_piped(path: str | Path, limit: int, kind: Kind = ConfigError) -> bytes:
    """What an open pipe gives (see `is_piped`), up to one byte more than `limit`."""
    with os_errors(f"{_label(path)} cannot be read", kind):
        if str(path) != STANDARD_INPUT:
            with open(path, "rb") as pipe:
                return pipe.read(limit + 1)
        if sys.stdin is None or sys.stdin.closed:
            raise kind("Standard input is closed: name a file instead of -.")
        return sys.stdin.buffer.read(limit + 1)


def read_bytes(
    path: str | Path, kind: Kind = ConfigError, what: str = "", limit: int = MAX_TEXT
) -> bytes:
    """The content of an ordinary file, or of an open pipe, of at most `limit` bytes."""
    label = _label(path, what)
    if is_piped(path):
        content = read_piped(path, limit, kind)
    else:
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


def refuse_lfs_pointer(begin: bytes, label: str, kind: Kind = ConfigError) -> None:
    """Raise the error for a file that begins as git-lfs's pointers do, in a clone without it."""
    if begin.startswith(LFS_POINTER):
        raise kind(
            f"{label} is a pointer of git-lfs instead of the file: fetch that with `git lfs pull`."
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
    """Text in UTF-8, without the byte order mark that some editors put before it. It may hold some
    control characters."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise kind(f"{label} is in UTF-16: save it as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise kind(f"{label} is not in UTF-8 (byte {error.start}): save it as UTF-8.") from None
    if len(_CONTROL.findall(text)) > MAX_CONTROLS * len(text):
        raise kind(
            f"{label} is full of control characters such as NUL or tabs, as a text in UTF-16 is "
            "without its mark: save it as UTF-8."
        )
    return text


def read_text(
    path: str | Path, kind: Kind = ConfigError, what: str = "", limit: int = MAX_TEXT
) -> str:
    """A text file in UTF-8."""
    return decode_text(read_bytes(path, kind, what, limit), _label(path, what), kind)


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
    return parse_json(read_bytes(path, kind, what, limit), _label(path, what), kind)


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
    return parse_yaml(read_text(path, kind, what, MAX_YAML), _label(path, what), kind)


def _label(path: str | Path, what: str = "") -> str:
    """How messages name a file: by what it should be, and its path."""
    return "Standard input" if str(path) == STANDARD_INPUT else f"{what} {path}".lstrip()


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
