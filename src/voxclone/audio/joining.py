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
from voxclone.audio.files import SAMPLING_RATE, Recording
from voxclone.audio.reference import (
    Reference,
    ReferenceReport,
    ReferenceSettings,
    countable_length,
    prepare_reference,
)
from voxclone.audio.report import quality_hints, quality_warnings
from voxclone.audio.stretch import Run

LEAST_SECONDS = 2.0  # of each part; with less room, the worst recordings are left out
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

    What a short recording does not need of its share goes to the others. `within` may name the
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
    if len(pairs) == 1:
        alone = prepare_reference(pairs[0][0], settings, within=pairs[0][1])
        report = replace(alone.report, actions=(*actions, *alone.report.actions))
        return Reference(alone.wave_S, report)
    parts = [prepare_reference(recording, single, within=run) for recording, run in pairs]
    if settings.crop:
        pairs, parts = _best(pairs, parts, int(settings.max_seconds // LEAST_SECONDS), actions)
        parts = _cropped(pairs, parts, single)
    return _joined(parts, settings, actions)


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


def _best(
    pairs: list[tuple[Recording, Run | None]],
    parts: list[Reference],
    most: int,
    actions: list[str],
) -> tuple[list[tuple[Recording, Run | None]], list[Reference]]:
    """At most `most` parts, those with the fewest warnings and then the least noise."""
    order = sorted(
        range(len(parts)),
        key=lambda i: (len(parts[i].report.warnings), -parts[i].report.snr_db),
    )
    kept = sorted(order[:most])
    for number in sorted(order[most:]):
        actions.append(
            f"Left out {pairs[number][0].source}: {most} better recordings fill the reference."
        )
    return [pairs[i] for i in kept], [parts[i] for i in kept]


def _cropped(
    pairs: list[tuple[Recording, Run | None]], parts: list[Reference], settings: ReferenceSettings
) -> list[Reference]:
    """The parts, cut to fit together: each to its share, then each to what whole phrases of the
    others have left over."""
    room = settings.max_seconds - PAUSE_SECONDS * (len(parts) - 1)
    whole = [part.report.duration_out for part in parts]

    def cut(number: int, seconds: float) -> Reference:
        if seconds > whole[number] - 1e-6:
            return parts[number]
        small = settings.model_copy(update={"max_seconds": seconds})
        return prepare_reference(pairs[number][0], small)

    fitted = [cut(number, share) for number, share in enumerate(shares(whole, room))]
    for number, part in enumerate(fitted):
        left = room - sum(each.report.duration_out for each in fitted)
        if left > LEAST_LEFT and part.report.duration_out < whole[number] - 1e-6:
            fitted[number] = cut(number, part.report.duration_out + left)
    return fitted


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
