"""Options of the measuring commands, and how they open releases, speech and networks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from voxclone.models import speaker_encoder
    from voxclone.models import transcribers as recognizers
    from voxclone.models.ctc_asr import load_packaged_recognizer
    from voxclone.models.dnsmos import Dnsmos

    known_embedders: dict[str, Callable[[], Any]] = {
        "ge2e": speaker_encoder.Ge2eEmbedder.load,
        "ecapa": speaker_encoder.EcapaEmbedder,
        "wavlm": speaker_encoder.WavLmEmbedder,
    }
    known_transcribers: dict[str, Callable[[], Any]] = {
        "mini": lambda: recognizers.CharacterTranscriber(load_packaged_recognizer()),
        "pocketsphinx": recognizers.PocketsphinxTranscriber,
        "whisper": recognizers.WhisperTranscriber,
    }
    folder = default_folder()
    return MetricModels(
        embedders=[
            CachedEmbedder(_pick(known_embedders, name, "--embedder"), folder)
            for name in embedders or ["ge2e"]
        ],
        transcribers=[
            CachedTranscriber(_pick(known_transcribers, name, "--transcriber"), folder)
            for name in transcribers or ["mini"]
        ],
        mos=CachedMosPredictor(Dnsmos(), folder) if dnsmos else None,
    )


def _pick(known: Mapping[str, Callable[[], Any]], name: str, option: str) -> Any:
    if name not in known:
        raise UsageError(f"{option} takes {', '.join(known)}, not {name!r}.")
    return known[name]()
