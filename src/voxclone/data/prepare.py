"""From a corpus to a folder: clean clips, a manifest of them, and a report of dropped clips.

    OUT/prepare.json    sources and settings; a folder is continued only with the same
    OUT/parts/          results for `PART` items each; a part is written after its clips
    OUT/audio/          the clips: FLAC, 16 bits, mono, 24 kHz
    OUT/manifest.jsonl  written last, from all parts; `train encoder` reads it
    OUT/report.json     counts by rule

After an interruption, the same call continues with the first missing part.
"""

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice, starmap
from pathlib import Path
from typing import Any

from voxclone.audio.writing import write_wave
from voxclone.data.clean import CleanSettings, Dropped, clean
from voxclone.data.manifest import Item
from voxclone.data.prepare_report import SCHEMA, part_file, read_part, write_manifest
from voxclone.data.recipes import check_corpus, recipe_source
from voxclone.data.shards import Shard, note_end, require_all
from voxclone.data.sources import join_sources, open_source
from voxclone.errors import ConfigError, VoxcloneError, file_name, os_errors, printable
from voxclone.io import atomic_file
from voxclone.readers import read_json

PART = 64  # items
REQUEST = "prepare.json"


@dataclass(frozen=True)
class Sources:
    """Where speech is read from; options of `data prepare`. `corpus` names a recipe of lhotse's,
    `speaker_pattern` finds the speaker in a path (`sources.open_source`)."""

    paths: tuple[Path, ...]
    corpus: str | None = None
    speaker_pattern: str | None = None
    license: str | None = None


def prepare_sources(
    sources: Sources,
    out: Path,
    settings: CleanSettings,
    *,
    jobs: int = 1,
    shard: Shard | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any] | None:
    """Clean all clips of the sources into the folder `out`, in `jobs` processes. `progress` gets
    the clips that were just done, and those of all sources. Returns the report; with a `shard`,
    only its parts are made, and None is returned: `merge` writes manifest and report.

    Raises what `open_source`, `open_folder` and `prepare` do; a source that cannot be read leaves
    no folder.
    """
    corpus, total = sources.corpus, 0
    if corpus is None:
        items = join_sources([open_source(path, sources.speaker_pattern) for path in sources.paths])
        total = sum(1 for _ in items())
    else:
        check_corpus(corpus, sources.paths)
    request = {
        "sources": [file_name(path.resolve()) for path in sources.paths],
        "corpus": corpus,
        "speaker_pattern": sources.speaker_pattern,
        "license": sources.license,
        "settings": settings.model_dump(mode="json"),
    }
    open_folder(out, request)
    if corpus is not None:
        items = join_sources(
            [
                recipe_source(corpus, path, out / "lhotse" / str(number))
                for number, path in enumerate(sources.paths)
            ]
        )
        total = sum(1 for _ in items())
    progress(0, total)
    return prepare(
        items(),
        out,
        settings,
        license=sources.license,
        jobs=jobs,
        shard=shard,
        progress=lambda done: progress(done, total),
    )


def open_folder(out: Path, request: dict[str, Any]) -> None:
    """Make the folder `out`, or find the same preparation in it. Raises ConfigError for a folder
    with anything else in it."""
    request = json.loads(json.dumps({"schema": SCHEMA} | request))
    path = out / REQUEST
    if path.exists():
        before = read_json(path)
        if not isinstance(before, dict):
            raise ConfigError(f"{path} is no file of `voxclone data prepare`: name a new folder.")
        other = [key for key in request | before if request.get(key) != before.get(key)]
        if other:
            raise ConfigError(
                f"{out} was begun with another {' and another '.join(other)}: name a new folder."
            )
        return
    # Another shard may be making the same folder at this moment.
    known = ("parts", REQUEST)
    if out.exists() and (
        not out.is_dir()
        or any(each.name not in known and each.suffix != ".tmp" for each in out.iterdir())
    ):
        raise ConfigError(f"{out} holds something else already: name a new folder.")
    with os_errors(f"{out} cannot be written", ConfigError):
        (out / "parts").mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(json.dumps(request, indent=1).encode())


def prepare(
    items: Iterable[Item],
    out: Path,
    settings: CleanSettings,
    *,
    license: str | None = None,
    jobs: int = 1,
    shard: Shard | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any] | None:
    """Clean all items into a folder of `open_folder`, in `jobs` processes, and write its manifest.
    `progress` gets the number of items after each part. Returns the report; with a `shard`, its
    parts alone are made, and there is none.

    Raises ConfigError if no clip is left, and AudioError if clips cannot be written.
    """
    work = partial(_clean_part, out=out, settings=settings, license=license)
    stream, total = iter(items), 0

    def own_parts() -> Iterator[tuple[int, list[Item]]]:
        nonlocal total
        for number, part in enumerate(iter(lambda: list(islice(stream, PART)), [])):
            total += len(part)
            if shard is None or shard.has(number):
                yield number, part

    parts = own_parts()
    each_done = starmap(work, parts) if jobs == 1 else _in_processes(parts, work, jobs)
    for done in each_done:
        progress(done)
    if shard is not None:
        note_end(out, shard, -(-total // PART))
        return None
    return write_manifest(out, -(-total // PART))


def merge(out: Path) -> dict[str, Any]:
    """Write the manifest of a folder whose shards have all ended, as a call without shards does;
    returns the report. Raises ConfigError if a shard or a part is missing."""
    parts = require_all(out)
    for number in range(parts):
        if not (part_file(out, number)).is_file():
            raise ConfigError(
                f"{out} has lost the results of part {number}: run the shard that makes it again "
                "(its number is the remainder by the number of shards)."
            )
    return write_manifest(out, parts)


def _in_processes(
    parts: Iterable[tuple[int, list[Item]]], work: Callable[[int, list[Item]], int], jobs: int
) -> Iterator[int]:
    """The results of `work` on all parts, as they are done."""
    context = multiprocessing.get_context("spawn")
    running: set[Future[int]] = set()
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        try:
            for number, part in parts:
                running.add(pool.submit(work, number, part))
                if len(running) >= 4 * jobs:  # so that all items are never in memory
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (each.result() for each in done)
            yield from (each.result() for each in running)
        except BrokenProcessPool:
            raise VoxcloneError(
                "A process was killed, perhaps for lack of memory: repeat the command with fewer "
                "--jobs; it continues there."
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _clean_part(
    number: int, items: list[Item], out: Path, settings: CleanSettings, license: str | None
) -> int:
    """Clean the items of a part, unless it is there; returns their number."""
    path = part_file(out, number)
    identity = hashlib.sha256("\n\n".join(item.key for item in items).encode()).hexdigest()
    if path.exists() and next(read_part(path), {}).get("identity") == identity:
        return len(items)
    rows: list[dict[str, Any]] = [{"identity": identity}]
    for item in items:
        found = clean(item, settings)
        if isinstance(found, Dropped):
            rows.append({"id": item.id, "dropped": found.rule, "why": printable(found.why)})
            continue
        path_in = f"audio/{item.clip_path()}"
        (out / path_in).parent.mkdir(parents=True, exist_ok=True)
        write_wave(out / path_in, found.wave_S)
        values = {
            "id": item.id,
            "path": path_in,
            "speaker": item.speaker,
            "language": item.language,
            "text": item.transcript(),
            "split": item.split,
            "license": license or item.license,
            "source": file_name(item.path),
        }
        rows.append({k: v for k, v in values.items() if v is not None} | found.facts)
    with atomic_file(path) as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return len(items)
