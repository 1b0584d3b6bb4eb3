"""A corpus becomes a folder: clean clips, a manifest of them, and a report of what was left out.

    OUT/prepare.json    what was asked for; a folder goes on only with the same
    OUT/parts/          what became of each run of items; a part is written when its clips are
    OUT/audio/          the clips: FLAC, 16 bits, mono, 24 kHz
    OUT/manifest.jsonl  written last, of all parts together; `train encoder` reads it
    OUT/report.json     counts by rule

A run that is interrupted at any moment goes on with the next part that is not there.
"""

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from voxclone.audio.files import write_wave
from voxclone.data.clean import RULES, CleanSettings, Dropped, clean
from voxclone.data.manifest import Item
from voxclone.errors import ConfigError, VoxcloneError
from voxclone.io import atomic_file

SCHEMA = "voxclone.prepared/1"
PART = 64  # items
EXAMPLES = 5
MANIFEST, REPORT, ASKED = "manifest.jsonl", "report.json", "prepare.json"


def begin(out: Path, asked: dict[str, Any]) -> None:
    """Make the folder `out`, or find the same preparation begun in it. Raises ConfigError for a
    folder that holds anything else."""
    asked = json.loads(json.dumps({"schema": SCHEMA} | asked))
    path = out / ASKED
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read: {error}.") from None
        other = [key for key in asked | before if asked.get(key) != before.get(key)]
        if other:
            raise ConfigError(
                f"{out} was begun with another {' and another '.join(other)}: name a new folder."
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} holds something else already: name a new folder.")
    try:
        (out / "parts").mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(json.dumps(asked, indent=1).encode())
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}.") from None


def prepare(
    items: Iterable[Item],
    out: Path,
    settings: CleanSettings,
    *,
    licence: str | None = None,
    jobs: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Clean all items into a folder that `begin` made, by `jobs` processes, and write its manifest.
    `progress` is told how many items were added. Returns the report.

    Raises ConfigError if no clip is left, and AudioError if clips cannot be written.
    """
    count = 0

    def parts() -> Iterator[tuple[int, list[Item]]]:
        nonlocal count
        stream = iter(items)
        while part := list(islice(stream, PART)):
            yield count, part
            count += 1

    if jobs == 1:
        for number, part in parts():
            progress(_clean_part(number, part, out, settings, licence))
    else:
        _in_processes(parts(), out, settings, licence, jobs, progress)
    return _gather(out, count)


def _in_processes(
    parts: Iterable[tuple[int, list[Item]]],
    out: Path,
    settings: CleanSettings,
    licence: str | None,
    jobs: int,
    progress: Callable[[int], None],
) -> None:
    context = multiprocessing.get_context("spawn")
    running: set[Future[int]] = set()
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        try:
            for number, part in parts:
                running.add(pool.submit(_clean_part, number, part, out, settings, licence))
                if len(running) >= 4 * jobs:  # so that the list of items need not be held
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    progress(sum(each.result() for each in done))
            progress(sum(each.result() for each in running))
        except BrokenProcessPool:
            raise VoxcloneError(
                "A process was killed, perhaps for lack of memory: run the same command with fewer "
                "--jobs, it goes on where it stopped."
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _clean_part(
    number: int, items: list[Item], out: Path, settings: CleanSettings, licence: str | None
) -> int:
    """Clean a run of items, unless that was done before; returns how many they are."""
    path = out / "parts" / f"{number:06d}.jsonl"
    identity = hashlib.sha256("\n\n".join(item.place for item in items).encode()).hexdigest()
    if path.exists() and next(_lines(path)).get("identity") == identity:
        return len(items)
    rows: list[dict[str, Any]] = [{"identity": identity}]
    for item in items:
        found = clean(item, settings)
        if isinstance(found, Dropped):
            rows.append({"id": item.id, "dropped": found.rule, "why": found.why})
            continue
        place = f"audio/{item.file_name()}"
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        write_wave(out / place, found.wave_S)
        said = {
            "id": item.id,
            "path": place,
            "speaker": item.speaker,
            "language": item.language,
            "text": item.said(),
            "split": item.split,
            "licence": licence or item.licence,
            "source": str(item.path),
        }
        rows.append({k: v for k, v in said.items() if v is not None} | found.facts)
    with atomic_file(path) as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return len(items)


@dataclass
class _Tally:
    """Counts over all parts; by rule how many were dropped, and the first reasons."""

    clips: int = 0
    seconds: float = 0.0
    narrow: int = 0
    narrow_seconds: float = 0.0
    speakers: set[str] = field(default_factory=set)
    dropped: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)

    def keep(self, row: dict[str, Any]) -> None:
        self.clips += 1
        self.seconds += row["duration"]
        self.speakers.add(row["speaker"])
        if row.get("narrow"):
            self.narrow += 1
            self.narrow_seconds += row["duration"]

    def drop(self, rule: str, why: str) -> None:
        self.dropped[rule] = self.dropped.get(rule, 0) + 1
        if self.dropped[rule] <= EXAMPLES:
            self.first.setdefault(rule, []).append(why)

    def report(self) -> dict[str, Any]:
        order = [rule for rule in RULES if rule in self.dropped]
        return {
            "schema": SCHEMA,
            "clips": self.clips,
            "hours": self.seconds / 3600,
            "speakers": len(self.speakers),
            "narrow": {"clips": self.narrow, "hours": self.narrow_seconds / 3600},
            "dropped": {r: {"clips": self.dropped[r], "first": self.first[r]} for r in order},
        }


def _gather(out: Path, parts: int) -> dict[str, Any]:
    """The manifest of all parts, without the second of two equal recordings, and the report. Raises
    ConfigError if files of clips have gone; their parts are then made anew."""
    tally, gone = _Tally(), dict[Path, str]()
    contents, ids, paths = set[int](), set[int](), set[int]()
    with atomic_file(out / MANIFEST) as file:
        for number in range(parts):
            part = out / "parts" / f"{number:06d}.jsonl"
            for row in _lines(part):
                if "identity" in row:
                    continue
                if "dropped" in row:
                    tally.drop(row["dropped"], row["why"])
                    continue
                content, name = int(row["sha256"][:16], 16), hash(row["id"])
                if content in contents or name in ids:
                    same = "recording" if content in contents else "id"
                    tally.drop("duplicate", f"{row['source']}: the same {same} was there before.")
                    # An item that is listed twice has one file, which the first of them keeps.
                    if hash(row["path"]) not in paths:
                        (out / row["path"]).unlink(missing_ok=True)
                    continue
                contents.add(content)
                ids.add(name)
                paths.add(hash(row["path"]))
                if not (out / row["path"]).is_file():
                    gone.setdefault(part, row["path"])
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
                tally.keep(row)
        if gone:
            for part in gone:
                part.unlink()
            raise ConfigError(
                f"{out} has lost files of its clips, such as {next(iter(gone.values()))}: run the "
                "same command again, which makes them anew."
            )
        if not tally.clips:
            counts = ", ".join(f"{rule}: {count}" for rule, count in tally.dropped.items())
            first = next((why[0] for why in tally.first.values()), "there is no sound file.")
            raise ConfigError(f"No clip is left ({counts or 'none was there'}); first: {first}")
    with atomic_file(out / REPORT) as file:
        file.write(json.dumps(tally.report(), indent=1, ensure_ascii=False).encode())
    return tally.report()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
