"""Options of the measuring commands, and how they open a release with an encoder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxclone.cli.common import open_release

if TYPE_CHECKING:
    from voxclone.codec.model import Codec
    from voxclone.release.release import Release

Speech = Annotated[
    Path,
    typer.Option("--speech", help="Manifest (JSON lines), or folder with a folder per speaker."),
]
Split = Annotated[
    str | None,
    typer.Option("--split", help="Use only this split of the manifest."),
]
SpeechSeconds = Annotated[
    float,
    typer.Option("--speech-seconds", min=1, help="Use about so much speech, speakers in turn."),
]
Out = Annotated[
    Path | None,
    typer.Option("-o", "--out", help="Folder for report.html and report.json."),
]
Baseline = Annotated[
    Path | None,
    typer.Option("--baseline", help="Compare with the report.json of an earlier run."),
]


def open_encoder(model: str, encoder: Path | None) -> "tuple[Release, Codec, str]":
    """A release, its codec with an encoder, and the encoder's name in reports."""
    from voxclone.release.encoder_file import open_codec

    release = open_release(model)
    name = "the release's own" if encoder is None else str(encoder)
    return release, open_codec(release, encoder), name
