"""Texts that are read as UTF-8, and those that are in UTF-16 without saying so."""

import pytest

from voxclone.errors import ConfigError
from voxclone.readers import decode_text


@pytest.mark.parametrize(
    "text",
    [
        "One\r\nTwo\r\n\r\nThree\r\n",
        "a\r\n" * 9,
        "One\rTwo\r\rThree\r",
        "1\tone\t\t\tuno\n2\ttwo\t\t\tdue\n",
        "\t\t\t\tDeep.\n\t\t\t\tIn.\n",
        '{\n\t\t\t\t"a": [\n\t\t\t\t\t\t1,\n\t\t\t\t\t\t2\n\t\t\t\t]\n}',
        "Page one.\f\nPage two.\v",
        "नमस्ते\tదునియా",
    ],
)
def test_ordinary_white_space_is_no_reason_to_refuse_a_text(text: str) -> None:
    assert decode_text(text.encode(), "The text") == text


@pytest.mark.parametrize("text", ["नमस्ते", "उ उ उ", "ନମସ୍କାର", "నమస్తే", "നമസ്കാരം", "Привет", "Hello"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_named(text: str, encoding: str) -> None:
    with pytest.raises(ConfigError, match="as a text in UTF-16 is without its mark"):
        decode_text(text.encode(encoding), "The text")
