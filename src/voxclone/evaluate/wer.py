"""What a recording says, by four recognisers of one protocol, for word error rates.

Whisper is the yardstick of published figures. Pocketsphinx (English) and the project's own
character recogniser need no download; their error rates only compare sounds with each other.

Shapes: B batch, S samples at 24 kHz, R samples at 16 kHz.
"""

from collections.abc import Sequence

from voxclone.models.ctc_asr import normalize_text


def word_error(pairs: Sequence[tuple[str, str]], *, characters: bool = False) -> float:
    """Word (or character) error rate of (said, heard) pairs taken together, as a share.

    Both sides are normalised first: lower case, letters and apostrophes only. May exceed 1.
    """
    normalised = [(normalize_text(said), normalize_text(heard)) for said, heard in pairs]
    return error_rate(normalised, characters=characters)


def error_rate(pairs: Sequence[tuple[str, str]], *, characters: bool = False) -> float:
    """Edits over the length of what was said, over all (said, heard) pairs together."""
    edits = length = 0
    for said, heard in pairs:
        a = list(said) if characters else said.split()
        b = list(heard) if characters else heard.split()
        edits += edit_distance(a, b)
        length += len(a)
    return edits / max(1, length)


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein distance: insertions, deletions and substitutions cost one each."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]
