"""Sources of speech: folders of sound files, our manifests, lhotse's manifests.

Every source is a stream of `Item`s in a fixed order, so that an interrupted preparation can go on.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from voxclone.audio.kinds import SOUND_SUFFIXES
from voxclone.data import lhotse
from voxclone.data.manifest import Item, Manifest
from voxclone.errors import (
    ConfigError,
    UsageError,
    file_name,
    os_errors,
    shorten,
)
from voxclone.readers import require_local


@dataclass(frozen=True)
class SpeechSource:
    """A corpus by name; `items` begins a new pass over it."""

    name: str
    items: Callable[[], Iterator[Item]]


def open_source(path: Path, speaker_pattern: str | None = None) -> SpeechSource:
    """A folder of sound files, a folder or file of lhotse's manifests, or one of our manifests.

    `speaker_pattern` is a regular expression; its first group is the speaker in the path of a sound
    file below the folder. Without one, the speaker is the file's folder. Raises ConfigError for
    anything else, UsageError for a bad pattern.
    """
    require_local(path, ConfigError, "files")
    if not os.path.exists(path):
        raise ConfigError(f"There is no folder or manifest {shorten(path)}.")
    if not (os.path.isdir(path) or os.path.isfile(path)):
        raise ConfigError(
            f"{path} is neither a folder nor an ordinary file, such as a manifest: write what it "
            "gives to one, and name that."
        )
    path = path.resolve()
    if os.path.isdir(path):
        pairs = lhotse.manifests_in(path)
        if pairs:
            return SpeechSource(path.name, lambda: lhotse.items_of(pairs))
        pattern = _compiled(speaker_pattern)
        return SpeechSource(path.name, lambda: _folder_items(path, pattern))
    if lhotse.is_manifest(path):
        pairs = lhotse.manifests_of(path)
        return SpeechSource(path.name.split(".")[0], lambda: lhotse.items_of(pairs))
    return SpeechSource(path.parent.name, lambda: _manifest_items(path))


def join_sources(sources: list[SpeechSource]) -> Callable[[], Iterator[Item]]:
    """The items of all sources. With several, the names of sources stand before those of clips and
    speakers, so that speaker 1 of two corpora are two."""
    if len(sources) == 1:
        return sources[0].items
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        names = [f"{name}-{number}" for number, name in enumerate(names, 1)]

    def items() -> Iterator[Item]:
        for name, source in zip(names, sources, strict=True):
            for item in source.items():
                yield replace(item, id=f"{name}/{item.id}", speaker=f"{name}/{item.speaker}")

    return items


def _compiled(text: str | None) -> "re.Pattern[str] | None":
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(
            f"--speaker-pattern {text!r} is no valid regular expression: {error}."
        ) from None
    if not pattern.groups:
        raise UsageError(
            f"--speaker-pattern {text!r} has no group: put the part that names the speaker in "
            "brackets, such as '^([^/]+)/'."
        )
    return pattern


def _folder_items(root: Path, pattern: "re.Pattern[str] | None") -> Iterator[Item]:
    for inner in _sound_files(root, ""):
        folder, _, name = inner.rpartition("/")
        speaker = folder or root.name
        if pattern is not None:
            found = pattern.search(inner)
            speaker = (found.group(1) if found else None) or ""
            if not speaker:
                raise UsageError(
                    f"--speaker-pattern {pattern.pattern!r} finds no speaker in {inner!r} (the "
                    f"path below {root})."
                )
        path = root / folder / name
        yield Item(file_name(inner), path, file_name(speaker), text_beside=True)


def unread_files(path: Path) -> Counter[str]:
    """How many files below a folder of sound files are neither sounds nor transcripts, by their
    suffixes; empty for a source of another kind."""
    if not os.path.isdir(path) or lhotse.manifests_in(path):
        return Counter()
    read = (*SOUND_SUFFIXES, ".txt")
    suffixes = (
        os.path.splitext(name)[1].lower() or "no suffix"
        for _, _, names in os.walk(path)
        for name in names
        if not name.startswith(".")
    )
    return Counter(suffix for suffix in suffixes if suffix not in read)


def _sound_files(root: Path, inner: str) -> Iterator[str]:
    """Paths below `root`, folder by folder, in order of their names, without hidden ones."""
    with (
        os_errors(f"{root / inner} cannot be listed", ConfigError),
        os.scandir(root / inner) as found,
    ):
        entries = sorted(
            (entry for entry in found if not entry.name.startswith(".")), key=lambda e: e.name
        )
    for entry in entries:
        path = f"{inner}/{entry.name}" if inner else entry.name
        if entry.is_dir():
            yield from _sound_files(root, path)
        elif os.path.splitext(entry.name)[1].lower() in SOUND_SUFFIXES:
            yield path


def _manifest_items(path: Path) -> Iterator[Item]:
    for clip in Manifest(path):
        yield Item(
            clip.id,
            clip.path,
            clip.speaker,
            language=clip.language,
            text=clip.text,
            split=clip.split,
            license=clip.license,
        )
