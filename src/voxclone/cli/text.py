"""The text to speak: an argument, a file, or standard input."""

import os
from pathlib import Path
from typing import Annotated

import typer

from voxclone.errors import UsageError, shorten

MAX_BYTES = 2**20

Text = Annotated[
    str | None, typer.Argument(help="Text to speak; - reads standard input.", show_default=False)
]
TextFile = Annotated[
    Path | None, typer.Option("--text-file", help="File of the text (UTF-8), instead of TEXT.")
]


def text_source(text: str | None, file: Path | None) -> Path | None:
    """The file that the text is read from; `-` is standard input."""
    return Path("-") if text == "-" else file


def spoken_text(text: str | None, file: Path | None) -> str:
    """The text that is given in one of the two ways. Raises UsageError for none and for both, for
    what is not in UTF-8, for the name of a file, and for a text that cannot be spoken."""
    from voxclone.readers import read_text
    from voxclone.tts.text import check_text

    if (text is None) == (file is None):
        raise UsageError("Give the text to speak: as an argument, or as a file with --text-file.")
    source = text_source(text, file)
    if source is not None:
        return check_text(read_text(source, UsageError, "The text", MAX_BYTES))
    assert text is not None
    for name in (text, text.removeprefix("@")):
        if (name != text or "." in name) and os.path.isfile(name):
            raise UsageError(
                f"The text {shorten(text)!r} is the name of a file: speak what it holds with "
                f"`--text-file {shorten(name)}`."
            )
    return check_text(text)
