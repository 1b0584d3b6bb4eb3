"""Errors are sentences: what is wrong, where, and how to mend it.

Text of users and of files ends in messages and on terminals: `printable` makes one line of it.
"""

import errno
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
BEGIN, END = 1500, 400  # characters of a message that are kept
EXIT_OK = 0
EXIT_USER = 1
EXIT_USAGE = 2
EXIT_QUALITY = 3


class VoxcloneError(ValueError):
    """A mistake that the user can mend; the command line prints it without a trace. The message is
    one printable line of some length at most, whatever names and texts are in it."""

    exit_code = EXIT_USER

    def __init__(self, message: str) -> None:
        if len(message) > BEGIN + END:
            message = f"{message[:BEGIN]} ... {message[-END:]}"
        super().__init__(printable(message))


class UsageError(VoxcloneError):
    """The command itself was wrong (a bad option or argument)."""

    exit_code = EXIT_USAGE


class AudioError(VoxcloneError):
    """A recording that cannot be used; `rule` is the reason in a word or two, for counts."""

    def __init__(self, message: str, rule: str = "undecodable") -> None:
        super().__init__(message)
        self.rule = rule


class ReleaseError(VoxcloneError):
    """A release directory, or a file in it, that is missing, damaged or contradictory."""


class VoiceError(VoxcloneError):
    """A voice file or preset that cannot be used."""


class VoiceExistsError(VoiceError):
    """A voice of the name that a new one was to have."""


class UnknownVoiceError(VoiceError):
    """A name that is no voice's."""


class StorageError(VoiceError):
    """A folder of voices, or a file in it, that the system lets nobody make, read or write."""


class ConfigError(VoxcloneError):
    """A configuration file with an unknown key or an impossible value."""


class TrainingError(VoxcloneError):
    """A training that cannot go on as it is."""


class MissingExtraError(VoxcloneError):
    """An optional package that the command needs is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f"run `pip install 'voxclone[{extra}]'`."
        )


class QualityError(VoxcloneError):
    """A result that exists but is not good enough to be used."""

    exit_code = EXIT_QUALITY


REASONS = {
    errno.ENOENT: "there is no such file or directory",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.EROFS: "the disk is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EISDIR: "it is a directory",
    errno.ENOTDIR: "a part of the path is a file instead of a directory",
    errno.ELOOP: "its links lead in a circle",
    errno.EEXIST: "it exists already",
}


def is_address(path: str) -> bool:
    """Whether a path that names no file is a URL (as a Path, it has lost a slash)."""
    return ADDRESS.match(path) is not None and not os.path.exists(path)


TO_ADDRESS = "Nothing can be written to an address: name a folder."


def not_fetched(path: str, what: str = "file") -> str:
    """The sentence for an address in the place of a file, or of several."""
    address = path.replace(":/", "://", 1) if "://" not in path else path
    scheme, _, local = path.partition(":")
    if scheme.lower() == "file":
        return f"{shorten(path)} is an address: give the path of the {what}, /{local.lstrip('/')}."
    return f"{shorten(address)} is an address, and nothing is fetched: download the {what} first."


def reason(error: OSError) -> str:
    """The reason of an error of the operating system, as the end of a sentence."""
    text = REASONS.get(error.errno or 0) or error.strerror or str(error)
    return printable(text[:1].lower() + text[1:])


@contextmanager
def os_errors(problem: str, kind: type[VoxcloneError] = VoxcloneError) -> Iterator[None]:
    """Turn an error of the operating system into a `kind`: the problem, a colon, and the reason."""
    try:
        yield
    except OSError as error:
        raise kind(f"{problem}: {reason(error)}.") from None


SHOWN = 300
BIDI_CONTROLS = set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_hidden(character: str) -> bool:
    """Whether a character changes a terminal or the direction of writing instead of being shown."""
    return character in BIDI_CONTROLS or unicodedata.category(character) in ("Cc", "Cs")


def printable(value: Any) -> Any:
    """The value, a text or texts in mappings and lists, with a space for every line break and tab,
    and `?` for every other hidden character."""
    if isinstance(value, str):
        if value.isprintable():
            return value
        return "".join(" " if c in "\n\r\t" else "?" if is_hidden(c) else c for c in value)
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable(item) for item in value]
    return value


def shorten(value: object, shown: int = SHOWN) -> str:
    """The beginning of a text on one printable line; the text may be long or hostile."""
    text = str(printable(str(value)[: shown + 1]))
    return text if len(text) <= shown else f"{text[:shown]}..."


def file_name(path: str | bytes | os.PathLike[str]) -> str:
    """A path as text, whatever bytes it has: those that are not UTF-8 as `\\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
