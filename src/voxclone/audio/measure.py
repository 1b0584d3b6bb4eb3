"""Measurements of recorded speech without a network: activity, level, noise, bandwidth.

All of them use the power of frames of 20 ms. Levels are in dBFS, where a square wave of amplitude 1
has 0 dB.

Shapes: S samples, T frames, F frequency bins.
"""

import numpy as np

FRAME_SECONDS = 0.02
SPEECH_RANGE_DB = 30.0  # from the loud frames of speech to its quiet ones
NOISE_MARGIN_DB = 6.0  # of speech above a steady noise
MIN_STEADY_FRAMES = 50  # a vowel may be steady for half a second
STEADY_DB = (
    6.0  # the levels of runs of speech of a second vary by 16 dB or more, those of noise by 1
)
MIN_PAUSE_SECONDS = 0.2  # shorter gaps are the closures of p, t, k
MIN_BURST_SECONDS = 0.1  # shorter sounds between pauses are clicks
SILENCE_DBFS = -100.0  # nothing that a microphone gave is below
MAX_SNR_DB = 100.0
BANDWIDTH_RANGE_DB = 65.0
BAND_HZ = 250.0


def to_db(power: np.ndarray | float) -> np.ndarray:
    """Decibels of a power, at least -300."""
    return np.asarray(10 * np.log10(np.maximum(power, 1e-30)))


def frame_powers(wave_S: np.ndarray, rate: int) -> np.ndarray:
    """Mean square [T] (float64) of consecutive frames of 20 ms; the last takes what is left over.

    A wave shorter than a frame is one frame.
    """
    size = round(FRAME_SECONDS * rate)
    count = max(len(wave_S) // size, 1)
    whole_T = np.arange(count) * size
    sums_T = np.add.reduceat(np.square(wave_S, dtype=np.float64), whole_T)
    return sums_T / np.diff(np.append(whole_T, len(wave_S)))


def loud_level(power_T: np.ndarray) -> float:
    """Level in dBFS of the loud frames: half of the energy is in frames that are louder.

    It does not depend on how much of the recording is pause. The few loudest frames do not count,
    because one slammed door can hold more energy than a minute of speech.
    """
    sorted_T = np.sort(power_T)
    clicks = min(5 + len(sorted_T) // 1000, len(sorted_T) // 4)
    kept_T = sorted_T[: len(sorted_T) - clicks]
    energy_T = np.cumsum(kept_T)
    return float(to_db(kept_T[np.searchsorted(energy_T, energy_T[-1] / 2)]))


def active_frames(power_T: np.ndarray) -> np.ndarray:
    """Whether each frame [T] is loud enough to be speech.

    The threshold is 30 dB below the loud frames, or 6 dB above the quiet ones (halfway, where
    that is less) if noise fills the pauses. A sound without quieter parts is all active.
    """
    level_T = to_db(power_T)
    loud, quiet = loud_level(power_T), float(np.percentile(level_T, 5))
    if loud - quiet < 3:
        return np.ones(len(level_T), dtype=bool)
    margin = min(NOISE_MARGIN_DB, (loud - quiet) / 2)
    return level_T > max(loud - SPEECH_RANGE_DB, quiet + margin)


def speech_segments(active_T: np.ndarray) -> list[tuple[int, int]]:
    """Segments (first frame, end frame) of speech between pauses, as `sound_segments` finds them.
    Never empty: where there is none, the whole is one segment."""
    return sound_segments(active_T) or [(0, len(active_T))]


def sound_segments(active_T: np.ndarray) -> list[tuple[int, int]]:
    """Segments (first frame, end frame) of active frames. Gaps under 0.2 s are bridged, and lone
    bursts under 0.1 s are left out."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active_T, [False]]).astype(np.int8)))
    segments: list[tuple[int, int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if segments and (start - segments[-1][1]) * FRAME_SECONDS < MIN_PAUSE_SECONDS - 1e-9:
            segments[-1] = (segments[-1][0], end)
        else:
            segments.append((start, end))
    least = MIN_BURST_SECONDS - 1e-9
    return [each for each in segments if (each[1] - each[0]) * FRAME_SECONDS >= least]


def is_steady(power_T: np.ndarray) -> bool:
    """Whether frames [T] hold a steady sound, such as noise, hum or a tone: for a second or more,
    nine in ten of them are within 6 dB. Not so for any of 991 runs of speech in 14 languages."""
    if len(power_T) < MIN_STEADY_FRAMES:
        return False
    low, high = np.percentile(to_db(power_T[1:-1]), [5, 95])
    return bool(high - low < STEADY_DB)


def speech_level(wave_S: np.ndarray, rate: int) -> float:
    """Level in dBFS over the active frames: pauses do not count (as in ITU-T P.56)."""
    power_T = frame_powers(wave_S, rate)
    return float(to_db(power_T[active_frames(power_T)].mean()))


def estimate_snr(power_T: np.ndarray) -> float:
    """Level of speech above that of the pauses in dB, from 0 to 100.

    The noise is the lower quartile of the frames outside of speech. Digital silence does not count:
    gates and editors put it there. Without any pause, the noise is the quietest twentieth of all
    frames, and the SNR is a lower bound.
    """
    level_T = to_db(power_T)
    active_T = active_frames(power_T)
    pause_T = np.ones(len(level_T), dtype=bool)
    for start, end in speech_segments(active_T):
        pause_T[start:end] = False
    noise_T = level_T[pause_T & (level_T > SILENCE_DBFS)]
    if len(noise_T) >= 5:
        noise_db = float(np.percentile(noise_T, 25))
    elif pause_T.any():
        return MAX_SNR_DB
    else:
        noise_db = float(np.percentile(level_T, 5))
    noise = 10 ** (noise_db / 10)
    speech = float(power_T[active_T].mean()) - noise  # the noise goes on while somebody speaks
    return float(np.clip(to_db(speech / noise), 0.0, MAX_SNR_DB))


def bandwidth(wave_S: np.ndarray, rate: int) -> float:
    """The highest frequency in Hz within 65 dB of the peak of the long-term spectrum.

    The spectrum is the mean power of Hann windows of 2048 samples, summed over bands of 250 Hz, so
    that the gaps between harmonics do not count.
    """
    size = 2048
    padded_S = np.pad(wave_S, (0, max(size - len(wave_S), 0))).astype(np.float64)
    windows_TS = np.lib.stride_tricks.sliding_window_view(padded_S, size)[:: size // 2]
    power_F = np.zeros(size // 2 + 1)
    for start in range(0, len(windows_TS), 64):  # so that a long recording needs little memory
        part_TS = windows_TS[start : start + 64] * np.hanning(size)
        power_F += np.square(np.abs(np.fft.rfft(part_TS))).sum(axis=0)
    bins = max(round(BAND_HZ * size / rate), 1)
    band_F = np.add.reduceat(power_F, np.arange(0, len(power_F) - 1, bins))
    within = np.flatnonzero(band_F >= band_F.max() * 10 ** (-BANDWIDTH_RANGE_DB / 10))
    return float(min((within[-1] + 1) * bins * rate / size, rate / 2))
