"""The one check of outputs, before any work.

No output may be an input or another output, by whatever spelling or link of its path. A file that
exists is replaced only by one of the same kind.
"""

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from voxclone.audio.kinds import WRITABLE
from voxclone.errors import (
    TO_ADDRESS,
    UsageError,
    VoxcloneError,
    file_name,
    is_address,
    reason,
    shorten,
)
from voxclone.readers import STANDARD_INPUT

PAGE_START = b"<!doctype html>"
STANDARD_OUTPUT = "-"


@dataclass(frozen=True)
class OutputKind:
    """A kind of files: its name in messages, the suffixes of its files, and whether an existing
    file is one of it."""

    name: str
    suffixes: tuple[str, ...]
    is_kind: Callable[[Path], bool]


def check_output(path: Path, kind: OutputKind, inputs: Iterable[Path | str | None] = ()) -> None:
    """Raise UsageError for a file that cannot be written, whose suffix is of another kind, that
    holds something else already, or that is one of the inputs. An input that is a folder, as a
    release is, must not hold it either."""
    if path.suffix.lower() not in kind.suffixes:
        endings = ", ".join(kind.suffixes)
        raise UsageError(
            f"{_name(path)} cannot be the {kind.name}: its name must end in {endings}."
        )
    if is_address(str(path)):
        raise UsageError(f"The {kind.name} cannot be written to an address: name a file.")
    info = _stat(path)
    if os.path.isdir(path):
        raise UsageError(f"{_name(path)} is a directory: name the file to write.")
    folder = path.resolve().parent
    if not os.path.isdir(folder):
        raise UsageError(f"{_name(path)} cannot be written: there is no directory {folder}.")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{_name(path)} cannot be written: the directory {folder} is read-only.")
    refuse_inputs(path, inputs)
    if info is not None and os.path.exists(path) and not _is_kind(path, kind):
        raise UsageError(
            f"{_name(path)} exists and is no {kind.name}: name another file, or remove it."
        )


def check_folder(
    path: Path,
    inputs: Iterable[Path | str | None] = (),
    files: Mapping[str, OutputKind] | None = None,
) -> None:
    """Raise UsageError for a folder that cannot be made or written to, that is an input, or whose
    `files`, which will be written, are inputs or of another kind."""
    if is_address(str(path)):
        raise UsageError(TO_ADDRESS)
    _stat(path)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise UsageError(f"{_name(path)} is a file: name a folder to write to.")
    existing = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
    if not os.path.isdir(existing):
        raise UsageError(f"{_name(path)} cannot be made: {existing} is a file.")
    if not os.access(existing, os.W_OK):
        raise UsageError(f"{_name(path)} cannot be written: {existing} is read-only.")
    given = list(inputs)
    for each in given:
        if each is not None and _same(path, Path(each)):
            raise UsageError(f"{_name(path)} is an input, too: name another folder to write to.")
    for name, kind in (files or {}).items():
        if os.path.lexists(path / name):
            check_output(path / name, kind, given)


def refuse_inputs(path: Path, inputs: Iterable[Path | str | None]) -> None:
    """Raise UsageError if `path` is one of the inputs, or lies in one that is a folder. `-` is the
    file that standard output was opened on, and as an input, that of standard input. That output
    is written in place, so it must be none of the files in a folder under another name, either."""
    for each in inputs:
        if each is None:
            continue
        given = Path(each)
        if _same(path, given):
            raise UsageError(
                f"{_name(path)} is an input, too, and would be lost: name another file to write."
            )
        if os.path.isdir(given) and (_is_inside(path, given) or _is_among(path, given)):
            raise UsageError(
                f"{_name(path)} lies in {given}, which is an input: name a path outside it."
            )


def refuse_outputs(path: Path, others: Iterable[Path]) -> None:
    """Raise UsageError if `path` is another output of the same command, too, of which one would be
    lost. `-` is the file that standard output was opened on."""
    if any(_same(path, other, stream=1) for other in others):
        raise UsageError(
            f"{_name(path)} is another output, too, and one of them would be lost: name another "
            "file."
        )


def _same(path: Path, other: Path, stream: int = 0) -> bool:
    """Whether an output and another file are one: by links, other spellings, or names of the same
    folder. `-` as the other one is a standard `stream`. Devices, such as /dev/null, are not
    lost."""
    try:
        out = os.fstat(1) if str(path) == STANDARD_OUTPUT else os.stat(path)
        given = os.fstat(stream) if str(other) == STANDARD_INPUT else os.stat(other)
    except (OSError, ValueError):  # one of them is not there, and no file is lost
        return str(path) != STANDARD_OUTPUT and os.path.realpath(path) == os.path.realpath(other)
    return os.path.samestat(out, given) and (stat.S_ISREG(out.st_mode) or stat.S_ISDIR(out.st_mode))


def _is_inside(path: Path, folder: Path) -> bool:
    if str(path) == STANDARD_OUTPUT:
        path = Path("/dev/stdout")
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _is_among(path: Path, folder: Path) -> bool:
    """Whether standard output is a file in a folder: by a hard link to it, or as the target of a
    link there."""
    if str(path) != STANDARD_OUTPUT:  # a named file is replaced, and its other names stay
        return False
    return any(
        _same(path, Path(parent, name)) for parent, _, names in os.walk(folder) for name in names
    )


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{_name(path)} cannot be written: {reason(error)}.") from None


def _is_kind(path: Path, kind: OutputKind) -> bool:
    if not os.path.isfile(path):
        return False
    try:
        return os.path.getsize(path) == 0 or kind.is_kind(path)
    except VoxcloneError:
        return False


def _name(path: Path) -> str:
    return "Standard output" if str(path) == STANDARD_OUTPUT else shorten(file_name(path))


def _is_sound(path: Path) -> bool:
    from voxclone.audio.kinds import HEAD_BYTES, kind_of
    from voxclone.readers import read_head

    return kind_of(read_head(path, HEAD_BYTES)) is not None


def _is_voice(path: Path) -> bool:
    from voxclone.voice.file import read_metadata

    return bool(read_metadata(path))


def _is_export(path: Path) -> bool:
    from voxclone.readers import read_head
    from voxclone.release.safetensors import read_header

    if read_head(path, 4) == b"GGUF":
        return True
    return set(read_header(path).tensors) in ({"embedding"}, {"codes"})


def _is_preset(path: Path) -> bool:
    from voxclone.release.presets import is_preset

    return is_preset(path)


def _is_report(schema: str, path: Path) -> bool:
    """Whether a file is a report whose schema begins with `schema`."""
    from voxclone.readers import read_json

    value = read_json(path)
    found = value.get("schema") if isinstance(value, dict) else None
    return isinstance(found, str) and found.startswith(schema)


def _is_page(path: Path) -> bool:
    from voxclone.readers import read_head

    return read_head(path, len(PAGE_START)).lower() == PAGE_START


def report_of(schema: str) -> OutputKind:
    """Reports whose schema begins with `schema`."""
    return OutputKind(f"report of the kind {schema}", (".json",), partial(_is_report, schema))


SOUND = OutputKind("sound file", tuple(WRITABLE), _is_sound)
VOICE = OutputKind("voice file", (".safetensors",), _is_voice)
EXPORT = OutputKind("exported voice", (".safetensors", ".gguf"), _is_export)
PRESET = OutputKind("exported voice", (".pt",), _is_preset)
VOICE_REPORT = OutputKind(
    "report of a voice", (".json",), partial(_is_report, "voxclone.enrollment/")
)
SPEECH_REPORT = OutputKind(
    "report of `speak`", (".json",), partial(_is_report, "voxclone.speech/1")
)
PAGE = OutputKind("page of a report", (".html",), _is_page)
