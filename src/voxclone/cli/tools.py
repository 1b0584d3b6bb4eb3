"""Options of the measuring commands, and how they open releases, speech and networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxclone.errors import UsageError

if TYPE_CHECKING:
    from voxclone.codec.model import Codec
    from voxclone.evaluate.metric_models import MetricModels
    from voxclone.evaluate.progress import Track
    from voxclone.evaluate.speechset import SpeechSet
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
    from voxclone.release.release import Release

    release = Release.open(model)
    name = "the release's own" if encoder is None else str(encoder)
    return release, open_codec(release, encoder), name


def load_speech(source: Path, split: str | None, seconds: float, track: "Track") -> "SpeechSet":
    """About `seconds` of speech. Raises UsageError for an empty split."""
    from voxclone.evaluate import speechset

    clips = [clip for clip in speechset.list_clips(source) if split in (None, clip.split)]
    if not clips:
        raise UsageError(f"{source} has no clip of the split {split!r}.")
    return speechset.load_speech(speechset.select_clips(clips, seconds), track)


def make_models(
    embedders: list[str] | None, transcribers: list[str] | None, dnsmos: bool
) -> "MetricModels":
    """Networks by name, each with a cache. Raises UsageError for an unknown name."""
    from voxclone.evaluate.cache import (
        CachedEmbedder,
        CachedMosPredictor,
        CachedTranscriber,
        default_folder,
    )
    from voxclone.evaluate.metric_models import MetricModels
    from voxclone.evaluate.networks import EMBEDDERS, TRANSCRIBERS, pick
    from voxclone.models.dnsmos import Dnsmos

    folder = default_folder()
    return MetricModels(
        embedders=[
            CachedEmbedder(pick(EMBEDDERS, name, "--embedder"), folder)
            for name in embedders or ["ge2e"]
        ],
        transcribers=[
            CachedTranscriber(pick(TRANSCRIBERS, name, "--transcriber"), folder)
            for name in transcribers or ["mini"]
        ],
        mos=CachedMosPredictor(Dnsmos(), folder) if dnsmos else None,
    )
