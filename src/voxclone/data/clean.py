"""One clip: read, trimmed, normalized, and dropped by the first rule that it breaks.

The sound gets the same steps as the reference of an enrollment, so that an encoder is trained on
what it will encode later.

Shapes: S samples.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from voxclone.audio.files import ReadingLimits, Recording, read_part, read_recording
from voxclone.audio.measure import MAX_SNR_DB
from voxclone.audio.reference import ReferenceSettings, prepare_reference
from voxclone.audio.report import ReferenceReport
from voxclone.config import Settings
from voxclone.data.manifest import Item
from voxclone.errors import AudioError
from voxclone.spec import SAMPLING_RATE

LIMITS = ReadingLimits()


class CleanSettings(Settings):
    """The rules for a clip, and its trim and level."""

    min_seconds: float = Field(default=1.0, ge=0.2)
    """After silence at the ends is cut."""
    max_seconds: float = Field(default=30.0, gt=0)
    min_rate: int = 16000
    """Hz of the file; below, half of the timbre is missing."""
    max_clipped: float = 0.01
    """Share of the samples at flat tops."""
    min_snr_db: float = 10.0
    min_speech: float = 0.3
    """Share of speech in the clip."""
    min_dbfs: float = -60.0
    """Level of active speech before it is raised or lowered to `level_dbfs`."""
    level_dbfs: float = Field(default=-20.0, le=0)
    narrow_hz: float = 11000.0
    """A clip whose band ends below is flagged: it was upsampled from 16 kHz or so, and has no
    timbre above."""
    lead_seconds: float = 0.1
    trail_seconds: float = 0.2


@dataclass(frozen=True, eq=False)
class Clean:
    """Samples [S] at 24 kHz, and their values for the manifest."""

    wave_S: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dropped:
    """Why a clip is left out: a rule, and a sentence."""

    rule: str
    why: str


RULES = (
    "missing", "undecodable", "not finite", "wrong rate", "silent", "too short", "too long",
    "no speech", "clipped", "noisy", "duplicate",
)  # fmt: skip


def clean(item: Item, settings: CleanSettings) -> Clean | Dropped:
    """The clip of an item, or why there is none. A bad file does not raise."""
    try:
        recording = _read(item)
        if recording.native_rate < settings.min_rate:
            return Dropped(
                "wrong rate",
                f"{item.path} was sampled at {recording.native_rate} Hz; the minimum is "
                f"{settings.min_rate}.",
            )
        reference = prepare_reference(recording, _reference_settings(settings))
    except AudioError as error:
        return Dropped(error.rule, str(error))
    report = reference.report
    dropped = _check(report, settings)
    if dropped is not None:
        return dropped
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


def _reference_settings(settings: CleanSettings) -> ReferenceSettings:
    return ReferenceSettings(
        crop=False,
        end_on_pause=False,
        avoid_miscount=False,
        lead_seconds=settings.lead_seconds,
        trail_seconds=settings.trail_seconds,
        level_dbfs=settings.level_dbfs,
        min_seconds=0.1,
    )


def _check(report: ReferenceReport, settings: CleanSettings) -> Dropped | None:
    """The first rule that a clip breaks, in the order of `RULES`."""
    seconds, sound = report.duration_out, report.speech_share + report.steady_share
    checks = (
        ("too short", seconds < settings.min_seconds, f"{seconds:.2f} s are left of it"),
        ("too long", seconds > settings.max_seconds, f"it is {seconds:.1f} s long"),
        (
            "no speech",
            report.level_before_dbfs < settings.min_dbfs or sound < settings.min_speech,
            f"{sound:.0%} of it is sound, at {report.level_before_dbfs:.0f} dBFS",
        ),
        (
            "clipped",
            report.clipped_share > settings.max_clipped,
            f"{report.clipped_share:.1%} of the samples are at the peak",
        ),
        (
            "noisy",
            report.snr_db < settings.min_snr_db,
            f"its loud parts are {report.snr_db:.0f} dB above its quiet ones",
        ),
    )
    for rule, found, why in checks:
        if found:
            return Dropped(rule, f"{report.source}: {why}.")
    return None
