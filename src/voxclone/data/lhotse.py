"""lhotse's manifests: pairs of recordings and supervisions, or cut sets, as JSON lines (or .gz).

They are plain records (lhotse 1.33: `Recording`, `SupervisionSegment`, `MonoCut`), read here
without lhotse; only its recipes need it.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxclone.data.manifest import Item
from voxclone.errors import ConfigError

SUFFIXES = (".jsonl", ".jsonl.gz")
WHOLE_SECONDS = 0.05
"""A supervision covers its whole recording if it leaves out less than this."""

LANGUAGES = {
    "english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it",
    "portuguese": "pt", "dutch": "nl", "hindi": "hi", "arabic": "ar", "polish": "pl",
}  # fmt: skip


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
    first = next(_records(path), {})
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
        known = {hash(str(record.get("id"))) for path in supervisions for record in _records(path)}
    for path in cuts:
        if not known or not _is_covered(path, known):
            pairs[path] = ManifestPair(path, None, split_of(path.name))
    return [pairs[path] for path in files if path in pairs]


def manifests_of(path: Path) -> list[ManifestPair]:
    """A cut set, or the pair that one of two files belongs to."""
    first = next(_records(path))
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
        known = {}
        if pair.supervisions is not None:
            known = {record.get("id"): record for record in _records(pair.recordings)}
        for number, record in enumerate(_records(source), 1):
            try:
                if pair.supervisions is None:
                    yield from _cut_items(record, pair.split)
                else:
                    yield _item(record, known[record["recording_id"]], 0.0, pair.split)
            except (KeyError, TypeError, IndexError, ValueError) as error:
                if isinstance(error, ConfigError):
                    raise
                raise ConfigError(
                    f"Record {number} of {source} cannot be used: {error!r}."
                ) from None


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
        ids = (str(each.get("id")) for cut in _records(cuts) for each in cut["supervisions"])
        return all(hash(name) in known for name in ids)
    except (KeyError, TypeError, AttributeError):
        return False


def _cut_items(cut: dict[str, Any], split: str) -> Iterator[Item]:
    if "recording" not in cut:
        raise ConfigError(
            f"The cut {cut.get('id')!r} is of the type {cut.get('type')!r}; cuts of one recording "
            "(MonoCut, MultiCut) can be read."
        )
    for supervision in cut["supervisions"]:
        yield _item(supervision, cut["recording"], cut["start"], split)


def _item(
    supervision: dict[str, Any], recording: dict[str, Any], offset: float, split: str
) -> Item:
    """`offset` is where the supervision's own time begins in the recording (seconds)."""
    sources = [source for source in recording["sources"] if source["type"] == "file"]
    if not sources or recording.get("transforms"):
        raise ConfigError(
            f"The recording {recording['id']!r} is not a file as it is (its sources are "
            f"{[source['type'] for source in recording['sources']]}): save it as one first."
        )
    if supervision.get("speaker") is None:
        raise ConfigError(f"The supervision {supervision['id']!r} names no speaker.")
    start = max(0.0, offset + float(supervision["start"]))
    seconds: float | None = float(supervision["duration"])
    channel = supervision.get("channel", 0)
    channel = channel[0] if isinstance(channel, list) else channel
    source = next(s for s in sources if channel in s["channels"])
    alone = len(source["channels"]) == 1
    left_out = float(recording["duration"]) - float(supervision["duration"])
    if alone and start < WHOLE_SECONDS and left_out < WHOLE_SECONDS:
        start, seconds = 0.0, None
    language = supervision.get("language")
    return Item(
        str(supervision["id"]),
        Path(source["source"]).absolute(),
        str(supervision["speaker"]),
        start,
        seconds,
        None if alone else source["channels"].index(channel),
        LANGUAGES.get(language.lower(), language) if language else None,
        supervision.get("text") or None,
        split,
    )


def _records(path: Path) -> Iterator[dict[str, Any]]:
    opened = gzip.open if path.name.endswith(".gz") else open
    number = 0
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for line in file:
                number += 1
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise ValueError("it is no object")
                    yield record
    except (OSError, EOFError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read after line {number}: {error}.") from None
