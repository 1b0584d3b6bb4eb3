"""Which character is spoken when: CTC forced alignment with the small recogniser.

Shapes: T recogniser frames (50 Hz), V characters and the blank, L characters of a text.
"""

import numpy as np

from voxclone.models.ctc_asr import BLANK


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
    came = np.zeros((frames, len(states)), dtype=np.int8)
    for frame in range(1, frames):
        one = np.concatenate([[-np.inf], score[:-1]])
        two = np.where(may_skip, np.concatenate([[-np.inf, -np.inf], score[:-2]]), -np.inf)
        options = np.stack([score, one, two])
        came[frame] = options.argmax(axis=0)
        score = options.max(axis=0) + log_probs_TV[frame, states]
    state = len(states) - 1 if score[-1] >= score[-2] else len(states) - 2
    if not np.isfinite(score[state]):
        return None
    first = np.zeros(len(spelled), dtype=np.int64)
    for frame in range(frames - 1, -1, -1):
        if state % 2:
            first[state // 2] = frame
        state -= int(came[frame, state])
    return first


def character_places(text: str, spelled_text: str) -> list[int]:
    """For each character of the normalised text (letters, apostrophes, single spaces), the place of
    the character of `text` that it stands for. Both must be of one text: a letter of the normalised
    text stands for the next equal letter of the original."""
    places, place = [], 0
    lowered = text.lower().replace("\u2019", "'")
    for character in spelled_text:
        if character != " ":
            while place < len(lowered) and lowered[place] != character:
                place += 1
        places.append(min(place, len(text) - 1))
        place += 1
    return places
