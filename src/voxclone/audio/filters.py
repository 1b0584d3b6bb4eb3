"""A high-pass against rumble: steps, traffic, wind, hum of air ducts.

The filter has no phase and falls by 24 dB an octave. It leaves a low voice alone, whose pitch
begins at 60 Hz; recordings filtered at 80 Hz and above lose the body of such voices
(mlx-voxtral-swift, docs/voice_cloning.md).

Shapes: S samples, F frequency bins.
"""

import numpy as np

MAX_HZ = 50.0
ORDER = 4
BLOCK_SECONDS, CONTEXT_SECONDS = 20.0, 0.5


def high_pass(wave_S: np.ndarray, rate: int, cutoff_hz: float) -> np.ndarray:
    """Samples [S] (float32) without frequencies below `cutoff_hz` (-3 dB there, 24 dB an octave).

    Filtered in blocks with half a second of context, so that ten minutes need little memory.
    """
    context = round(CONTEXT_SECONDS * rate)
    # A short clip is one block of whole half seconds, a length that transforms quickly.
    block = min(round(BLOCK_SECONDS * rate), -(-len(wave_S) // context) * context)
    size = block + 2 * context
    frequency_F = np.fft.rfftfreq(size, 1 / rate)
    with np.errstate(divide="ignore"):
        gain_F = 1 / np.sqrt(1 + (cutoff_hz / frequency_F) ** (2 * ORDER))
    filtered_S = np.empty(len(wave_S), np.float32)
    for start in range(0, len(wave_S), block):
        part_S = np.zeros(size)
        first, last = max(start - context, 0), min(start + block + context, len(wave_S))
        offset = first - (start - context)
        part_S[offset : offset + last - first] = wave_S[first:last]
        kept_S = np.fft.irfft(np.fft.rfft(part_S) * gain_F, size)[context : context + block]
        filtered_S[start : start + block] = kept_S[: len(wave_S) - start]
    return filtered_S
