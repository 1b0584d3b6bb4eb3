"""One clip: read, trimmed, brought to the level, and dropped by the first rule that it breaks.

Everything that is done to the sound is what enrolment does to a reference, so that an encoder hears
in training what it will hear later.

Shapes: S samples.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from voxclone.audio.files import ReadingLimits, Recording, read_part, read_recording
from voxclone.audio.measure import MAX_SNR_DB
from voxclone.audio.reference import ReferenceReport, ReferenceSettings, prepare_reference
from voxclone.config import Settings
from voxclone.data.manifest import Item
from voxclone.errors import AudioError
from voxclone.spec import SAMPLING_RATE

LIMITS = ReadingLimits()


class CleanSettings(Settings):
    """What a clip must be, and what is done to it."""

    least_seconds: float = Field(default=1.0, ge=0.2)
    """Of what is left after silence at the ends is cut."""
    most_seconds: float = Field(default=30.0, gt=0)
    least_rate: int = 16000
    """Hz of the file; below, half of the timbre is missing."""
    most_clipped: float = 0.01
    """Share of the samples at flat tops."""
    least_snr_db: float = 10.0
    least_speech: float = 0.3
    """Share of speech in what is kept."""
    least_dbfs: float = -60.0
    """Level of active speech before it is brought to `level_dbfs`."""
    level_dbfs: float = Field(default=-20.0, le=0)
    narrow_hz: float = 11000.0
    """A clip whose band ends below is flagged: it was made of a recording at 16 kHz or so, and
    teaches nothing about what lies above."""
    lead_seconds: float = 0.1
    trail_seconds: float = 0.2


@dataclass(frozen=True, eq=False)
class Clean:
    """Samples [S] at 24 kHz and what the manifest says of them."""

    wave_S: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dropped:
    """Why a clip is left out: the rule, and a sentence."""

    rule: str
    why: str


RULES = (
    "missing", "undecodable", "not finite", "wrong rate", "silent", "too short", "too long",
    "no speech", "clipped", "noisy", "duplicate",
)  # fmt: skip


def clean(item: Item, settings: CleanSettings) -> Clean | Dropped:
    """What becomes of an item. Nothing that is wrong with its file raises."""
    try:
        recording = _read(item)
        if recording.native_rate < settings.least_rate:
            return Dropped(
                "wrong rate",
                f"{item.path} was sampled at {recording.native_rate} Hz, and "
                f"{settings.least_rate} are wanted.",
            )
        reference = prepare_reference(recording, _steps(settings))
    except AudioError as error:
        return Dropped(error.rule, str(error))
    report = reference.report
    broken = _broken(report, settings)
    if broken is not None:
        return broken
    facts: dict[str, Any] = {
        "duration": round(len(reference.wave_S) / SAMPLING_RATE, 4),
        "samples": len(reference.wave_S),
        "native_sampling_rate": report.native_rate,
        "bandwidth_hz": round(report.bandwidth_hz),
        "gain_db": round(report.gain_db, 2),
        "sha256": recording.sha256,
    }
    if report.snr_db < MAX_SNR_DB:
        facts["snr_db"] = round(report.snr_db, 1)
    if report.bandwidth_hz < settings.narrow_hz:
        facts["narrow"] = True
    return Clean(reference.wave_S, facts)


def _read(item: Item) -> Recording:
    if item.seconds is None:
        return read_recording(item.path, LIMITS)
    return read_part(item.path, item.start, item.seconds, item.channel, name=item.id)


def _steps(settings: CleanSettings) -> ReferenceSettings:
    return ReferenceSettings(
        crop=False,
        end_on_pause=False,
        avoid_miscount=False,
        lead_seconds=settings.lead_seconds,
        trail_seconds=settings.trail_seconds,
        level_dbfs=settings.level_dbfs,
        min_seconds=0.1,
    )


def _broken(report: ReferenceReport, settings: CleanSettings) -> Dropped | None:
    """The first rule that a clip breaks, in the order of `RULES`."""
    seconds, who = report.duration_out, report.source
    checks = (
        ("too short", seconds < settings.least_seconds, f"{seconds:.2f} s are left of it"),
        ("too long", seconds > settings.most_seconds, f"it is {seconds:.1f} s long"),
        (
            "no speech",
            report.level_before_dbfs < settings.least_dbfs
            or report.speech_share < settings.least_speech,
            f"{report.speech_share:.0%} of it is sound, at {report.level_before_dbfs:.0f} dBFS",
        ),
        (
            "clipped",
            report.clipped_share > settings.most_clipped,
            f"{report.clipped_share:.1%} of the samples are cut off at the peak",
        ),
        (
            "noisy",
            report.snr_db < settings.least_snr_db,
            f"what is loud in it is {report.snr_db:.0f} dB above what is quiet",
        ),
    )
    for rule, found, why in checks:
        if found:
            return Dropped(rule, f"{who}: {why}.")
    return None
