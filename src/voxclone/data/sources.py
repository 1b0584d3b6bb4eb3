"""Where speech comes from: folders of sound files, manifests of ours, manifests of lhotse.

Every source becomes a stream of `Item`s in an order that does not change, so that a preparation
that was interrupted finds its place again.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from voxclone.audio.files import SOUND_SUFFIXES
from voxclone.data import lhotse
from voxclone.data.manifest import Item, Manifest
from voxclone.errors import ConfigError, UsageError


@dataclass(frozen=True)
class Source:
    """Items, as often as they are asked for; `name` tells sources apart."""

    name: str
    items: Callable[[], Iterator[Item]]


def open_source(path: Path, speaker_rule: str | None = None) -> Source:
    """A folder of sound files, a folder or file of lhotse's manifests, or a manifest of ours.

    `speaker_rule` is a regular expression that finds the speaker (its first group) in the path of a
    sound file below the folder; without one it is the folder that the file lies in. Raises
    ConfigError for what is none of these, UsageError for a bad rule.
    """
    path = path.resolve()
    if path.is_dir():
        pairs = lhotse.manifests_in(path)
        if pairs:
            return Source(path.name, lambda: lhotse.items_of(pairs))
        rule = _compiled(speaker_rule)
        return Source(path.name, lambda: _folder_items(path, rule))
    if not path.is_file():
        raise ConfigError(f"There is no folder or manifest {path}.")
    if lhotse.is_manifest(path):
        pairs = lhotse.manifests_of(path)
        return Source(path.name.split(".")[0], lambda: lhotse.items_of(pairs))
    return Source(path.parent.name, lambda: _manifest_items(path))


def joined(sources: list[Source]) -> Callable[[], Iterator[Item]]:
    """The items of all sources. Of several, clips and speakers carry the name of their source, so
    that the speakers 1 of two corpora stay two."""
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


def _compiled(rule: str | None) -> "re.Pattern[str] | None":
    if rule is None:
        return None
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise UsageError(f"--speaker {rule!r} is no valid regular expression: {error}.") from None
    if not pattern.groups:
        raise UsageError(
            f"--speaker {rule!r} has no group: put the part that names the speaker in brackets, "
            "such as '^([^/]+)/'."
        )
    return pattern


def _folder_items(root: Path, rule: "re.Pattern[str] | None") -> Iterator[Item]:
    for inner in _sound_files(root, ""):
        folder, _, name = inner.rpartition("/")
        speaker = folder or root.name
        if rule is not None:
            found = rule.search(inner)
            speaker = (found.group(1) if found else None) or ""
            if not speaker:
                raise UsageError(
                    f"--speaker {rule.pattern!r} finds no speaker in {inner!r} (the path below "
                    f"{root})."
                )
        yield Item(inner, root / folder / name, speaker, beside=True)


def _sound_files(root: Path, inner: str) -> Iterator[str]:
    """Paths below `root`, folder by folder, in order of their names; hidden ones left out."""
    with os.scandir(root / inner) as found:
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
            licence=clip.licence,
        )
