"""Manifests: lists of recordings, one JSON object a line.

A line has at least `id`, `path` (relative to the manifest), `speaker` and `duration` (seconds);
`language`, `text`, `split`, `license` and `bandwidth_hz` are optional, and other keys are ignored.
`voxclone data prepare` adds `samples`: its files are mono, 24 kHz, and exactly so long.

Shapes: N clips.
"""

import codecs
import hashlib
import os
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, overload

import numpy as np
from pydantic import AliasChoices, Field

from voxclone.errors import ConfigError, file_name, shorten
from voxclone.readers import open_file, read_lines, read_text
from voxclone.records import Name, PathText, Record, Seconds, parse_line
from voxclone.spec import SAMPLING_RATE


@dataclass(frozen=True)
class Clip:
    """One recording of one speaker; `samples` is its exact length at 24 kHz, if known."""

    id: str
    path: Path
    speaker: str
    duration: float
    language: str | None = None
    text: str | None = None
    split: str = "train"
    license: str = "unknown"
    samples: int | None = None
    bandwidth_hz: float | None = None


class ManifestRow(Record):
    """A line of a manifest. `path` is relative to the manifest; `sha256` and `native_sampling_rate`
    are those of the original recording."""

    id: Name
    path: PathText
    speaker: Annotated[Name, Field(min_length=1)]
    duration: Seconds
    language: str | None = None
    text: str | None = None
    split: str | None = None
    # `licence` in manifests of version 0.1.
    license: str | None = Field(None, validation_alias=AliasChoices("license", "licence"))
    samples: int | None = Field(None, gt=0, lt=2**48)
    bandwidth_hz: float | None = Field(None, ge=0, le=1e9)
    native_sampling_rate: float | None = Field(None, gt=0, le=1e9)
    sha256: str | None = None

    def clip(self, folder: Path) -> Clip:
        """The clip, with its path relative to `folder`."""
        known = {key: getattr(self, key) for key in Clip.__dataclass_fields__}
        given = {key: value for key, value in known.items() if value is not None}
        return Clip(**(given | {"path": folder / self.path}))


def read_manifest(path: str | Path) -> list[Clip]:
    """Clips of a JSON-lines manifest, in its order. Raises ConfigError naming the bad line."""
    path = Path(path)
    clips = [row.clip(path.parent) for _, row in read_rows(path)]
    if not clips:
        raise ConfigError(f"The manifest {path} lists no clip.")
    return clips


def read_rows(
    path: Path, on_bad: Callable[[int, str, str], None] | None = None
) -> Iterator[tuple[int, ManifestRow]]:
    """The offset (bytes) and the record of each line; the file is never held in memory.

    Raises ConfigError for a manifest that cannot be read, and for a line that is no clip. With
    `on_bad`, such lines are skipped after a call `on_bad(number, reason, way_out)`.
    """
    offset = 0
    with open_file(path, ConfigError, "The manifest") as file:
        for number, line in enumerate(read_lines(file, f"The manifest {path}"), 1):
            begin, offset = offset, offset + len(line)
            if line.isspace():
                continue
            try:
                row = parse_line(ManifestRow, line)
            except ValueError as error:
                way_out = _way_out(line, error)
                if on_bad is None:
                    raise ConfigError(
                        f"Line {number} of {path} is no valid clip: {error} {way_out}".rstrip()
                    ) from None
                on_bad(number, shorten(error), way_out)
                continue
            yield begin, row


def _way_out(line: bytes, error: ValueError) -> str:
    """What to do about a line that is no clip, as sentences after the mistake."""
    if not line.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
        return (
            'A manifest has an object of JSON on each line, {"id": ..., "path": ..., "speaker": '
            '..., "duration": ...}. For a list of another kind (CSV, LJSpeech), name the folder of '
            "the recordings instead; a transcript is a .txt file beside its recording."
        )
    if "'path' is missing" in str(error):
        return "`path` is the recording, relative to the manifest."
    if "'speaker'" in str(error):
        return "Give each clip a speaker, the same for all clips of one person."
    return ""


def stable_hash(name: str) -> int:
    """A hash of 63 bits, the same in every process."""
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Manifest(Sequence[Clip]):
    """A manifest of any size: about 50 bytes a clip are in memory, and a clip is read from the file
    when it is indexed.

    `samples_N` are lengths at 24 kHz (from `duration` where there is no `samples`), `speaker_N`
    indices into `speakers`, and `id_N` hashes of ids (`stable_hash`).
    """

    def __init__(self, path: str | Path) -> None:
        """Read the manifest once. Raises ConfigError as `read_manifest` does."""
        self.path = Path(path)
        self.prepared = True
        offsets, samples, ids, files = array("q"), array("q"), array("q"), array("q")
        columns = {name: array("i") for name in ("speaker", "split", "license", "folder")}
        names: dict[str, dict[str, int]] = {name: {} for name in columns}
        for offset, row in read_rows(self.path):
            offsets.append(offset)
            self.prepared &= row.samples is not None
            samples.append(row.samples or round(row.duration * SAMPLING_RATE))
            ids.append(stable_hash(row.id))
            files.append(hash(row.path))
            values = {
                "speaker": row.speaker,
                "split": row.split or Clip.split,
                "license": row.license or Clip.license,
                "folder": _folder_of(row.path),
            }
            for name, column in columns.items():
                known = names[name]
                column.append(known.setdefault(values[name], len(known)))
        if not offsets:
            raise ConfigError(f"The manifest {self.path} lists no clip.")
        self._offsets_N = np.frombuffer(offsets, dtype=np.int64)
        self.samples_N = np.frombuffer(samples, dtype=np.int64)
        self.speaker_N = np.frombuffer(columns["speaker"], dtype=np.int32)
        self.speakers = list(names["speaker"])
        self.id_N = np.frombuffer(ids, dtype=np.int64)
        self._file_N = np.frombuffer(files, dtype=np.int64)
        self._columns = {n: np.frombuffer(c, dtype=np.int32) for n, c in columns.items()}
        self._names = names
        self._file = os.open(self.path, os.O_RDONLY)
        self._size = os.fstat(self._file).st_size

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __len__(self) -> int:
        return len(self._offsets_N)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...
    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        begin = int(self._offsets_N[index])
        end = int(self._offsets_N[index + 1]) if index + 1 < len(self) else self._size
        # `pread`, because several threads and processes may share the file.
        line = os.pread(self._file, end - begin, begin)
        try:
            return parse_line(ManifestRow, line).clip(self.path.parent)
        except ValueError:
            raise ConfigError(f"{self.path} has changed since it was opened.") from None

    @property
    def splits(self) -> list[str]:
        """Names of the splits, in the order of their first clips."""
        return list(self._names["split"])

    def select(
        self, *, split: str | None = None, licenses: Sequence[str] | None = None
    ) -> np.ndarray:
        """Indices [N] of the clips of a split, under one of these licenses."""
        keep_N = np.ones(len(self), dtype=bool)
        if split is not None:
            keep_N &= self._columns["split"] == self._names["split"].get(split, -1)
        if licenses is not None:
            codes = [self._names["license"].get(name, -1) for name in licenses]
            keep_N &= np.isin(self._columns["license"], codes)
        return np.flatnonzero(keep_N)

    def missing(self, indices_N: np.ndarray) -> np.ndarray:
        """The indices [M] of clips whose files are not there.

        Listing folders takes a tenth of the time of a look for each file: a million files in 3000
        folders take 1 s, or 3 s where the disk must be read (file by file 6 and 35 s).
        """
        listed = array("q")
        names = list(self._names["folder"])
        for folder in np.unique(self._columns["folder"][indices_N]).tolist():
            with suppress(OSError), os.scandir(self.path.parent / names[folder]) as entries:
                files = (entry.name for entry in entries if entry.is_file())
                listed.extend(hash(names[folder] + name) for name in files)
        found_N = _isin(self._file_N[indices_N], np.frombuffer(listed, dtype=np.int64))
        # A file system may find a file under another spelling than the one it lists.
        gone = [n for n in indices_N[~found_N].tolist() if not os.path.isfile(self[n].path)]
        return np.array(gone, dtype=indices_N.dtype)


def _isin(wanted_N: np.ndarray, known_M: np.ndarray) -> np.ndarray:
    """As `np.isin`, in a fifth of its memory."""
    if not len(known_M):
        return np.zeros(len(wanted_N), dtype=bool)
    sorted_M = np.sort(known_M)
    index_N = np.searchsorted(sorted_M, wanted_N)
    found_N: np.ndarray = sorted_M[np.minimum(index_N, len(sorted_M) - 1)] == wanted_N
    return found_N


def _folder_of(path: str) -> str:
    """A path up to and with its last slash."""
    return path[: path.rfind("/") + 1]


@dataclass(frozen=True)
class Item:
    """A clip of a corpus that is to be prepared: a file, or `seconds` of it from `start` on, or of
    one `channel`. With `text_beside`, its text is in the .txt file of the same name, if any."""

    id: str
    path: Path
    speaker: str
    start: float = 0.0
    seconds: float | None = None
    channel: int | None = None
    language: str | None = None
    text: str | None = None
    split: str = "train"
    license: str | None = None
    text_beside: bool = False

    @property
    def key(self) -> str:
        """Differs from that of every other item."""
        return f"{self.id}\n{file_name(self.path)}\n{self.start}\n{self.seconds}\n{self.channel}"

    def transcript(self) -> str | None:
        """Its text, or that of the file beside it."""
        text = self.path.with_suffix(".txt")
        if self.text is None and self.text_beside and os.path.isfile(text):
            return read_text(text, ConfigError, "The transcript").strip() or None
        return self.text

    def clip_path(self) -> str:
        """The path of its prepared clip: a folder for the speaker, and a unique name."""
        digest = hashlib.sha256(self.key.encode()).hexdigest()[:8]
        inner = self.id.rpartition("/")[2]
        return f"{_plain(self.speaker)}/{_plain(Path(inner).stem)}-{digest}.flac"


def _plain(name: str) -> str:
    """A name with only the characters that every file system allows."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).strip(".")[:80]
    if plain == name:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
