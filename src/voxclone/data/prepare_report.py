"""The manifest and the report of a prepared folder (`prepare`), from the results of all parts."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxclone.data.clean import RULES
from voxclone.errors import ConfigError
from voxclone.io import atomic_file
from voxclone.readers import open_file, parse_json, read_lines

SCHEMA = "voxclone.prepared/2"
MAX_EXAMPLES = 5
MANIFEST, REPORT = "manifest.jsonl", "report.json"


def part_file(out: Path, number: int) -> Path:
    """The file with the results of a part."""
    return out / "parts" / f"{number:06d}.jsonl"


@dataclass
class Counts:
    """Sums over all parts; for each rule the number of dropped clips, and the first reasons."""

    clips: int = 0
    seconds: float = 0.0
    narrow: int = 0
    narrow_seconds: float = 0.0
    speakers: set[str] = field(default_factory=set)
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def keep(self, row: dict[str, Any]) -> None:
        self.clips += 1
        self.seconds += row["duration"]
        self.speakers.add(row["speaker"])
        if row.get("narrow"):
            self.narrow += 1
            self.narrow_seconds += row["duration"]

    def drop(self, rule: str, why: str) -> None:
        self.dropped[rule] = self.dropped.get(rule, 0) + 1
        if self.dropped[rule] <= MAX_EXAMPLES:
            self.examples.setdefault(rule, []).append(why)

    def report(self) -> dict[str, Any]:
        order = [rule for rule in RULES if rule in self.dropped]
        return {
            "schema": SCHEMA,
            "clips": self.clips,
            "hours": self.seconds / 3600,
            "speakers": len(self.speakers),
            "narrow": {"clips": self.narrow, "hours": self.narrow_seconds / 3600},
            "dropped": {r: {"clips": self.dropped[r], "examples": self.examples[r]} for r in order},
        }


def write_manifest(out: Path, parts: int) -> dict[str, Any]:
    """Write the manifest of all parts, without the second of two equal recordings, and the report.
    Raises ConfigError if files of clips are missing; the next call then makes their parts anew."""
    counts, missing = Counts(), dict[Path, str]()
    contents, ids, paths = set[int](), set[int](), set[int]()
    with atomic_file(out / MANIFEST) as file:
        for number in range(parts):
            part = part_file(out, number)
            for row in read_part(part):
                if "identity" in row:
                    continue
                if "dropped" in row:
                    counts.drop(row["dropped"], row["why"])
                    continue
                content, name = int(row["sha256"][:16], 16), hash(row["id"])
                if content in contents or name in ids:
                    same = "recording" if content in contents else "id"
                    counts.drop("duplicate", f"{row['source']}: another clip has the same {same}.")
                    # Two equal items have one file, which the first of them keeps.
                    if hash(row["path"]) not in paths:
                        (out / row["path"]).unlink(missing_ok=True)
                    continue
                contents.add(content)
                ids.add(name)
                paths.add(hash(row["path"]))
                if not (out / row["path"]).is_file():
                    missing.setdefault(part, row["path"])
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
                counts.keep(row)
        if missing:
            for part in missing:
                part.unlink()
            raise ConfigError(
                f"{out} has lost files of its clips, such as {next(iter(missing.values()))}: "
                "run the same command again, which makes them anew."
            )
        if not counts.clips:
            rules = ", ".join(f"{rule}: {count}" for rule, count in counts.dropped.items())
            first = next((why[0] for why in counts.examples.values()), "there is no sound file.")
            raise ConfigError(f"No clip is left ({rules or 'none was there'}); first: {first}")
    with atomic_file(out / REPORT) as file:
        file.write(json.dumps(counts.report(), indent=1, ensure_ascii=False).encode())
    return counts.report()


def read_part(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of the results of a part. Raises ConfigError for a damaged line."""
    with open_file(path) as file:
        for number, line in enumerate(read_lines(file, str(path)), 1):
            row = parse_json(line, f"Line {number} of {path}")
            if not isinstance(row, dict):
                raise ConfigError(f"Line {number} of {path} is damaged: delete the file.")
            yield row
