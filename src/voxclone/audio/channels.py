"""Which channels of a recording hold its speech: all of them, or one alone.

Recorders and calls put a microphone on one channel and hum, hiss or another speaker on the other;
their mean is worse than the channel with the speech. Measured on mean powers of frames of 20 ms,
while the recording is read.

Shapes: S samples, C channels, T frames of 20 ms.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxclone.audio import measure

CLEANER_DB = 6.0  # the SNR of one channel above that of the mean, from which on it is used alone
FAINTEST_DB = 40.0  # a channel so far below the loudest one holds only what leaks into it
AT_TIMES = 0.6  # envelopes of one speaker on two channels correlate above, those of two below
RANGE_DB = 40.0  # of levels that are compared, from the loudest frame down

Reason = Literal["opposite", "cleaner", "speakers"]


@dataclass(frozen=True)
class ChannelChoice:
    """The only channel to use, and why: the channels cancel each other, it alone is free of noise,
    or each has a speaker of its own."""

    channel: int
    reason: Reason


class ChannelPowers:
    """Mean powers of all channels, and of their mean, in frames of 20 ms; blocks are added."""

    def __init__(self, rate: int, channels: int) -> None:
        self._size = round(measure.FRAME_SECONDS * rate)
        self._rest_SC = np.zeros((0, channels + 1), np.float32)
        self._parts: list[np.ndarray] = []

    def add(self, block_SC: np.ndarray, mix_S: np.ndarray) -> None:
        """Add samples [S, C] and their mean [S]."""
        all_SC = np.concatenate([self._rest_SC, np.column_stack([block_SC, mix_S])])
        whole = len(all_SC) // self._size * self._size
        frames_TSC = all_SC[:whole].reshape(-1, self._size, all_SC.shape[1])
        self._parts.append(np.square(frames_TSC, dtype=np.float64).mean(axis=1).T)
        self._rest_SC = all_SC[whole:]

    def choose(self) -> ChannelChoice | None:
        """The channel to use alone; None if the mean of all is as good."""
        power_CT = np.concatenate(self._parts, axis=1)
        if power_CT.shape[1] < measure.MIN_STEADY_FRAMES or not np.isfinite(power_CT).all():
            return None
        power_CT, mix_T = power_CT[:-1], power_CT[-1]
        level_C = measure.to_db(power_CT.mean(axis=1))
        audible = np.flatnonzero(level_C > level_C.max() - FAINTEST_DB)
        speech = [c for c in audible.tolist() if not measure.is_steady(power_CT[c])]
        if not speech:
            return None
        loudest = max(speech, key=lambda c: float(level_C[c]))
        if any(_differ(power_CT[loudest], power_CT[c]) for c in speech if c != loudest):
            return ChannelChoice(loudest, "speakers")
        snr = {c: measure.estimate_snr(power_CT[c]) for c in speech}
        best = max(speech, key=snr.__getitem__)
        mixed = 0.0 if measure.is_steady(mix_T) else measure.estimate_snr(mix_T)
        if snr[best] > mixed + CLEANER_DB:
            return ChannelChoice(best, "cleaner")
        return None


def _differ(one_T: np.ndarray, other_T: np.ndarray) -> bool:
    """Whether two channels are loud at different times."""
    levels = [measure.to_db(power_T) for power_T in (one_T, other_T)]
    levels = [np.maximum(level_T - level_T.max(), -RANGE_DB) for level_T in levels]
    active_T = (levels[0] > -RANGE_DB) | (levels[1] > -RANGE_DB)
    if active_T.sum() < measure.MIN_STEADY_FRAMES:
        return False
    return float(np.corrcoef(levels[0][active_T], levels[1][active_T])[0, 1]) < AT_TIMES
