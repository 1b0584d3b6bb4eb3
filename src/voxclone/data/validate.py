"""Is a manifest fit to train on? Read through once before any training is begun.

Nothing of the sound is decoded: files are looked for and their headers read.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import soundfile

from voxclone.data import rules
from voxclone.data.manifest import read_rows
from voxclone.errors import ConfigError
from voxclone.spec import FRAME_SIZE, SAMPLING_RATE

SCHEMA = "voxclone.speech/1"
NAMED = 10  # of each kind of fault
NARROW_HZ, TELEPHONE_HZ = 11000, 8000
LITTLE_HOURS, FEW_SPEAKERS = 1.0, 20
OFF_SECONDS = 0.1
Track = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass
class Fault:
    """How often something was found, and the first few places."""

    clips: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, where: str) -> None:
        self.clips += 1
        if len(self.first) < NAMED:
            self.first.append(where)


@dataclass
class _Seen:
    clips: int = 0
    seconds: float = 0.0
    prepared: int = 0
    no_text: int = 0
    speakers: dict[str, int] = field(default_factory=dict)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    languages: dict[str, float] = field(default_factory=dict)
    licences: dict[str, float] = field(default_factory=dict)
    rates: dict[int, int] = field(default_factory=dict)
    bands: dict[str, int] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    ids: set[int] = field(default_factory=set)
    paths: set[int] = field(default_factory=set)
    contents: set[int] = field(default_factory=set)

    def fault(self, kind: str, where: str) -> None:
        self.faults.setdefault(kind, Fault()).add(where)


def validate(
    manifest: Path,
    *,
    frame_size: int = FRAME_SIZE,
    headers: bool = True,
    track: Track = iter,
) -> dict[str, Any]:
    """The report of a manifest: amounts, faults by kind, and a verdict.

    Without `headers` files are only looked for. `track` wraps the rows, to show progress. Raises
    ConfigError for a manifest that cannot be read or lists nothing.
    """
    seen = _Seen()

    def bad(number: int, reason: str) -> None:
        seen.fault("bad lines", f"line {number}: {reason}")

    for _, row in track(read_rows(manifest, bad)):
        _look(row, manifest.parent, seen, frame_size, headers)
    if not seen.clips and not seen.faults:
        raise ConfigError(f"The manifest {manifest} lists no clip.")
    counts = sorted(seen.speakers.values()) or [0]
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "manifest": str(manifest),
        "clips": seen.clips,
        "hours": seen.seconds / 3600,
        "speakers": len(seen.speakers),
        "clips_per_speaker": {"least": counts[0], "median": median(counts), "most": counts[-1]},
        "single": sum(count == 1 for count in counts),
        "splits": {
            name: {"clips": s["clips"], "hours": s["seconds"] / 3600, "speakers": len(s["who"])}
            for name, s in sorted(seen.splits.items())
        },
        "hours_by_language": _hours(seen.languages),
        "hours_by_licence": _hours(seen.licences),
        "rates": {str(rate): count for rate, count in sorted(seen.rates.items())},
        "bands": seen.bands,
        "without_text": seen.no_text,
        "prepared": seen.prepared == seen.clips,
        "shared_speakers": _shared(seen.splits),
        "faults": {k: {"clips": f.clips, "first": f.first} for k, f in seen.faults.items()},
    }
    findings = _findings(report)
    report["verdict"] = {
        "healthy": not any(each["stops"] for each in findings),
        "findings": findings,
    }
    return report


def _look(row: dict[str, Any], folder: Path, seen: _Seen, frame_size: int, headers: bool) -> None:
    name, path = str(row["id"]), folder / row["path"]
    seconds, speaker = float(row["duration"]), str(row["speaker"])
    split = row.get("split") or "train"
    seen.clips += 1
    seen.seconds += seconds
    seen.prepared += row.get("samples") is not None
    seen.no_text += not row.get("text")
    seen.speakers[speaker] = seen.speakers.get(speaker, 0) + 1
    part = seen.splits.setdefault(split, {"clips": 0, "seconds": 0.0, "who": set()})
    part["clips"] += 1
    part["seconds"] += seconds
    part["who"].add(speaker)
    for known, key in ((seen.languages, "language"), (seen.licences, "licence")):
        value = row.get(key) or "unknown"
        known[value] = known.get(value, 0.0) + seconds
    for known_hashes, kind, value in (
        (seen.ids, "ids twice", name),
        (seen.paths, "files twice", str(path)),
        (seen.contents, "recordings twice", row.get("sha256")),
    ):
        if value is not None:
            if hash(value) in known_hashes:
                seen.fault(kind, name)
            known_hashes.add(hash(value))
    if seconds * SAMPLING_RATE < frame_size:
        seen.fault("shorter than a frame", f"{name}: {seconds:g} s")
    band = _band(row.get("bandwidth_hz"), row.get("native_sampling_rate"))
    seen.bands[band] = seen.bands.get(band, 0) + 1
    if not path.is_file():
        seen.fault("missing files", str(path))
    elif headers:
        _read_header(path, name, row, seen)


def _read_header(path: Path, name: str, row: dict[str, Any], seen: _Seen) -> None:
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError):
        seen.fault("undecodable files", str(path))
        return
    seen.rates[info.samplerate] = seen.rates.get(info.samplerate, 0) + 1
    exact = row.get("samples")
    if exact is not None and (info.samplerate, info.frames) != (SAMPLING_RATE, exact):
        seen.fault("other than listed", f"{name}: {info.frames} samples at {info.samplerate} Hz")
    elif abs(info.frames / info.samplerate - float(row["duration"])) > OFF_SECONDS:
        told = f"{info.frames / info.samplerate:.2f} s, listed as {float(row['duration']):.2f}"
        seen.fault("other than listed", f"{name}: {told}")


def _band(hertz: float | None, rate: float | None) -> str:
    hertz = hertz if hertz is not None or rate is None else rate / 2
    if hertz is None:
        return "unknown"
    if hertz < TELEPHONE_HZ:
        return "below 8 kHz"
    return "8 to 11 kHz" if hertz < NARROW_HZ else "11 kHz and above"


def _hours(seconds: dict[str, float]) -> dict[str, float]:
    return {name: value / 3600 for name, value in sorted(seconds.items(), key=lambda kv: -kv[1])}


def _shared(splits: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Speakers that two splits have in common, the first few of each pair of splits."""
    names = sorted(splits)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    both = {f"{a}, {b}": sorted(splits[a]["who"] & splits[b]["who"]) for a, b in pairs}
    return {pair: who[:NAMED] for pair, who in both.items() if who}


def _findings(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What is wrong, gravest first; what `stops` must be mended before training."""
    clips, faults = max(1, report["clips"]), report["faults"]
    train = report["splits"].get("train", {"clips": 0, "hours": 0.0, "speakers": 0})
    narrow = (report["bands"].get("below 8 kHz", 0) + report["bands"].get("8 to 11 kHz", 0)) / clips
    found: list[dict[str, Any]] = []

    def say(name: str, stops: bool, sentence: str, figure: str, remedy: str) -> None:
        entry = {"name": name, "stops": stops, "sentence": sentence}
        found.append(entry | {"figure": figure, "remedy": remedy})

    def fault(kind: str, share: float, sentence: str, remedy: str) -> None:
        if kind in faults:
            count, first = faults[kind]["clips"], faults[kind]["first"][0]
            figure = f"{count} of {report['clips']}, the first: {first}"
            say(kind, rules.too_many(count, clips, share), sentence, figure, remedy)

    if not train["clips"]:
        say(
            "nothing to train on",
            True,
            "No clip is of the split `train`.",
            f"splits: {', '.join(report['splits'])}",
            "Set `split` of some clips to train.",
        )
    elif (lonely := rules.too_few(train["speakers"])) is not None:
        say(
            "one speaker",
            True,
            lonely,
            "1 speaker in train",
            "Add speech of others.",
        )
    if report["shared_speakers"]:
        pair, who = next(iter(report["shared_speakers"].items()))
        say(
            "shared speakers",
            True,
            "Splits share speakers, so figures on them would flatter.",
            f"{pair}: {', '.join(who[:3])}",
            "Move each speaker to one split.",
        )
    fault("bad lines", 0, "Some lines are no clips.", "Mend them; training refuses them.")
    fault("ids twice", 0, "Clips share an id.", "Give each clip its own.")
    fault(
        "missing files",
        rules.MISSING_SHARE,
        "Files are not there.",
        "Bring them back, or take their lines out.",
    )
    fault(
        "undecodable files",
        rules.MISSING_SHARE,
        "Files cannot be decoded.",
        "`voxclone data prepare` leaves them out.",
    )
    exact = 0.0 if report["prepared"] else rules.MISSING_SHARE
    fault(
        "other than listed",
        exact,
        "Files are not as long as they are listed.",
        "Prepare them again.",
    )
    fault(
        "shorter than a frame",
        0.5,
        "Clips are shorter than a frame of codes.",
        "`voxclone data prepare` leaves them out.",
    )
    fault("files twice", 1, "Files are listed more than once.", "Take the second out.")
    fault("recordings twice", 1, "Recordings are there more than once.", "Take the second out.")
    if narrow > 0.5:
        say(
            "narrow band",
            False,
            "Most clips end below 11 kHz, as upsampled corpora do: the "
            "encoder will not learn the upper band of timbre from them.",
            f"{narrow:.0%} of clips",
            "Add recordings at 24 kHz or more.",
        )
    if 1 < train["speakers"] < FEW_SPEAKERS:
        say(
            "few speakers",
            False,
            "New voices will be far from all that were heard.",
            f"{train['speakers']} in train",
            "Some hundreds are better.",
        )
    if 0 < train["hours"] < LITTLE_HOURS:
        say(
            "little speech",
            False,
            "This is little to train on.",
            f"{train['hours']:.2f} h in train",
            "Ten hours and more are better.",
        )
    if report["single"]:
        say(
            "speakers with one clip",
            False,
            "The loss `told` needs another clip of the speaker, and leaves these out.",
            f"{report['single']} of {report['speakers']} speakers",
            "None is needed without that loss.",
        )
    if report["without_text"]:
        say(
            "clips without text",
            False,
            "The loss `told` leaves them out, and for `distil` "
            "Whisper writes down itself what they say.",
            f"{report['without_text']} of {clips}",
            "None is needed without these losses.",
        )
    return sorted(found, key=lambda each: not each["stops"])  # fmt: skip
