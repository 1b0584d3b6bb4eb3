"""Which character is spoken when: CTC forced alignment with the small recognizer.

Shapes: T recognizer frames (50 Hz), V characters and the blank, L characters of a text.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from voxclone.models.ctc_asr import BLANK, HOP, STRIDE, Recognizer, normalize_text
from voxclone.spec import SAMPLING_RATE

FRAME_SECONDS = HOP * STRIDE / SAMPLING_RATE


@dataclass(frozen=True)
class Transcript:
    """Text ids of a clip, and when each begins (seconds at speed 1; None where not known)."""

    ids: list[int]
    seconds: list[float] | None


def align_transcript(
    recognizer: Recognizer, wave_S: Tensor, text: str, ids: list[int]
) -> Transcript:
    """Times of the ids of a text, which are its bytes."""
    normal = normalize_text(text)
    with torch.inference_mode():
        wave_BS = wave_S[None].to(recognizer.output.weight.device)
        log_probs_TV = recognizer(recognizer.features(wave_BS))[0].cpu().numpy()
    spelled = [(index, code) for index, c in enumerate(normal) for code in recognizer.spell(c)]
    first = align(log_probs_TV, [code for _, code in spelled])
    if first is None or len(ids) != len(text.encode()):
        return Transcript(ids, None)
    positions = character_positions(text, normal)
    byte_at = np.cumsum([0, *(len(c.encode()) for c in text)])
    seconds = np.full(len(ids), np.nan)
    for (index, _), frame in zip(spelled, first, strict=True):
        seconds[byte_at[positions[index]]] = frame * FRAME_SECONDS
    known = ~np.isnan(seconds)
    order = np.arange(len(ids))
    filled = np.maximum.accumulate(np.interp(order, order[known], seconds[known]))
    return Transcript(ids, [round(float(s), 3) for s in filled])


def align(log_probs_TV: np.ndarray, spelled: list[int]) -> np.ndarray | None:
    """First frame [L] of each character on the best CTC path, or None if the text does not fit into
    the frames (Viterbi over blanks and characters in turn)."""
    states = np.full(2 * len(spelled) + 1, BLANK)
    states[1::2] = spelled
    frames = len(log_probs_TV)
    if not spelled or frames < len(spelled):
        return None
    may_skip = np.zeros(len(states), dtype=bool)
    may_skip[2:] = (states[2:] != BLANK) & (states[2:] != states[:-2])
    score = np.full(len(states), -np.inf)
    score[:2] = log_probs_TV[0, states[:2]]
    step_back = np.zeros((frames, len(states)), dtype=np.int8)
    for frame in range(1, frames):
        one = np.concatenate([[-np.inf], score[:-1]])
        two = np.where(may_skip, np.concatenate([[-np.inf, -np.inf], score[:-2]]), -np.inf)
        options = np.stack([score, one, two])
        step_back[frame] = options.argmax(axis=0)
        score = options.max(axis=0) + log_probs_TV[frame, states]
    state = len(states) - 1 if score[-1] >= score[-2] else len(states) - 2
    if not np.isfinite(score[state]):
        return None
    first = np.zeros(len(spelled), dtype=np.int64)
    for frame in range(frames - 1, -1, -1):
        if state % 2:
            first[state // 2] = frame
        state -= int(step_back[frame, state])
    return first


def character_positions(text: str, spelled_text: str) -> list[int]:
    """For each character of the normalized text (letters, apostrophes, single spaces), the position
    of the character of `text` that it stands for: the next equal letter. Both must be of one
    text."""
    positions, position = [], 0
    lowered = text.lower().replace("\u2019", "'")
    for character in spelled_text:
        if character != " ":
            while position < len(lowered) and lowered[position] != character:
                position += 1
        positions.append(min(position, len(text) - 1))
        position += 1
    return positions
