"""Sounds with the structure of speech, made here so that the truth about them is known."""

from collections.abc import Sequence

import numpy as np

RATE = 24000


def syllables(seconds: float, rate: int = RATE, seed: int = 0, top_hz: float = 1e9) -> np.ndarray:
    """A phrase [S] without pauses: harmonics of 120 Hz under a 4 Hz envelope."""
    count = round(seconds * rate)
    time_S = np.arange(count) / rate
    numbers = np.arange(1, int(min(rate / 2 - 1, top_hz) / 120) + 1)
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(numbers))
    spectrum = np.zeros(count // 2 + 1, complex)
    bins = np.round(numbers * 120 * seconds).astype(int)
    spectrum[bins[bins < len(spectrum)]] = (np.exp(1j * phases) / numbers)[bins < len(spectrum)]
    wave_S = np.fft.irfft(spectrum, count) * (count / 2)
    envelope_S = 0.55 - 0.45 * np.cos(2 * np.pi * 4 * time_S)
    edge_S = np.minimum(1, np.minimum(time_S, time_S[::-1]) / 0.02)
    return np.asarray(wave_S * envelope_S * edge_S * 0.1)


def speech(
    phrases: Sequence[float],
    pauses: Sequence[float],
    rate: int = RATE,
    noise_db: float = -75.0,
    top_hz: float = 1e9,
) -> np.ndarray:
    """Phrases (seconds) with pauses before, between and after them (one more), float32 [S].

    The noise floor is white, at `noise_db` dBFS.
    """
    assert len(pauses) == len(phrases) + 1
    parts = [np.zeros(round(pauses[0] * rate))]
    for number, (phrase, pause) in enumerate(zip(phrases, pauses[1:], strict=True)):
        parts += [syllables(phrase, rate, number, top_hz), np.zeros(round(pause * rate))]
    wave_S = np.concatenate(parts)
    noise_S = np.random.default_rng(99).standard_normal(len(wave_S))
    return (wave_S + 10 ** (noise_db / 20) * noise_S).astype(np.float32)
