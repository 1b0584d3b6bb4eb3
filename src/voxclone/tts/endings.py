"""The end of generated speech: where it falls silent, and fades that leave no click.

Shapes: S samples, T frames of 20 ms.
"""

import numpy as np
import torch
from torch import Tensor

from voxclone.audio import measure

FADE_SECONDS = 0.005
SOUND_DBFS, LOUD_DBFS = -50.0, -40.0
"""Levels of frames of 20 ms: audible, and loud. A sound is taken for a word if it has a loud frame
and SHORTEST_SECONDS of audible ones, with gaps under 0.2 s. Chosen for the packaged model, whose
presets speak at -25, and which hums at -55 where it has lost its text; no other was measured."""
SHORTEST_SECONDS = 0.1
"""Of sound in a word; what is shorter is a click. Of 193 draws of "Hi", "No", "OK" and "Yes." that
the packaged model ended by itself, 190 have 0.22 s or more, and 3 less than 0.1 s."""
TAIL_SECONDS = 0.2
"""Kept after the last speech."""


def is_silent(wave_S: Tensor, rate: int) -> bool:
    """Whether a wave has no word: a sound of 0.1 s or more, most of it audible, that is loud
    somewhere (`SOUND_DBFS`, `LOUD_DBFS`, `SHORTEST_SECONDS`)."""
    if not len(wave_S):
        return True
    level_T = measure.to_db(measure.frame_powers(wave_S.numpy(), rate))
    return not _words(level_T, level_T >= SOUND_DBFS)


def speech_end(wave_S: Tensor, rate: int) -> int:
    """Samples up to the end of the last word, and a short pause; that pause alone if there is no
    word (see `is_silent`), and all samples if it goes on to the end. A word counts where it is not
    as steady as noise, too, if any such word is there."""
    power_T = measure.frame_powers(wave_S.numpy(), rate)
    level_T = measure.to_db(power_T)
    audible_T = level_T >= SOUND_DBFS
    # A steady noise may be audible after the speech, too; a short word may be as steady.
    speech_T = audible_T & measure.active_frames(power_T)
    words = _words(level_T, speech_T) or _words(level_T, audible_T)
    last = words[-1][1] if words else 0
    size = round(measure.FRAME_SECONDS * rate)
    return min(last * size + round(TAIL_SECONDS * rate), len(wave_S))


def _words(level_T: np.ndarray, audible_T: np.ndarray) -> list[tuple[int, int]]:
    """Segments (first frame, end frame) of audible frames that are loud and long enough for a word:
    a frame at LOUD_DBFS, and SHORTEST_SECONDS of audible ones."""
    return [
        (start, end)
        for start, end in measure.sound_segments(audible_T)
        if level_T[start:end].max() >= LOUD_DBFS
        and audible_T[start:end].sum() * measure.FRAME_SECONDS >= SHORTEST_SECONDS - 1e-9
    ]


def fade(wave_S: Tensor, rate: int, *, start: bool = True, end: bool = True) -> Tensor:
    """The wave, faded in over its first 5 ms and out over its last, at the ends that are asked
    for."""
    size = min(round(FADE_SECONDS * rate), len(wave_S))
    ramp_S = torch.from_numpy(np.sin(np.linspace(0, np.pi / 2, size)) ** 2).to(wave_S.dtype)
    faded_S = wave_S.clone()
    if start:
        faded_S[:size] *= ramp_S
    if end and size:
        faded_S[-size:] *= ramp_S.flip(0)
    return faded_S
