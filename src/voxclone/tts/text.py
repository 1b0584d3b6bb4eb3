"""Text to speak: checks, and long text in parts."""

import itertools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from voxclone.errors import UsageError
from voxclone.tts.cleaning import clean_text

MAX_CHARACTERS = 4096
CHARACTERS_PER_SECOND = 14.0
"""Speech in the languages of the release runs at 12 to 17 characters a second."""

PAUSE_SECONDS, PARAGRAPH_SECONDS = 0.15, 0.6
"""Silence between two parts, and between two paragraphs."""

Splitter = Callable[[str, int], list[str]]

# Closing quotes and brackets belong to the sentence before them.
_SENTENCE_END = re.compile(r"[.!?\u2026\u0964\u061f][\"')\]\u2019\u201d\u00bb]*\s+")
_CLAUSE_END = re.compile(r"(?<=[,;:\u2013\u2014\u060c])\s+")


@dataclass(frozen=True)
class Part:
    """A part of a text, which is spoken in one go, and the seconds of silence before it."""

    text: str
    pause: float = 0.0


def check_text(text: str) -> str:
    """The text as `clean_text` makes it. Raises UsageError for a text without letters or digits, or
    over the cap."""
    cleaned = clean_text(text)
    if not _has_words(cleaned):
        raise UsageError("The text is empty: give at least one word to speak.")
    if len(cleaned) > MAX_CHARACTERS:
        raise UsageError(
            f"The text has {len(cleaned)} characters; at most {MAX_CHARACTERS} are spoken at once: "
            "split it."
        )
    return cleaned


def split_text(text: str, most: int) -> list[Part]:
    """The parts of a text of `check_text`: within each paragraph, sentences joined up to `most`
    characters. A longer sentence is cut at clauses, then at words, and a longer word between
    characters. A paragraph without letters or digits, such as a row of stars, is a pause alone."""
    parts: list[Part] = []
    for paragraph in filter(_has_words, text.split("\n\n")):
        for number, part in enumerate(_pack(_sentences(paragraph), most, _split_sentence)):
            pause = PAUSE_SECONDS if number else PARAGRAPH_SECONDS
            parts.append(Part(part, pause if parts else 0.0))
    return parts


def expected_seconds(text: str) -> float:
    """The expected duration of a spoken text."""
    return len(text) / CHARACTERS_PER_SECOND


def frame_cap(text: str, frame_rate: float) -> int:
    """Frames after which a missed stop is cut: three times the expected length and two seconds."""
    return int(frame_rate * (2.0 + 3.0 * expected_seconds(text)))


def _has_words(text: str) -> bool:
    return any(unicodedata.category(c)[0] in "LN" for c in text)


def _sentences(text: str) -> list[str]:
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    return [text[begin:end].rstrip() for begin, end in itertools.pairwise(ends)]


def _split_sentence(sentence: str, most: int) -> list[str]:
    return _pack(_CLAUSE_END.split(sentence), most, _split_clause)


def _split_clause(clause: str, most: int) -> list[str]:
    return _pack(clause.split(" "), most, _split_word)


def _split_word(word: str, most: int) -> list[str]:
    return [word[start : start + most] for start in range(0, len(word), most)]


def _pack(pieces: list[str], most: int, split_longer: Splitter) -> list[str]:
    parts: list[str] = []
    for piece in itertools.chain.from_iterable(
        _fitting(p, most, split_longer) for p in pieces if p
    ):
        if parts and len(parts[-1]) + 1 + len(piece) <= most:
            parts[-1] += " " + piece
        else:
            parts.append(piece)
    return parts


def _fitting(piece: str, most: int, split_longer: Splitter) -> list[str]:
    return [piece] if len(piece) <= most else split_longer(piece, most)
