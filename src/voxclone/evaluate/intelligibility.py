"""Word and character error rates."""

from collections.abc import Sequence


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
