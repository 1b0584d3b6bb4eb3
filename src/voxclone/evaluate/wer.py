"""Word and character error rates."""

from collections.abc import Sequence

from voxclone.models.ctc_asr import normalize_text


def word_error_rate(pairs: Sequence[tuple[str, str]]) -> float:
    """Word errors over reference words, of all (reference, hypothesis) pairs together.

    Both texts are normalized first. A share; may exceed 1.
    """
    return error_rate([(a.split(), b.split()) for a, b in _normalized(pairs)])


def character_error_rate(pairs: Sequence[tuple[str, str]]) -> float:
    """As `word_error_rate`, of characters."""
    return error_rate(_normalized(pairs))


def error_rate(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> float:
    """Edits over reference length, of all (reference, hypothesis) pairs together."""
    edits = sum(edit_distance(a, b) for a, b in pairs)
    return edits / max(1, sum(len(a) for a, _ in pairs))


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein distance: insertions, deletions and substitutions cost one each."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def _normalized(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(normalize_text(a), normalize_text(b)) for a, b in pairs]
