"""Checks of a manifest before a training: it is read through once.

No sound is decoded: files are looked for, and their headers are read.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import soundfile

from voxclone.data import rules
from voxclone.data.manifest import ManifestRow, read_rows
from voxclone.errors import ConfigError
from voxclone.spec import FRAME_SIZE, SAMPLING_RATE

SCHEMA = "voxclone.validation/3"
MAX_EXAMPLES = 10  # of each kind of fault
NARROW_HZ, TELEPHONE_HZ = 11000, 8000
MIN_HOURS, MIN_SPEAKERS = 1.0, 20
LEAST_HOURS = 1 / 6
MAX_DIFFERENCE_SECONDS = 0.1
Track = Callable[[Iterable[Any]], Iterable[Any]]

FAULTS = {
    "bad lines": (0, "Some lines are no clips.", "Mend them; training refuses them."),
    "ids twice": (0, "Clips share an id.", "Give each clip its own."),
    "missing files": (
        rules.MISSING_SHARE, "Files are missing.", "Restore them, or remove their lines.",
    ),
    "undecodable files": (
        rules.MISSING_SHARE, "Files cannot be decoded.", "`voxclone data prepare` leaves them out.",
    ),
    "other than listed": (
        rules.MISSING_SHARE, "Files are not as long as listed.", "Prepare them again.",
    ),
    "shorter than a frame": (
        0.5, "Clips are shorter than a frame of codes.", "`voxclone data prepare` leaves them out.",
    ),
    "files twice": (1, "Files are listed more than once.", "Remove the second line."),
    "recordings twice": (1, "Recordings occur more than once.", "Remove the second one."),
}  # fmt: skip
"""Kinds of faults: the share of clips above which training must not begin, the meaning, the
remedy."""


@dataclass
class Fault:
    """How many clips have a fault, the first few of them, and what to do about the first, where
    that is not the same for all of the kind."""

    clips: int = 0
    examples: list[str] = field(default_factory=list)
    way_out: str = ""

    def add(self, example: str, way_out: str = "") -> None:
        if not self.clips:
            self.way_out = way_out
        self.clips += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(example)


@dataclass
class _Split:
    clips: int = 0
    seconds: float = 0.0
    speakers: set[str] = field(default_factory=set)


@dataclass
class _Totals:
    """Sums over the lines of a manifest; hashes of ids, paths and recordings find duplicates."""

    clips: int = 0
    seconds: float = 0.0
    prepared: int = 0
    without_text: int = 0
    speakers: dict[str, int] = field(default_factory=dict)
    splits: dict[str, _Split] = field(default_factory=dict)
    languages: dict[str, float] = field(default_factory=dict)
    licenses: dict[str, float] = field(default_factory=dict)
    rates: dict[int, int] = field(default_factory=dict)
    bands: dict[str, int] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    ids: set[int] = field(default_factory=set)
    paths: set[int] = field(default_factory=set)
    recordings: set[int] = field(default_factory=set)

    def fault(self, kind: str, example: str, way_out: str = "") -> None:
        self.faults.setdefault(kind, Fault()).add(example, way_out)


@dataclass(frozen=True)
class FailedCheck:
    """A check that failed: what that means, what was measured, and the remedy. Training must not
    begin after one that is `blocking`."""

    name: str
    blocking: bool
    meaning: str
    measured: str
    remedy: str


def validate(
    manifest: Path, *, frame_size: int = FRAME_SIZE, headers: bool = True, track: Track = iter
) -> dict[str, Any]:
    """The report of a manifest: amounts, faults by kind, and checks.

    Without `headers` files are only looked for. `track` wraps the rows, to show progress. Raises
    ConfigError for a manifest that cannot be read or lists nothing.
    """
    totals = _Totals()

    def on_bad(number: int, reason: str, way_out: str) -> None:
        totals.fault("bad lines", f"line {number}: {reason.rstrip('.')}", way_out)

    for _, row in track(read_rows(manifest, on_bad)):
        _add(row, manifest.parent, totals, frame_size, headers)
    if not totals.clips and not totals.faults:
        raise ConfigError(f"The manifest {manifest} lists no clip.")
    counts = sorted(totals.speakers.values()) or [0]
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "manifest": str(manifest),
        "clips": totals.clips,
        "hours": totals.seconds / 3600,
        "speakers": len(totals.speakers),
        "clips_per_speaker": {"least": counts[0], "median": median(counts), "most": counts[-1]},
        "speakers_with_one_clip": sum(count == 1 for count in counts),
        "splits": {
            name: {
                "clips": split.clips,
                "hours": split.seconds / 3600,
                "speakers": len(split.speakers),
            }
            for name, split in sorted(totals.splits.items())
        },
        "hours_by_language": _hours(totals.languages),
        "hours_by_license": _hours(totals.licenses),
        "rates": {str(rate): count for rate, count in sorted(totals.rates.items())},
        "bands": totals.bands,
        "without_text": totals.without_text,
        "prepared": totals.prepared == totals.clips,
        "shared_speakers": _shared(totals.splits),
        "faults": {kind: asdict(fault) for kind, fault in totals.faults.items()},
    }
    failed = sorted(_failed_checks(report), key=lambda each: not each.blocking)
    report["checks"] = {
        "passed": not any(each.blocking for each in failed),
        "failed": [asdict(each) for each in failed],
    }
    return report


def _add(row: ManifestRow, folder: Path, totals: _Totals, frame_size: int, headers: bool) -> None:
    name, path, seconds, speaker = row.id, folder / row.path, row.duration, row.speaker
    totals.clips += 1
    totals.seconds += seconds
    totals.prepared += row.samples is not None
    totals.without_text += not row.text
    totals.speakers[speaker] = totals.speakers.get(speaker, 0) + 1
    split = totals.splits.setdefault(row.split or "train", _Split())
    split.clips += 1
    split.seconds += seconds
    split.speakers.add(speaker)
    for hours, label in ((totals.languages, row.language), (totals.licenses, row.license)):
        category = label or "unknown"
        hours[category] = hours.get(category, 0.0) + seconds
    for hashes, kind, value in (
        (totals.ids, "ids twice", name),
        (totals.paths, "files twice", str(path)),
        (totals.recordings, "recordings twice", row.sha256),
    ):
        if value is not None:
            if hash(value) in hashes:
                totals.fault(kind, name)
            hashes.add(hash(value))
    if seconds * SAMPLING_RATE < frame_size:
        totals.fault("shorter than a frame", f"{name}: {seconds:g} s")
    band = _band(row.bandwidth_hz, row.native_sampling_rate)
    totals.bands[band] = totals.bands.get(band, 0) + 1
    if not os.path.isfile(path):
        windows = "\\" in row.path and os.sep == "/"
        way_out = "Write / instead of \\ between folders." if windows else ""
        totals.fault("missing files", str(path), way_out)
    elif headers:
        _read_header(path, name, row, totals)


def _read_header(path: Path, name: str, row: ManifestRow, totals: _Totals) -> None:
    try:
        info = soundfile.info(os.fsencode(path))
    except (soundfile.SoundFileError, OSError):
        totals.fault("undecodable files", str(path))
        return
    totals.rates[info.samplerate] = totals.rates.get(info.samplerate, 0) + 1
    exact, seconds = row.samples, info.frames / info.samplerate
    if exact is not None and (info.samplerate, info.frames) != (SAMPLING_RATE, exact):
        totals.fault("other than listed", f"{name}: {info.frames} samples at {info.samplerate} Hz")
    elif abs(seconds - row.duration) > MAX_DIFFERENCE_SECONDS:
        difference = f"{seconds:.2f} s, listed as {row.duration:.2f}"
        totals.fault("other than listed", f"{name}: {difference}")


def _band(hertz: float | None, rate: float | None) -> str:
    hertz = hertz if hertz is not None or rate is None else rate / 2
    if hertz is None:
        return "unknown"
    if hertz < TELEPHONE_HZ:
        return "below 8 kHz"
    return "8 to 11 kHz" if hertz < NARROW_HZ else "11 kHz and above"


def _hours(seconds: dict[str, float]) -> dict[str, float]:
    return {name: value / 3600 for name, value in sorted(seconds.items(), key=lambda kv: -kv[1])}


def _shared(splits: dict[str, _Split]) -> dict[str, list[str]]:
    """For each two splits, the first few of the speakers that both have."""
    names = sorted(splits)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    both = {f"{a}, {b}": sorted(splits[a].speakers & splits[b].speakers) for a, b in pairs}
    return {pair: speakers[:MAX_EXAMPLES] for pair, speakers in both.items() if speakers}


def _failed_checks(report: dict[str, Any]) -> Iterator[FailedCheck]:
    clips, bands = max(1, report["clips"]), report["bands"]
    lines = report["clips"] + report["faults"].get("bad lines", {}).get("clips", 0)
    train = report["splits"].get("train", {"clips": 0, "hours": 0.0, "speakers": 0})
    if not train["clips"]:
        yield FailedCheck(
            "nothing to train on", True, "No clip is in the split `train`.",
            f"splits: {', '.join(report['splits']) or 'none'}",
            "Set `split` of some clips to train.",
        )  # fmt: skip
    elif (reason := rules.too_few(train["speakers"])) is not None:
        yield FailedCheck(
            "one speaker", True, reason, "1 speaker in train", "Add speech of others."
        )
    if report["shared_speakers"]:
        pair, speakers = next(iter(report["shared_speakers"].items()))
        yield FailedCheck(
            "shared speakers", True, "Splits share speakers, which makes metrics on them too good.",
            f"{pair}: {', '.join(speakers[:3])}", "Move each speaker to one split.",
        )  # fmt: skip
    for kind, (share, sentence, remedy) in FAULTS.items():
        if kind in report["faults"]:
            fault = report["faults"][kind]
            total = lines if kind == "bad lines" else report["clips"]
            exact = kind == "other than listed" and report["prepared"]
            yield FailedCheck(
                kind, rules.too_many(fault["clips"], clips, 0.0 if exact else share), sentence,
                f"{fault['clips']} of {total}, the first: {fault['examples'][0]}",
                fault["way_out"] or remedy,
            )  # fmt: skip
    narrow = (bands.get("below 8 kHz", 0) + bands.get("8 to 11 kHz", 0)) / clips
    if narrow > 0.5:
        yield FailedCheck(
            "narrow band", False,
            "Most clips end below 11 kHz, as upsampled corpora do: the encoder will not learn the "
            "upper band of timbre from them.",
            f"{narrow:.0%} of clips", "Add recordings at 24 kHz or more.",
        )  # fmt: skip
    if 1 < train["speakers"] < MIN_SPEAKERS:
        yield FailedCheck(
            "few speakers", False, "New voices will differ from all training voices.",
            f"{train['speakers']} in train", "Some hundreds are better.",
        )  # fmt: skip
    if 0 < train["hours"] < MIN_HOURS:
        yield FailedCheck(
            "little speech", train["hours"] < LEAST_HOURS,
            "An encoder learns these clips by heart instead of learning to encode others.",
            f"{60 * train['hours']:.1f} min in train",
            "Ten minutes are the least, for a try; ten hours and more are better.",
        )  # fmt: skip
    if report["speakers_with_one_clip"]:
        yield FailedCheck(
            "speakers with one clip", False,
            "The loss `pseudo_label` needs another clip of the speaker, and leaves these out.",
            f"{report['speakers_with_one_clip']} of {report['speakers']} speakers",
            "None is needed without that loss.",
        )  # fmt: skip
    if report["without_text"]:
        yield FailedCheck(
            "clips without text", False,
            "The loss `pseudo_label` leaves them out; for `asr_distillation` Whisper transcribes "
            "them.",
            f"{report['without_text']} of {clips}", "None is needed without these losses.",
        )  # fmt: skip
