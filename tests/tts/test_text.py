"""Text: checks, parts, caps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxclone.errors import UsageError
from voxclone.tts.text import check_text, frame_cap, split_text


@pytest.mark.parametrize("text", ["", "   ", "...", "\n\t", "-- ?!", "\u200b"])
def test_nothing_to_say_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="empty"):
        check_text(text)


@pytest.mark.parametrize("text", ["a", "7", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0645\u0631"])
def test_any_script_is_text(text: str) -> None:
    assert check_text(f"  {text}\n") == text


def test_too_long_is_refused_with_both_lengths() -> None:
    with pytest.raises(UsageError, match=r"4097 characters; at most 4096"):
        check_text("a" * 4097)


def split(text: str, most: int) -> list[str]:
    """The texts of the parts."""
    return [part.text for part in split_text(text, most)]


def test_parts_end_at_sentences_where_they_can() -> None:
    text = 'One two three. "Four five," he said. Six? Seven, eight; nine!'
    assert split(text, 30) == ["One two three.", '"Four five," he said. Six?',
                               "Seven, eight; nine!"]  # fmt: skip
    assert split(text, 1000) == [text]
    assert split("One two, three four five", 12) == ["One two,", "three four", "five"]


@pytest.mark.parametrize(
    "text",
    ['"Hi." She left (late.) Then?', "\u00abNon !\u00bb dit-il.", "He said \u2018no.\u2019 So?"],
)
def test_closing_quotes_and_brackets_stay_with_their_sentence(text: str) -> None:
    assert split(text, 1000) == [text]
    assert "".join(split(text, 8)).replace(" ", "") == text.replace(" ", "")
    assert split('"Hi." She left (late.) Then?', 20) == ['"Hi."', "She left (late.)", "Then?"]


@given(st.text(alphabet="ab .,!?;\"')]", min_size=1, max_size=200), st.integers(5, 60))
def test_parts_keep_every_letter_and_the_limit(text: str, most: int) -> None:
    folded = "a " + " ".join(text.split())
    parts = split(folded, most)
    assert all(0 < len(part) <= most for part in parts)
    assert "".join(parts).replace(" ", "") == folded.replace(" ", "")


def test_an_empty_line_is_a_pause() -> None:
    text = check_text("First\nline.\r\n \t\r\n- one\n\n\n* * *\n\n- two. Three.")
    assert text == "First line.\n\n- one\n\n* * *\n\n- two. Three."
    parts = split_text(text, 8)
    assert [(part.text, part.pause) for part in parts] == [
        ("First", 0.0), ("line.", 0.15), ("- one", 0.6), ("- two.", 0.6), ("Three.", 0.15),
    ]  # fmt: skip
    assert [part.pause for part in split_text(check_text("First line. One. Two."), 99)] == [0.0]


def test_cap_grows_with_the_text() -> None:
    caps = [frame_cap("x" * n, 12.5) for n in (1, 14, 140)]
    assert caps[0] == 27 and caps[1] == 62 and caps[2] == 400
