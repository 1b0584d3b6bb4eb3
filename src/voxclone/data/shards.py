"""Work that several machines share through one folder, and the check that all of it is there."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from voxclone.errors import ConfigError, UsageError, os_errors
from voxclone.io import atomic_file
from voxclone.readers import read_json
from voxclone.records import Record, parse_record

FOLDER = "shards"


@dataclass(frozen=True)
class Shard:
    """Machine `index` of `count`: it makes every `count`-th file, from number `index` on."""

    index: int = 0
    count: int = 1

    def has(self, number: int) -> bool:
        """Whether the file of this number is made by this machine."""
        return number % self.count == self.index


ALONE = Shard()


class ShardFile(Record):
    """What a shard has left when it ended: `files` is the number of all shards' files (0 where
    that is not known), `minutes` what all shards together were asked for (0 for recordings)."""

    count: int
    files: int
    minutes: float = 0.0


def parse_shard(text: str) -> Shard:
    """`I/N` with I below N. Raises UsageError."""
    index, separator, count = text.partition("/")
    if not (separator and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise UsageError(f"--shard takes I/N with I below N, such as 0/4, not {text!r}.")
    return Shard(int(index), int(count))


def note_end(folder: Path, shard: Shard, files: int, minutes: float = 0.0) -> None:
    """Note that a shard has ended."""
    path = folder / FOLDER / f"{shard.index}.json"
    with os_errors(f"{path} cannot be written", ConfigError):
        path.parent.mkdir(exist_ok=True)
        with atomic_file(path) as file:
            noted = {"count": shard.count, "files": files, "minutes": minutes}
            file.write(json.dumps(noted).encode())


def require_all(folder: Path) -> int:
    """The number of files of all shards. Raises ConfigError unless all have ended, and agree."""
    found = dict(_ended(folder))
    if not found:
        raise ConfigError(f"{folder} has no shard that ended: run them with `--shard I/N` first.")
    if len({(each.count, each.files, each.minutes) for each in found.values()}) > 1:
        raise ConfigError(
            f"The shards in {folder} are of other numbers of shards, minutes or inputs: remove "
            f"{folder / FOLDER}, and run all of them again; what was made is kept."
        )
    count, files = next((each.count, each.files) for each in found.values())
    missing = [f"{index}/{count}" for index in range(count) if index not in found]
    if missing:
        raise ConfigError(
            f"Of {count} shards in {folder}, these have not ended: {', '.join(missing[:8])}. Run "
            "them again; they continue where they stopped."
        )
    return files


def _ended(folder: Path) -> Iterator[tuple[int, ShardFile]]:
    for path in sorted((folder / FOLDER).glob("*.json")):
        if path.stem.isdigit():
            yield int(path.stem), parse_record(ShardFile, read_json(path), str(path))
