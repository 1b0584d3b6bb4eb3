"""From a recording to a reference: the stretch of speech that a voice is made from.

The model copies what it is given: loudness, room, hiss, and a sentence that stops in its middle.
Each step here mends one of those, can be switched off, and says in the report what it did. Nothing
is denoised, and only rumble below the voice is filtered, since both change the voice.

Shapes: S samples, T frames of 20 ms.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from voxclone.audio import filters, measure, stretch
from voxclone.audio.files import Recording
from voxclone.audio.report import ReferenceReport, quality_hints, quality_warnings
from voxclone.config import Settings
from voxclone.errors import AudioError
from voxclone.spec import FRAME_SIZE, SAMPLING_RATE

__all__ = [
    "Reference",
    "ReferenceReport",
    "ReferenceSettings",
    "countable_length",
    "crops",
    "prepare_reference",
]

FADE_SECONDS = 0.03
MAX_LOSS = 0.25  # of a reference, given up to let it end on a pause
MAX_GAIN_DB = 60.0  # beyond, only the noise of the converter is raised
OFFSET_SHARE = 0.01  # a constant offset below this share of the RMS does no harm
RUMBLE_SHARE = 0.001  # nor does rumble below this share of the energy


class ReferenceSettings(Settings):
    """What is done to a recording; each step can be switched off."""

    remove_offset: bool = True
    """Subtract a constant offset (DC)."""
    high_pass: bool = True
    """Take out what lies below `high_pass_hz`, where it is more than a thousandth of the energy."""
    high_pass_hz: float = Field(default=40.0, gt=0, le=filters.MAX_HZ)
    trim: bool = True
    """Cut silence before and after the speech, down to `lead_seconds` and `trail_seconds`."""
    lead_seconds: float = Field(default=0.1, ge=0)
    trail_seconds: float = Field(default=0.2, ge=0)
    crop: bool = True
    """Keep the best stretch of at most `max_seconds`, from a pause to a pause."""
    max_seconds: float = Field(default=30.0, ge=2)
    end_on_pause: bool = True
    """Where the recording stops in the middle of speech, cut back to the last pause or fade."""
    level: bool = True
    """Bring active speech to `level_dbfs`, with peaks of `max_peak` at most."""
    level_dbfs: float = Field(default=-20.0, le=0)
    """Near that of the presets, which are copied as loud as they are."""
    max_peak: float = Field(default=0.95, gt=0, le=1)
    avoid_miscount: bool = True
    """Drop the sample that makes mistral-common count one placeholder too many."""
    frame_size: int = Field(default=FRAME_SIZE, gt=0)
    """Samples in a frame of the codec."""
    min_seconds: float = Field(default=1.0, ge=0.1)
    """Less than this is refused; less than `short_seconds` is warned of."""
    short_seconds: float = Field(default=3.0, ge=0)


DEFAULT_SETTINGS = ReferenceSettings()


@dataclass(frozen=True, eq=False)
class Reference:
    """Samples [S] (float32, mono, 24 kHz) fit to make a voice from, and how they came about."""

    wave_S: np.ndarray
    report: ReferenceReport


def prepare_reference(
    recording: Recording,
    settings: ReferenceSettings = DEFAULT_SETTINGS,
    *,
    within: stretch.Run | None = None,
) -> Reference:
    """Offset, rumble, trim, crop, end on a pause, level, length. The recording is not changed.

    `within` is one of `crops` to keep instead of the stretch with the most speech. Raises
    AudioError for less than `settings.min_seconds` and for a recording that is nothing but
    an offset. Whatever else is odd is used, with a warning in the report.
    """
    rate = recording.sampling_rate
    if recording.duration < settings.min_seconds:
        raise AudioError(
            f"{recording.source} is {recording.duration:.2f} s long, but a voice needs at least "
            f"{settings.min_seconds:g} s of speech (10 to 16 s are best).",
            "too short",
        )
    actions, warnings = list(recording.notes), list[str]()
    wave_S = recording.wave_S
    if settings.remove_offset:
        wave_S = _without_offset(recording, actions)
    if settings.high_pass:
        wave_S = _without_rumble(wave_S, rate, settings.high_pass_hz, actions)
    power_T = measure.frame_powers(wave_S, rate)
    runs = _speech_runs(power_T, rate, len(wave_S))
    if within is None:
        start, end = _choose_range(runs, power_T, len(wave_S), rate, settings, actions, warnings)
    else:
        start, end = within
        actions.append(
            f"Kept {start / rate:.2f} s to {end / rate:.2f} s of {len(wave_S) / rate:.2f} s."
        )
    kept_S = wave_S[start:end].astype(np.float64)
    level = measure.active_level(kept_S, rate)
    gain_db = _gain(level, float(np.abs(kept_S).max()), settings, actions)
    bandwidth = measure.bandwidth(kept_S, rate)

    kept_S *= 10 ** (gain_db / 20)
    if settings.end_on_pause and stretch.broken_run(runs, len(wave_S), rate, end) is not None:
        fade = round(FADE_SECONDS * rate)
        kept_S[-fade:] *= np.linspace(1, 0, fade)
        actions.append(f"Faded out the last {FADE_SECONDS * 1000:.0f} ms.")
        warnings.append(
            "It ends in the middle of speech, which the model tends to carry on: record it again "
            "with a pause at the end."
        )
    length = countable_length(len(kept_S), rate, settings.frame_size)
    if settings.avoid_miscount and length < len(kept_S):
        actions.append(
            f"Dropped the last of {len(kept_S)} samples: at this length mistral-common counts one "
            "placeholder too many."
        )
        kept_S, end = kept_S[:length], start + length
    report = ReferenceReport(
        source=recording.source,
        native_rate=recording.native_rate,
        channels=recording.channels,
        duration_in=recording.duration,
        duration_out=len(kept_S) / rate,
        start=start / rate,
        end=end / rate,
        speech_share=_overlap(runs, start, end) / (end - start),
        level_before_dbfs=level,
        gain_db=gain_db,
        clipped_share=recording.clipped_share,
        snr_db=measure.estimate_snr(power_T),
        bandwidth_hz=min(bandwidth, recording.native_rate / 2),
        actions=tuple(actions),
    )
    warnings = quality_warnings(report, settings.short_seconds) + warnings
    report = replace(report, warnings=tuple(warnings), hints=tuple(quality_hints(report)))
    return Reference(kept_S.astype(np.float32), report)


def crops(recording: Recording, settings: ReferenceSettings, count: int) -> list[stretch.Run]:
    """Up to `count` stretches of a recording that could serve as its reference, in samples: each
    from a pause to a pause, `settings.max_seconds` at most and the fullest of speech first."""
    rate, wave_S = recording.sampling_rate, recording.wave_S
    if settings.high_pass:
        wave_S = filters.high_pass(wave_S, rate, settings.high_pass_hz)
    runs = _speech_runs(measure.frame_powers(wave_S, rate), rate, len(wave_S))
    lead, trail = round(settings.lead_seconds * rate), round(settings.trail_seconds * rate)
    least, most = round(settings.min_seconds * rate), int(settings.max_seconds * rate)
    found = stretch.good_stretches(runs, len(wave_S), lead, trail, most, count)
    return [run for run in found if run[1] - run[0] >= least]


def countable_length(samples: int, rate: int = SAMPLING_RATE, frame_size: int = FRAME_SIZE) -> int:
    """The greatest length up to `samples` of which mistral-common counts the frames rightly.

    It counts ceil(seconds x frames per second) in floating point, which at some whole numbers of
    frames is one more than there are.
    """
    while math.ceil(samples / rate * (rate / frame_size)) != -(-samples // frame_size):
        samples -= 1
    return samples


def _without_offset(recording: Recording, actions: list[str]) -> np.ndarray:
    wave_S = recording.wave_S
    offset = float(wave_S.mean(dtype=np.float64))
    rms = math.sqrt(float(np.square(wave_S, dtype=np.float64).mean()))
    if abs(offset) <= OFFSET_SHARE * rms:
        return wave_S
    centred_S = (wave_S - offset).astype(np.float32)
    if float(np.abs(centred_S).max()) < 1e-5 * abs(offset):
        raise AudioError(f"{recording.source} holds no sound, only a constant offset.", "silent")
    actions.append(f"Subtracted a constant offset of {offset:.3g} (DC).")
    return centred_S


def _without_rumble(
    wave_S: np.ndarray, rate: int, cutoff_hz: float, actions: list[str]
) -> np.ndarray:
    filtered_S = filters.high_pass(wave_S, rate, cutoff_hz)
    energy = float(np.square(wave_S, dtype=np.float64).sum())
    share = float(np.square(wave_S - filtered_S, dtype=np.float64).sum()) / max(energy, 1e-30)
    if share < RUMBLE_SHARE or not filtered_S.any():
        return wave_S
    actions.append(f"Took out {share:.1%} of the energy, which was rumble below {cutoff_hz:g} Hz.")
    return filtered_S


def _speech_runs(power_T: np.ndarray, rate: int, total: int) -> list[stretch.Run]:
    """Speech between pauses, in samples; the last frame reaches to the end of the recording."""
    size = round(measure.FRAME_SECONDS * rate)
    frames = measure.speech_runs(measure.active_frames(power_T))
    return [(a * size, total if b == len(power_T) else b * size) for a, b in frames]


def _overlap(runs: list[stretch.Run], start: int, end: int) -> int:
    return sum(max(min(last, end) - max(first, start), 0) for first, last in runs)


def _choose_range(
    runs: list[stretch.Run],
    power_T: np.ndarray,
    total: int,
    rate: int,
    settings: ReferenceSettings,
    actions: list[str],
    warnings: list[str],
) -> stretch.Run:
    """The samples to keep; what was cut is appended to `actions` and `warnings`."""
    lead, trail = round(settings.lead_seconds * rate), round(settings.trail_seconds * rate)
    least, most = round(settings.min_seconds * rate), int(settings.max_seconds * rate)
    start, end = 0, total
    if settings.trim:
        start, end = stretch.trimmed(runs, total, lead, trail, least)
        if start + total - end >= measure.FRAME_SECONDS * rate:
            actions.append(
                f"Cut {start / rate:.2f} s before the speech and {(total - end) / rate:.2f} s "
                "after it."
            )
    if end - start > most and settings.crop:
        found = stretch.best_stretch(runs, total, lead, trail, most)
        start, end = found or stretch.hard_cut(runs, power_T, rate, lead, most)
        start, end = stretch.widened(start, end, total, least)
        where = "the most speech between two pauses" if found else "there is no pause to end on"
        actions.append(
            f"Kept {start / rate:.2f} s to {end / rate:.2f} s of {total / rate:.2f} s, as more "
            f"than {settings.max_seconds:g} s cannot be used: {where}."
        )
    elif end - start > most:
        warnings.append(f"Long: more than {settings.max_seconds:g} s are of no use to the model.")
    broken = stretch.broken_run(runs, total, rate, end)
    if settings.end_on_pause and broken is not None:
        pause = stretch.last_pause(runs, broken, start, trail)
        if pause is not None and pause - start >= least and end - pause < MAX_LOSS * (end - start):
            actions.append(
                f"Cut the last {(end - pause) / rate:.2f} s, so that it ends in the pause at "
                f"{pause / rate:.2f} s instead of in the middle of speech."
            )
            end = pause
    return start, end


def _gain(level: float, peak: float, settings: ReferenceSettings, actions: list[str]) -> float:
    """Decibels to add, so that active speech has the wanted level and no peak is too high."""
    if not settings.level:
        return 0.0
    wanted = min(settings.level_dbfs - level, MAX_GAIN_DB)
    allowed = 20 * math.log10(settings.max_peak / max(peak, 1e-30))
    gain_db = min(wanted, allowed)
    if abs(gain_db) < 0.05:
        return 0.0 if peak <= settings.max_peak else gain_db
    verb = "Raised" if gain_db > 0 else "Lowered"
    limit = ""
    if allowed < wanted:
        limit = f" and not to {settings.level_dbfs:g}, to keep peaks within {settings.max_peak:g}"
    actions.append(
        f"{verb} the level by {abs(gain_db):.1f} dB: speech is now at {level + gain_db:.1f} dBFS"
        f"{limit}."
    )
    return gain_db
