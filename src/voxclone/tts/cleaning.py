"""Text as people paste it, made into text to speak: hidden characters out, and warnings for markup.

The tokenizer would give every hidden character to the model, which then hesitates or makes noise.
"""

import re
import unicodedata

ZERO_WIDTH_NON_JOINER, JOINER = "\u200c", "\u200d"
# Signs of the category Cf that are visible: they stand before numbers in Arabic, and the like.
VISIBLE_FORMATS = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)
# Hidden, but of other categories: combining grapheme joiner, fillers, vowels without a form.
HIDDEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
JOINED_SCRIPTS = ((0x0600, 0x08FF), (0x0900, 0x0DFF), (0x1000, 0x109F), (0x1780, 0x17FF))
"""Arabic and its neighbors, the scripts of India and Sri Lanka, Burmese, Khmer."""

# Sequences that steer a terminal: ESC [ and ESC ] may be the single characters 9B and 9D.
_TERMINAL = re.compile(
    r"(?:\x1b\[|\x9b)[0-9;:?]*[ -/]*[@-~]"
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)|\x1b.?"
)
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")

_MARKUP = (
    ("tags", re.compile(r"</?[A-Za-z][\w:-]*(?:\s[^<>]*)?/?>")),
    ("control tokens", re.compile(r"\[/?[A-Z][A-Z_]{2,}\]|<\|[^|<>]*\|>|</?s>")),
    (
        "stage directions",
        re.compile(r"\[[a-z]+(?: [a-z]+){0,2}\](?!\()|(?<!\*)\*[a-z]+(?: [a-z]+)?\*(?!\*)"),
    ),
    ("Markdown", re.compile(r"\*\*\S|__\S|```|\]\(\w|(?:^|\n) {0,3}#{1,6} ")),
)


def clean_text(text: str) -> str:
    """The text in NFC without hidden characters, with single spaces. An empty line stays as one
    between two paragraphs."""
    text = _TERMINAL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = text.replace("\u2029", "\n\n").replace("\u2028", "\n").replace("\x85", "\n")
    kept = unicodedata.normalize("NFC", "".join(_kept(text)))
    paragraphs = (" ".join(each.split()) for each in _PARAGRAPH.split(kept))
    return "\n\n".join(each for each in paragraphs if each)


def markup_warnings(text: str) -> list[str]:
    """A sentence for each kind of markup in a text: the model reads all of it aloud."""
    found = [(name, pattern.search(text)) for name, pattern in _MARKUP]
    return [
        f"The text has {name} such as {match.group().strip()!r}: they are spoken as written. "
        "Remove them; an empty line makes a pause."
        for name, match in found
        if match is not None
    ]


def _kept(text: str) -> list[str]:
    """The characters of a text that are not hidden, and joiners that have a meaning."""
    kept = list[str]()
    for index, character in enumerate(text):
        if character in (ZERO_WIDTH_NON_JOINER, JOINER):
            following = text[index + 1 : index + 2]
            keep = bool(kept) and _joins(character, kept[-1], following)
        else:
            keep = not _is_hidden(character)
        if keep:
            kept.append(character)
    return kept


def _is_hidden(character: str) -> bool:
    if character.isspace() or character in VISIBLE_FORMATS:
        return False
    category = unicodedata.category(character)
    return (
        category in ("Cc", "Cf", "Cs", "Co") or character in HIDDEN or _is_no_character(character)
    )


def _is_no_character(character: str) -> bool:
    return 0xFDD0 <= ord(character) <= 0xFDEF or ord(character) & 0xFFFE == 0xFFFE


def _joins(joiner: str, before: str, after: str) -> bool:
    """Whether a joiner between two characters has a meaning: in emoji, and in some scripts."""
    if not after:
        return False
    if joiner == JOINER and unicodedata.category(after) == "So":
        return unicodedata.category(before) in ("So", "Sk") or before == "\ufe0f"
    return all(any(a <= ord(c) <= b for a, b in JOINED_SCRIPTS) for c in (before, after))
