"""Text to speak: checks, and long text in sentences."""

import re
import unicodedata
from collections.abc import Callable
from itertools import chain

from voxclone.errors import UsageError

MAX_CHARACTERS = 4096
CHARACTERS_PER_SECOND = 14.0
"""Speech in the languages of the release runs at 12 to 17 characters a second."""

Splitter = Callable[[str, int], list[str]]

_SENTENCE_END = re.compile(r"(?<=[.!?\u2026\u0964\u061f])[\"')\]\u201d\u00bb]*\s+")
_CLAUSE_END = re.compile(r"(?<=[,;:\u2013\u2014\u060c])\s+")


def check_text(text: str) -> str:
    """The text with its white space folded. Raises UsageError for a text without letters or digits,
    or over the cap."""
    folded = " ".join(text.split())
    if not any(unicodedata.category(c)[0] in "LN" for c in folded):
        raise UsageError("The text is empty: give at least one word to speak.")
    if len(folded) > MAX_CHARACTERS:
        raise UsageError(
            f"The text has {len(folded)} characters; at most {MAX_CHARACTERS} are spoken at once: "
            "split it."
        )
    return folded


def split_text(text: str, most: int) -> list[str]:
    """Sentences joined up to `most` characters a part; a longer sentence is cut at clauses, then at
    words, and a longer word between characters."""
    return _pack(_SENTENCE_END.split(text), most, _split_sentence)


def expected_seconds(text: str) -> float:
    """The expected duration of a spoken text."""
    return len(text) / CHARACTERS_PER_SECOND


def frame_cap(text: str, frame_rate: float) -> int:
    """Frames after which a missed stop is cut: three times the expected length and two seconds."""
    return int(frame_rate * (2.0 + 3.0 * expected_seconds(text)))


def _split_sentence(sentence: str, most: int) -> list[str]:
    return _pack(_CLAUSE_END.split(sentence), most, _split_clause)


def _split_clause(clause: str, most: int) -> list[str]:
    return _pack(clause.split(" "), most, _split_word)


def _split_word(word: str, most: int) -> list[str]:
    return [word[start : start + most] for start in range(0, len(word), most)]


def _pack(pieces: list[str], most: int, split_longer: Splitter) -> list[str]:
    parts: list[str] = []
    for piece in chain.from_iterable(_fitting(p, most, split_longer) for p in pieces if p):
        if parts and len(parts[-1]) + 1 + len(piece) <= most:
            parts[-1] += " " + piece
        else:
            parts.append(piece)
    return parts


def _fitting(piece: str, most: int, split_longer: Splitter) -> list[str]:
    return [piece] if len(piece) <= most else split_longer(piece, most)
