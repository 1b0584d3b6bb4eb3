"""From a recording to a reference: the segment of speech that a voice is made from.

The model copies its reference: loudness, room, hiss, and a sentence that stops in its middle. Each
step here mends one of those, can be switched off, and writes an action into the report. Nothing is
denoised, and only rumble below the voice is filtered, since both change the voice.

Shapes: S samples, T frames of 20 ms.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from voxclone.audio import filters, measure, segments
from voxclone.audio.files import Recording
from voxclone.audio.report import ReferenceReport, quality_hints, quality_warnings
from voxclone.audio.segments import Segment
from voxclone.config import Settings
from voxclone.errors import AudioError
from voxclone.spec import FRAME_SIZE, SAMPLING_RATE

FADE_SECONDS = 0.03
MAX_LOSS = 0.25  # of a reference, given up to let it end in a pause
MAX_GAIN_DB = 60.0  # beyond, only the noise of the converter is raised
OFFSET_SHARE = 0.01  # a constant offset below this share of the RMS does no harm
RUMBLE_SHARE = 0.001  # nor does rumble below this share of the energy


class ReferenceSettings(Settings):
    """What is done to a recording; each step can be switched off."""

    remove_offset: bool = True
    """Subtract a constant offset (DC)."""
    high_pass: bool = True
    """Filter out what is below `high_pass_hz`, if it is more than a thousandth of the energy."""
    high_pass_hz: float = Field(default=40.0, gt=0, le=filters.MAX_HZ)
    trim: bool = True
    """Cut silence before and after the speech, down to `lead_seconds` and `trail_seconds`."""
    lead_seconds: float = Field(default=0.1, ge=0)
    trail_seconds: float = Field(default=0.2, ge=0)
    crop: bool = True
    """Keep the best segment of at most `max_seconds`, from a pause to a pause."""
    max_seconds: float = Field(default=30.0, ge=2)
    end_on_pause: bool = True
    """Where speech is cut off at the end, cut back to the last pause, or fade out."""
    level: bool = True
    """Bring active speech to `level_dbfs`, with peaks of `max_peak` at most."""
    level_dbfs: float = Field(default=-20.0, le=0)
    """Near that of the presets: the model copies the level."""
    max_peak: float = Field(default=0.95, gt=0, le=1)
    avoid_miscount: bool = True
    """Drop the sample that makes mistral-common count one placeholder too many."""
    frame_size: int = Field(default=FRAME_SIZE, gt=0)
    """Samples in a frame of the codec."""
    min_seconds: float = Field(default=1.0, ge=0.1)
    """Less than this is an error; less than `short_seconds` is a warning."""
    short_seconds: float = Field(default=3.0, ge=0)


DEFAULT_SETTINGS = ReferenceSettings()


@dataclass(frozen=True, eq=False)
class Reference:
    """Samples [S] (float32, mono, 24 kHz) to make a voice from, and the report on them."""

    wave_S: np.ndarray
    report: ReferenceReport


def prepare_reference(
    recording: Recording,
    settings: ReferenceSettings = DEFAULT_SETTINGS,
    *,
    segment: Segment | None = None,
) -> Reference:
    """Offset, rumble, trim, crop, end in a pause, level, length. The recording is not changed.

    `segment`, where given, is kept instead of the one with the most speech (see
    `candidate_segments`). Raises AudioError for less than `settings.min_seconds`, and for a
    recording that is only an offset. Other defects are warnings in the report.
    """
    rate = recording.sampling_rate
    if recording.duration < settings.min_seconds:
        raise AudioError(
            f"{recording.source} is {recording.duration:.2f} s long, but a voice needs at least "
            f"{settings.min_seconds:g} s of speech (10 to 16 s are best).",
            "too short",
        )
    actions, warnings = list(recording.notes), list(recording.warnings)
    wave_S = recording.wave_S
    if settings.remove_offset:
        wave_S = _without_offset(recording, actions)
    if settings.high_pass:
        wave_S = _without_rumble(wave_S, rate, settings.high_pass_hz, actions)
    total, power_T = len(wave_S), measure.frame_powers(wave_S, rate)
    speech = _speech_in(power_T, rate, total)
    if segment is None:
        segment = _choose_segment(speech, power_T, total, rate, settings, actions, warnings)
    else:
        actions.append(f"Kept {_seconds(segment, rate)} of {total / rate:.2f} s.")
    kept_S = wave_S[segment.start : segment.end].astype(np.float64)
    level = measure.speech_level(kept_S, rate)
    gain_db = _gain(level, float(np.abs(kept_S).max()), settings, actions)
    bandwidth = measure.bandwidth(kept_S, rate)
    kept_S *= 10 ** (gain_db / 20)
    broken = segments.cut_off(speech, total, rate, segment.end) is not None
    if settings.end_on_pause and broken:
        _fade_out(kept_S, rate, actions, warnings)
    kept_S = countable_wave(kept_S, settings, actions)
    segment = Segment(segment.start, segment.start + len(kept_S))

    steady = [each for each in speech if _is_steady(each, power_T, rate)]
    steady_share = sum(each.overlap(segment) for each in steady) / segment.length
    loud_share = sum(each.overlap(segment) for each in speech) / segment.length
    report = ReferenceReport(
        source=recording.source,
        native_rate=recording.native_rate,
        channels=recording.channels,
        duration_in=recording.duration,
        duration_out=len(kept_S) / rate,
        start=segment.start / rate,
        end=segment.end / rate,
        speech_share=loud_share - steady_share,
        steady_share=steady_share,
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


def _is_steady(segment: Segment, power_T: np.ndarray, rate: int) -> bool:
    """Whether a segment between pauses is a noise, a hum or a tone; `power_T` is of the whole."""
    size = round(measure.FRAME_SECONDS * rate)
    return measure.is_steady(power_T[segment.start // size : segment.end // size])


def candidate_segments(
    recording: Recording, settings: ReferenceSettings, count: int
) -> list[Segment]:
    """Up to `count` segments of a recording that could be its reference: each from pause to pause,
    at most `settings.max_seconds` long, those with the most speech first."""
    rate, wave_S = recording.sampling_rate, recording.wave_S
    if settings.high_pass:
        wave_S = filters.high_pass(wave_S, rate, settings.high_pass_hz)
    speech = _speech_in(measure.frame_powers(wave_S, rate), rate, len(wave_S))
    lead, trail, least, most = _lengths(settings, rate)
    found = segments.good_segments(speech, len(wave_S), lead, trail, most, count)
    return [segment for segment in found if segment.length >= least]


def countable_length(samples: int, rate: int = SAMPLING_RATE, frame_size: int = FRAME_SIZE) -> int:
    """The greatest length up to `samples` whose frames mistral-common counts right.

    It counts ceil(seconds x frames per second) in floating point. At some whole numbers of frames,
    that is one more than there are.
    """
    while math.ceil(samples / rate * (rate / frame_size)) != -(-samples // frame_size):
        samples -= 1
    return samples


def countable_wave(
    wave_S: np.ndarray, settings: ReferenceSettings, actions: list[str]
) -> np.ndarray:
    """The wave at its `countable_length`, if the settings ask for that."""
    length = countable_length(len(wave_S), SAMPLING_RATE, settings.frame_size)
    if not settings.avoid_miscount or length == len(wave_S):
        return wave_S
    actions.append(
        f"Dropped the last of {len(wave_S)} samples: at this length mistral-common counts one "
        "placeholder too many."
    )
    return wave_S[:length]


def _lengths(settings: ReferenceSettings, rate: int) -> tuple[int, int, int, int]:
    """Samples of `lead_seconds`, `trail_seconds`, `min_seconds` and `max_seconds`."""
    lead, trail = round(settings.lead_seconds * rate), round(settings.trail_seconds * rate)
    return lead, trail, round(settings.min_seconds * rate), int(settings.max_seconds * rate)


def _seconds(segment: Segment, rate: int) -> str:
    return f"{segment.start / rate:.2f} s to {segment.end / rate:.2f} s"


def _without_offset(recording: Recording, actions: list[str]) -> np.ndarray:
    wave_S = recording.wave_S
    offset = float(wave_S.mean(dtype=np.float64))
    rms = math.sqrt(float(np.square(wave_S, dtype=np.float64).mean()))
    if abs(offset) <= OFFSET_SHARE * rms:
        return wave_S
    centered_S = (wave_S - offset).astype(np.float32)
    if float(np.abs(centered_S).max()) < 1e-5 * abs(offset):
        raise AudioError(f"{recording.source} holds no sound, only a constant offset.", "silent")
    actions.append(f"Subtracted a constant offset of {offset:.3g} (DC).")
    return centered_S


def _without_rumble(
    wave_S: np.ndarray, rate: int, cutoff_hz: float, actions: list[str]
) -> np.ndarray:
    filtered_S = filters.high_pass(wave_S, rate, cutoff_hz)
    energy = float(np.square(wave_S, dtype=np.float64).sum())
    share = float(np.square(wave_S - filtered_S, dtype=np.float64).sum()) / max(energy, 1e-30)
    if share < RUMBLE_SHARE or not filtered_S.any():
        return wave_S
    actions.append(f"Filtered out rumble below {cutoff_hz:g} Hz, {share:.1%} of the energy.")
    return filtered_S


def _speech_in(power_T: np.ndarray, rate: int, total: int) -> list[Segment]:
    """Speech between pauses; the last frame reaches to the end of the recording."""
    size = round(measure.FRAME_SECONDS * rate)
    frames = measure.speech_segments(measure.active_frames(power_T))
    return [Segment(a * size, total if b == len(power_T) else b * size) for a, b in frames]


def _choose_segment(
    speech: list[Segment],
    power_T: np.ndarray,
    total: int,
    rate: int,
    settings: ReferenceSettings,
    actions: list[str],
    warnings: list[str],
) -> Segment:
    """The samples to keep; each cut is appended to `actions` or `warnings`."""
    lead, trail, least, most = _lengths(settings, rate)
    kept = Segment(0, total)
    if settings.trim:
        kept = segments.trim(speech, total, lead, trail, least)
        if total - kept.length >= measure.FRAME_SECONDS * rate:
            actions.append(
                f"Cut {kept.start / rate:.2f} s before the speech and "
                f"{(total - kept.end) / rate:.2f} s after it."
            )
    if kept.length > most and settings.crop:
        found = segments.best_segment(speech, total, lead, trail, most)
        kept = found or segments.hard_cut(speech, power_T, rate, lead, most)
        kept = segments.lengthen(kept, total, least)
        where = "the most speech between two pauses" if found else "there is no pause to end on"
        actions.append(
            f"Kept {_seconds(kept, rate)} of {total / rate:.2f} s, as more than "
            f"{settings.max_seconds:g} s cannot be used: {where}."
        )
    elif kept.length > most:
        warnings.append(f"Long: more than {settings.max_seconds:g} s are of no use to the model.")
    broken = segments.cut_off(speech, total, rate, kept.end)
    if not settings.end_on_pause or broken is None:
        return kept
    pause = segments.last_pause(speech, broken, kept.start, trail)
    if pause is None or pause - kept.start < least or kept.end - pause >= MAX_LOSS * kept.length:
        return kept
    actions.append(
        f"Cut the last {(kept.end - pause) / rate:.2f} s, so that it ends in the pause at "
        f"{pause / rate:.2f} s instead of in the middle of speech."
    )
    return Segment(kept.start, pause)


def _fade_out(wave_S: np.ndarray, rate: int, actions: list[str], warnings: list[str]) -> None:
    """Fade out the end of a wave, in place."""
    fade = round(FADE_SECONDS * rate)
    wave_S[-fade:] *= np.linspace(1, 0, fade)
    actions.append(f"Faded out the last {FADE_SECONDS * 1000:.0f} ms.")
    warnings.append(
        "It ends in the middle of speech, which the model tends to carry on: record it again "
        "with a pause at the end."
    )


def _gain(level: float, peak: float, settings: ReferenceSettings, actions: list[str]) -> float:
    """Decibels that bring active speech to its level, as far as peaks allow."""
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
