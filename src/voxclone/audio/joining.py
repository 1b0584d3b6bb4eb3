"""One reference of several recordings: the best stretches of each, joined at pauses.

Voices of several recordings are never averaged: a mean of rows is no row that the model has seen,
and it breaks down (`voice.rows`). The model hears the parts one after the other, as if the speaker
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
    ReferenceReport,
    ReferenceSettings,
    countable_length,
    crops,
    prepare_reference,
)
from voxclone.audio.report import quality_hints, quality_warnings
from voxclone.audio.stretch import Run
from voxclone.spec import SAMPLING_RATE

LEAST_FILLED = 0.5  # of its share: a part of one short phrase leaves too much of it empty
LEAST_LEFT = 0.5  # with more left over, a part is cut anew to fill it
SEAM_SECONDS = 0.01  # faded on both sides of a seam
PAUSE_SECONDS = 0.25  # between the speech of two parts, at least


def prepare_joined(
    recordings: Sequence[Recording],
    settings: ReferenceSettings,
    within: Sequence[Run | None] | None = None,
) -> Reference:
    """Prepare each recording as `prepare_reference` does, each with a fair share of
    `settings.max_seconds`, and join what is kept in the order given.

    Only whole phrases are kept. What a short recording does not need of its share goes to the
    others, and one whose phrases are too long for its share is left out. `within` may name the
    stretch of each to keep. Raises AudioError if one of them cannot be used.
    """
    within = within or [None] * len(recordings)
    single = settings.model_copy(update={"avoid_miscount": False, "short_seconds": 0.0})
    names: dict[str, str] = {}
    actions, pairs = list[str](), list[tuple[Recording, Run | None]]()
    for recording, run in zip(recordings, within, strict=True):
        if recording.sha256 in names:
            first = names[recording.sha256]
            actions.append(f"Left out {recording.source}: it is the same recording as {first}.")
            continue
        names[recording.sha256] = recording.source
        pairs.append((recording, run))
    parts = [prepare_reference(recording, single, within=run) for recording, run in pairs]
    fitted = dict(enumerate(parts))
    if settings.crop and len(parts) > 1:
        fitted = _cropped([recording for recording, _ in pairs], parts, single, actions)
    if len(fitted) > 1:
        return _joined(list(fitted.values()), settings, actions)
    recording, run = pairs[next(iter(fitted))]
    alone = prepare_reference(recording, settings, within=run)
    return Reference(alone.wave_S, replace(alone.report, actions=(*actions, *alone.report.actions)))


def best_alone(
    recordings: Sequence[Recording],
    settings: ReferenceSettings,
    within: Sequence[Run | None] | None = None,
) -> Reference:
    """The recording that makes the best reference alone: the fewest warnings, then the most speech.
    Raises AudioError if one of them cannot be used."""
    within = within or [None] * len(recordings)
    references = [
        prepare_reference(recording, settings, within=run)
        for recording, run in zip(recordings, within, strict=True)
    ]

    def rank(reference: Reference) -> tuple[int, float]:
        report = reference.report
        return len(report.warnings), -report.speech_share * report.duration_out

    best = min(references, key=rank)
    action = (
        f"Used {best.report.source} alone, which has the fewest faults and the most speech of "
        f"{len(references)} recordings."
    )
    return Reference(best.wave_S, replace(best.report, actions=(action, *best.report.actions)))


def shares(lengths: Sequence[float], most: float) -> list[float]:
    """What each of the lengths is cut to, so that their sum is at most `most`: all to one size,
    and those below it not at all."""
    left, size = most, most
    for done, length in enumerate(sorted(lengths)):
        size = left / (len(lengths) - done)
        if length >= size:
            break
        left -= length
    else:
        return list(lengths)
    return [min(length, size) for length in lengths]


def _cropped(
    recordings: list[Recording],
    parts: list[Reference],
    settings: ReferenceSettings,
    actions: list[str],
) -> dict[int, Reference]:
    """The parts by number, cut to fit together: each to whole phrases within its share, then to
    those within what the others leave over. One whose phrases are longer is left out."""
    most = settings.max_seconds

    def cut(number: int, seconds: float) -> Reference | None:
        if seconds > parts[number].report.duration_out - 1e-6:
            return parts[number]
        small = settings.model_copy(update={"max_seconds": seconds})
        for start, end in crops(recordings[number], small, 1):
            if (end - start) / SAMPLING_RATE >= LEAST_FILLED * seconds:
                return prepare_reference(recordings[number], small, within=(start, end))
        return None

    kept = list(range(len(parts)))
    while True:
        room = most - PAUSE_SECONDS * (len(kept) - 1)
        limits = shares([parts[number].report.duration_out for number in kept], room)
        fitted = {number: cut(number, limit) for number, limit in zip(kept, limits, strict=True)}
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
        if left > LEAST_LEFT:
            whole[number] = cut(number, part.report.duration_out + left) or part
    return whole


def _rank(part: Reference) -> tuple[int, float]:
    """The less, the better: faults, then noise."""
    return len(part.report.warnings), -part.report.snr_db


def _joined(parts: list[Reference], settings: ReferenceSettings, actions: list[str]) -> Reference:
    rate = SAMPLING_RATE
    fade_S = np.linspace(0, 1, round(SEAM_SECONDS * rate), dtype=np.float32)
    pieces, added, tail = list[np.ndarray](), 0, 0
    for number, part in enumerate(parts):
        wave_S = part.wave_S.copy()
        head, after = _pauses(wave_S, rate)
        if number:
            wave_S[: len(fade_S)] *= fade_S
            gap = max(round(PAUSE_SECONDS * rate) - head - tail, 0)
            pieces.append(np.zeros(gap, np.float32))
            added += gap
        if number < len(parts) - 1:
            wave_S[-len(fade_S) :] *= fade_S[::-1]
        tail = after
        pieces.append(wave_S)
    wave_S = np.concatenate(pieces)
    actions.append(f"Joined {len(parts)} parts at their pauses, {len(wave_S) / rate:.1f} s in all.")
    if added:
        actions.append(f"Added {added / rate:.2f} s of silence where a part had no pause to join.")
    length = countable_length(len(wave_S), rate, settings.frame_size)
    if settings.avoid_miscount and length < len(wave_S):
        actions.append(
            f"Dropped the last of {len(wave_S)} samples: at this length mistral-common counts one "
            "placeholder too many."
        )
        wave_S = wave_S[:length]
    report = _summary([part.report for part in parts], len(wave_S) / rate, tuple(actions))
    every = quality_warnings(report, settings.short_seconds)  # the others stand in the parts
    warnings = [text for text in every if text.startswith("Short: ")]
    if not settings.crop and report.duration_out > settings.max_seconds:
        warnings.append(f"Long: more than {settings.max_seconds:g} s are of no use to the model.")
    report = replace(report, warnings=tuple(warnings), hints=tuple(quality_hints(report)))
    return Reference(wave_S, report)


def _pauses(wave_S: np.ndarray, rate: int) -> tuple[int, int]:
    """Samples before the first and after the last speech."""
    size = round(measure.FRAME_SECONDS * rate)
    runs = measure.speech_runs(measure.active_frames(measure.frame_powers(wave_S, rate)))
    return runs[0][0] * size, max(len(wave_S) - runs[-1][1] * size, 0)


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
        level_before_dbfs=mean("level_before_dbfs"),
        gain_db=mean("gain_db"),
        clipped_share=mean("clipped_share"),
        snr_db=min(report.snr_db for report in reports),
        bandwidth_hz=min(report.bandwidth_hz for report in reports),
        actions=actions,
        parts=tuple(replace(report, hints=()) for report in reports),
    )
