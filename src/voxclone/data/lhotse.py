"""lhotse's manifests: pairs of recordings and supervisions, or cut sets, as JSON lines (or .gz).

They are plain records (lhotse 1.33: `Recording`, `SupervisionSegment`, `MonoCut`), read here
without lhotse; only its recipes need it.
"""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from voxclone.data.manifest import Item
from voxclone.errors import ConfigError
from voxclone.readers import open_file, parse_json, read_lines
from voxclone.records import Name, PathText, Record, Seconds, parse_record

RecordT = TypeVar("RecordT", bound=Record)

SUFFIXES = (".jsonl", ".jsonl.gz")
WHOLE_SECONDS = 0.05
"""A supervision covers its whole recording if it leaves out less than this."""

LANGUAGES = {
    "english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it",
    "portuguese": "pt", "dutch": "nl", "hindi": "hi", "arabic": "ar", "polish": "pl",
}  # fmt: skip


class Source(Record):
    """A source of a recording; only files can be read."""

    type: str
    source: PathText
    channels: list[int]


class Recording(Record):
    """A recording; `transforms` of it are not applied here."""

    id: Name
    duration: Seconds
    sources: list[Source]
    transforms: list[Any] | None = None


class Supervision(Record):
    """A segment of a recording with its speaker; `recording_id` is not needed within a cut."""

    id: Name
    recording_id: Name | None = None
    start: float = Field(ge=-1e8, le=1e8)
    duration: Seconds
    channel: int | list[int] = 0
    text: str | None = None
    language: str | None = None
    speaker: Name | None = None


class Cut(Record):
    """A cut, which has no `recording` where it is mixed of several."""

    id: Name
    type: str | None = None
    start: Seconds = 0.0
    supervisions: list[Supervision] = Field(default_factory=list)
    recording: Recording | None = None


@dataclass(frozen=True)
class ManifestPair:
    """Two files, or a cut set alone (`supervisions` is None); `split` comes from their names."""

    recordings: Path
    supervisions: Path | None
    split: str


def is_manifest(path: Path) -> bool:
    """Whether a file is one of lhotse's, by its name and its first record."""
    if not path.name.endswith(SUFFIXES):
        return False
    try:
        first = next(_records(path), {})
    except ConfigError:
        if path.suffix == ".jsonl":  # a list of another kind: the manifest's reader says what to do
            return False
        raise
    cut = "supervisions" in first and "start" in first
    return cut or "sources" in first or "recording_id" in first


def manifests_in(folder: Path) -> list[ManifestPair]:
    """The pairs in a folder, and the cut sets with supervisions that no pair has; none if it is no
    folder of lhotse's."""
    files = sorted(p for p in folder.iterdir() if p.name.endswith(SUFFIXES))
    pairs = {path: _pair(path) for path in files if "recordings" in path.name}
    cuts = [path for path in files if "cuts" in path.name and path not in pairs]
    known = set[int]()
    if cuts:
        supervisions = (p.supervisions for p in pairs.values() if p.supervisions is not None)
        known = {hash(each.id) for path in supervisions for _, each in _typed(path, Supervision)}
    for path in cuts:
        if not known or not _is_covered(path, known):
            pairs[path] = ManifestPair(path, None, split_of(path.name))
    return [pairs[path] for path in files if path in pairs]


def manifests_of(path: Path) -> list[ManifestPair]:
    """A cut set, or the pair that one of two files belongs to."""
    first = next(_records(path), {})
    if "supervisions" in first and "start" in first:
        return [ManifestPair(path, None, split_of(path.name))]
    if "recording_id" in first:
        return [_pair(path.with_name(path.name.replace("supervisions", "recordings")))]
    return [_pair(path)]


def split_of(name: str) -> str:
    """The split that the name of a file or of a part of a corpus states; `train` if none."""
    words = name.lower().replace("-", "_").split(".")[0].split("_")
    if {"dev", "valid", "validation", "val"} & set(words):
        return "valid"
    return "test" if "test" in words else "train"


def items_of(pairs: list[ManifestPair]) -> Iterator[Item]:
    """Items of all pairs, one for each supervision of one speaker. Raises ConfigError for records
    that cannot be used."""
    for pair in pairs:
        source = pair.recordings if pair.supervisions is None else pair.supervisions
        if pair.supervisions is None:
            for number, cut in _typed(source, Cut):
                yield from _cut_items(cut, pair.split, f"Record {number} of {source}")
            continue
        known = {recording.id: recording for _, recording in _typed(pair.recordings, Recording)}
        for number, supervision in _typed(source, Supervision):
            where = f"Record {number} of {source}"
            if supervision.recording_id not in known:
                raise ConfigError(
                    f"{where} names the recording {supervision.recording_id!r}, which is not in "
                    f"{pair.recordings}."
                )
            recording = known[supervision.recording_id]
            yield _item(supervision, recording, 0.0, pair.split, where)


def _pair(recordings: Path) -> ManifestPair:
    supervisions = recordings.with_name(recordings.name.replace("recordings", "supervisions"))
    if supervisions == recordings or not supervisions.is_file() or not recordings.is_file():
        raise ConfigError(
            f"{recordings} has no supervisions beside it (expected {supervisions.name}), so "
            "its speakers are unknown."
        )
    return ManifestPair(recordings, supervisions, split_of(recordings.name))


def _is_covered(cuts: Path, known: set[int]) -> bool:
    """Whether the hashed ids of all supervisions of a cut set are `known`. Not so for unusable
    cuts: reading them raises the error."""
    try:
        return all(
            cut.recording is not None and all(hash(each.id) in known for each in cut.supervisions)
            for _, cut in _typed(cuts, Cut)
        )
    except ConfigError:
        return False


def _cut_items(cut: Cut, split: str, where: str) -> Iterator[Item]:
    if cut.recording is None:
        raise ConfigError(
            f"{where}: the cut {cut.id!r} is of the type {cut.type!r}; cuts of one recording "
            "(MonoCut, MultiCut) can be read."
        )
    for supervision in cut.supervisions:
        yield _item(supervision, cut.recording, cut.start, split, where)


def _item(
    supervision: Supervision, recording: Recording, offset: float, split: str, where: str
) -> Item:
    """`offset` is where the supervision's own time begins in the recording (seconds)."""
    sources = [source for source in recording.sources if source.type == "file"]
    if not sources or recording.transforms:
        raise ConfigError(
            f"{where}: the recording {recording.id!r} is not a file as it is (its sources are "
            f"{[source.type for source in recording.sources]}): save it as one first."
        )
    if supervision.speaker is None:
        raise ConfigError(f"{where}: the supervision {supervision.id!r} names no speaker.")
    start = max(0.0, offset + supervision.start)
    seconds: float | None = supervision.duration
    listed = supervision.channel if isinstance(supervision.channel, list) else [supervision.channel]
    found = [source for source in sources if listed and listed[0] in source.channels]
    if not found:
        raise ConfigError(f"{where}: no file of {recording.id!r} has the channel {listed[:1]}.")
    source, channel = found[0], listed[0]
    alone = len(source.channels) == 1
    left_out = recording.duration - supervision.duration
    if alone and start < WHOLE_SECONDS and left_out < WHOLE_SECONDS:
        start, seconds = 0.0, None
    language = supervision.language
    return Item(
        supervision.id,
        Path(source.source).absolute(),
        supervision.speaker,
        start,
        seconds,
        None if alone else source.channels.index(channel),
        LANGUAGES.get(language.lower(), language) if language else None,
        supervision.text or None,
        split,
    )


def _typed(path: Path, kind: type[RecordT]) -> Iterator[tuple[int, RecordT]]:
    """The records of a file, by their numbers. Raises ConfigError for one that is none."""
    for number, record in enumerate(_records(path), 1):
        yield number, parse_record(kind, record, f"record {number} of {path}")


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with open_file(path) as opened:
            zipped = path.name.endswith(".gz")
            file: Any = gzip.GzipFile(fileobj=opened) if zipped else opened
            for number, line in enumerate(read_lines(file, str(path)), 1):
                if line.strip():
                    record = parse_json(line, f"Line {number} of {path}")
                    if not isinstance(record, dict):
                        raise ConfigError(f"Line {number} of {path} is no object.")
                    yield record
    except (EOFError, zlib.error) as error:
        raise ConfigError(f"{path} is a damaged gzip file: {error}.") from None
