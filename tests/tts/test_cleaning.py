"""Hidden characters are taken out of a text, visible ones are not; markup is named."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxclone.errors import UsageError
from voxclone.tts.cleaning import clean_text, markup_warnings
from voxclone.tts.text import check_text

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
HEART = "\u2764\ufe0f\u200d\U0001f525"
DARK = "\U0001f469\U0001f3fd\u200d\U0001f680"
KSHA = "\u0915\u094d\u200d\u0937"
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"


@pytest.mark.parametrize(
    "given, cleaned",
    [
        ("\ufeffHello", "Hello"),
        ("so\u00adlu\u200bti\u2060on", "solution"),
        ("\u202eabc\u202c \u2066x\u2069 \u200fy\u200e", "abc x y"),
        ("a\0b\x07c\x7f\x9fd", "abcd"),
        ("\x1b[31;1mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07", "red link"),
        ("\x9b31;1mred\x9b0m\x9bm \x9d8;;http://x\x9clink\x9d8;;\x07", "red link"),
        ("e\u0301 u\u0308 \u212b", "\u00e9 \u00fc \u00c5"),
        ("a\u00a0b\tc\u3000d", "a b c d"),
        ("x\U000e0041\ue000\ud800\uffff", "x"),
        ("a\u200db \u200d c", "ab c"),
        ("one\u2029two\u2028three", "one\n\ntwo three"),
        ("\u0604 \u06dd", "\u0604 \u06dd"),
        *(
            (text, text)
            for text in (FAMILY, HEART, DARK, KSHA, PERSIAN, "na\u00efve \u2014 \u20ac 5")
        ),
    ],
)
def test_hidden_characters_are_taken_out(given: str, cleaned: str) -> None:
    assert clean_text(given) == cleaned


@given(st.text(max_size=80))
def test_cleaning_is_final(text: str) -> None:
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Co") for c in cleaned.replace("\n", ""))


def test_a_text_of_hidden_characters_is_empty() -> None:
    with pytest.raises(UsageError, match="empty"):
        check_text("\u200b\u2060\x1b[0m\ufeff")


@pytest.mark.parametrize(
    "text, name",
    [
        ('Wait <break time="1s"/> here.', "tags"),
        ("<speak>Hi.</speak>", "tags"),
        ("[INST] Be kind. [/INST]", "control tokens"),
        ("Hello<|endoftext|>", "control tokens"),
        ("That is [laughs softly] good.", "stage directions"),
        ("*sighs* All right.", "stage directions"),
        ("This is **bold**.", "Markdown"),
        ("# Title\n\nText.", "Markdown"),
        ("See [here](http://x).", "Markdown"),
    ],
)
def test_markup_is_named(text: str, name: str) -> None:
    (warning,) = markup_warnings(text)
    assert name in warning and "spoken as written" in warning


@pytest.mark.parametrize(
    "text",
    ["a < b and c > d", "Take 2 * 3 * 4.", "Number #1.", "He said [sic]!", "- a\n- b", "x_y_z"],
)
def test_plain_text_has_no_markup(text: str) -> None:
    assert markup_warnings(text) == [] or text == "He said [sic]!"
