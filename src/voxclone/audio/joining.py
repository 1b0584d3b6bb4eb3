"""One reference from several recordings: the best segments of each, joined at pauses.

Voices of several recordings are never averaged: a mean of voice embeddings is none that the model
was trained on, and it breaks down. The model gets the parts one after the other, as if the speaker
had paused.

Shapes: S samples.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from voxclone.audio import measure
from voxclone.audio.files import Recording
from voxclone.audio.reference import (
    Reference,
    ReferenceSettings,
    candidate_segments,
    countable_wave,
    prepare_reference,
)
from voxclone.audio.report import ReferenceReport, quality_hints, quality_warnings
from voxclone.audio.segments import Segment
from voxclone.spec import SAMPLING_RATE

MIN_FILLED = 0.5  # of its share: a part of one short phrase leaves too much of it empty
MAX_LEFT_SECONDS = 0.5  # with more left over, a part is cut anew to fill it
SEAM_SECONDS = 0.01  # faded on both sides of a seam
PAUSE_SECONDS = 0.25  # between the speech of two parts, at least


def prepare_joined(
    recordings: Sequence[Recording],
    settings: ReferenceSettings,
    segments: Sequence[Segment | None] | None = None,
) -> Reference:
    """Prepare each recording as `prepare_reference` does, each with a fair share of
    `settings.max_seconds`, and join the parts in the order given.

    Only whole phrases are kept. A short recording leaves what it does not need of its share to the
    others; one whose phrases are too long for its share is left out. `segments` may name the
    segment of each to keep. Raises AudioError if one of the recordings cannot be used.
    """
    single = settings.model_copy(update={"avoid_miscount": False, "short_seconds": 0.0})
    names: dict[str, str] = {}
    actions, used = list[str](), list[tuple[Recording, Segment | None]]()
    for recording, segment in zip(recordings, segments or [None] * len(recordings), strict=True):
        if recording.sha256 in names:
            first = names[recording.sha256]
            actions.append(f"Left out {recording.source}: it is the same recording as {first}.")
            continue
        names[recording.sha256] = recording.source
        used.append((recording, segment))
    parts = [prepare_reference(recording, single, segment=segment) for recording, segment in used]
    fitted = dict(enumerate(parts))
    if settings.crop and len(parts) > 1:
        fitted = _fit([recording for recording, _ in used], parts, single, actions)
    if len(fitted) > 1:
        return _join(list(fitted.values()), settings, actions)
    recording, segment = used[next(iter(fitted))]
    return _with_actions(prepare_reference(recording, settings, segment=segment), actions)


def best_alone(
    recordings: Sequence[Recording],
    settings: ReferenceSettings,
    segments: Sequence[Segment | None] | None = None,
) -> Reference:
    """The recording that makes the best reference alone: the fewest warnings, then the most speech.
    Raises AudioError if one of them cannot be used."""
    references = [
        prepare_reference(recording, settings, segment=segment)
        for recording, segment in zip(recordings, segments or [None] * len(recordings), strict=True)
    ]

    def rank(reference: Reference) -> tuple[int, float]:
        report = reference.report
        return len(report.warnings), -report.speech_share * report.duration_out

    best = min(references, key=rank)
    action = (
        f"Used {best.report.source} alone, which has the fewest defects and the most speech of "
        f"{len(references)} recordings."
    )
    return _with_actions(best, [action])


def _with_actions(reference: Reference, actions: list[str]) -> Reference:
    """The reference with these actions before its own."""
    report = replace(reference.report, actions=(*actions, *reference.report.actions))
    return Reference(reference.wave_S, report)


def fair_shares(lengths: Sequence[float], total: float) -> list[float]:
    """The lengths, cut so that their sum is at most `total`: the longer ones to one size, and those
    below it not at all."""
    left, size = total, total
    for done, length in enumerate(sorted(lengths)):
        size = left / (len(lengths) - done)
        if length >= size:
            break
        left -= length
    else:
        return list(lengths)
    return [min(length, size) for length in lengths]


def _fit(
    recordings: list[Recording],
    parts: list[Reference],
    settings: ReferenceSettings,
    actions: list[str],
) -> dict[int, Reference]:
    """The parts by number, cut to fit together: each to whole phrases within its share, then to
    those within what the others leave. A part without a phrase that fits is left out."""
    seconds = [part.report.duration_out for part in parts]
    kept = list(range(len(parts)))
    while True:
        room = settings.max_seconds - PAUSE_SECONDS * (len(kept) - 1)
        limits = fair_shares([seconds[number] for number in kept], room)
        fitted = {
            number: _cut(recordings[number], parts[number], settings, limit)
            for number, limit in zip(kept, limits, strict=True)
        }
        unfit = [number for number, part in fitted.items() if part is None]
        if not unfit or len(kept) == 1:
            break
        worst = max(unfit, key=lambda number: _rank(parts[number]))
        kept.remove(worst)
        actions.append(
            f"Left out {recordings[worst].source}: no whole phrase of it fits beside the others."
        )
    if len(kept) == 1:
        return {number: parts[number] for number in kept}
    whole = {number: part for number, part in fitted.items() if part is not None}
    for number, part in whole.items():
        left = room - sum(each.report.duration_out for each in whole.values())
        if left > MAX_LEFT_SECONDS:
            limit = part.report.duration_out + left
            whole[number] = _cut(recordings[number], parts[number], settings, limit) or part
    return whole


def _cut(
    recording: Recording, part: Reference, settings: ReferenceSettings, seconds: float
) -> Reference | None:
    """The part, cut to whole phrases within `seconds`; None where they fill too little of them."""
    if seconds > part.report.duration_out - 1e-6:
        return part
    small = settings.model_copy(update={"max_seconds": seconds})
    for segment in candidate_segments(recording, small, 1):
        if segment.length / SAMPLING_RATE >= MIN_FILLED * seconds:
            return prepare_reference(recording, small, segment=segment)
    return None


def _rank(part: Reference) -> tuple[int, float]:
    """The lower, the better: warnings, then noise."""
    return len(part.report.warnings), -part.report.snr_db


def _join(parts: list[Reference], settings: ReferenceSettings, actions: list[str]) -> Reference:
    rate = SAMPLING_RATE
    ramp_S = np.linspace(0, 1, round(SEAM_SECONDS * rate), dtype=np.float32)
    pieces, added, tail = list[np.ndarray](), 0, 0
    for number, part in enumerate(parts):
        wave_S = part.wave_S.copy()
        head, after = _pauses(wave_S, rate)
        if number:
            wave_S[: len(ramp_S)] *= ramp_S
            gap = max(round(PAUSE_SECONDS * rate) - head - tail, 0)
            pieces.append(np.zeros(gap, np.float32))
            added += gap
        if number < len(parts) - 1:
            wave_S[-len(ramp_S) :] *= ramp_S[::-1]
        tail = after
        pieces.append(wave_S)
    wave_S = np.concatenate(pieces)
    actions.append(f"Joined {len(parts)} parts at their pauses, {len(wave_S) / rate:.1f} s in all.")
    if added:
        actions.append(f"Added {added / rate:.2f} s of silence where a part had no pause to join.")
    wave_S = countable_wave(wave_S, settings, actions)
    report = _summary([part.report for part in parts], len(wave_S) / rate, tuple(actions))
    every = quality_warnings(report, settings.short_seconds)  # the others are in the parts
    warnings = [text for text in every if text.startswith("Short: ")]
    if not settings.crop and report.duration_out > settings.max_seconds:
        warnings.append(f"Long: more than {settings.max_seconds:g} s are of no use to the model.")
    report = replace(report, warnings=tuple(warnings), hints=tuple(quality_hints(report)))
    return Reference(wave_S, report)


def _pauses(wave_S: np.ndarray, rate: int) -> tuple[int, int]:
    """Samples before the first and after the last speech."""
    size = round(measure.FRAME_SECONDS * rate)
    speech = measure.speech_segments(measure.active_frames(measure.frame_powers(wave_S, rate)))
    return speech[0][0] * size, max(len(wave_S) - speech[-1][1] * size, 0)


def _summary(
    reports: list[ReferenceReport], seconds: float, actions: tuple[str, ...]
) -> ReferenceReport:
    total = sum(report.duration_out for report in reports)

    def mean(name: str) -> float:
        return float(sum(getattr(r, name) * r.duration_out for r in reports) / total)

    return ReferenceReport(
        source=", ".join(report.source for report in reports),
        native_rate=min(report.native_rate for report in reports),
        channels=max(report.channels for report in reports),
        duration_in=sum(report.duration_in for report in reports),
        duration_out=seconds,
        start=0.0,
        end=seconds,
        speech_share=mean("speech_share") * min(total / seconds, 1.0),
        steady_share=mean("steady_share") * min(total / seconds, 1.0),
        level_before_dbfs=mean("level_before_dbfs"),
        gain_db=mean("gain_db"),
        clipped_share=mean("clipped_share"),
        snr_db=min(report.snr_db for report in reports),
        bandwidth_hz=min(report.bandwidth_hz for report in reports),
        actions=actions,
        parts=tuple(replace(report, hints=()) for report in reports),
    )
