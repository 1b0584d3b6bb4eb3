"""What measuring commands take and open: releases, speech, and networks that remember."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from voxclone.errors import UsageError

if TYPE_CHECKING:
    from voxclone.codec.model import Codec
    from voxclone.evaluate.speechset import SpeechSet
    from voxclone.models.dnsmos import MosPredictor
    from voxclone.release.release import Release


Model = Annotated[str, typer.Argument(help="Directory, Hub id, or mini.")]


Split = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Only clips of this split of the manifest."),
]


Seconds = Annotated[float, typer.Option(help="About how much speech, speakers in turn.")]


Out = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("-o", "--out", help="Folder for report.html and report.json."),
]


Baseline = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="report.json of an earlier run, to compare with."),
]


def opened(model: str, encoder: Path | None) -> "tuple[Release, Codec, str]":
    """A release, its codec with an encoder, and what reports call that encoder."""
    from voxclone.release.encoder_file import open_codec
    from voxclone.release.release import Release

    release = Release.open(model)
    name = "the release's own" if encoder is None else str(encoder)
    return release, open_codec(release, encoder), name


def load_listed(source: Path, split: str | None, seconds: float, track: Any) -> "SpeechSet":
    from voxclone.evaluate.speechset import choose, list_clips, load_speech

    clips = [clip for clip in list_clips(source) if split in (None, clip.split)]
    if not clips:
        raise UsageError(f"{source} has no clip of the split {split!r}.")
    return load_speech(choose(clips, seconds), lambda items: track(items, "reading"))


def make_embedders(names: list[str] | None) -> list[Any]:
    from voxclone.evaluate.cache import CachedEmbedder, default_folder
    from voxclone.models import speaker_encoder

    kinds: dict[str, Callable[[], Any]] = {
        "ge2e": speaker_encoder.Ge2eEmbedder.load,
        "ecapa": speaker_encoder.EcapaEmbedder,
        "wavlm": speaker_encoder.WavLmEmbedder,
    }
    made = [_pick(kinds, name, "--embedder")() for name in names or ["ge2e"]]
    return [CachedEmbedder(each, default_folder()) for each in made]


def make_mos_predictor(wanted: bool) -> "MosPredictor | None":
    from voxclone.evaluate.cache import CachedMosPredictor, default_folder
    from voxclone.models.dnsmos import Dnsmos

    return CachedMosPredictor(Dnsmos(), default_folder()) if wanted else None


def make_transcribers(names: list[str] | None) -> list[Any]:
    from voxclone.evaluate.cache import CachedTranscriber, default_folder
    from voxclone.models import transcribers
    from voxclone.models.ctc_asr import load_recognizer
    from voxclone.release.release import mini_release

    kinds: dict[str, Callable[[], Any]] = {
        "mini": lambda: transcribers.CharacterTranscriber(
            load_recognizer(mini_release().parent / "recogniser")
        ),
        "pocketsphinx": transcribers.PocketsphinxTranscriber,
        "whisper": transcribers.WhisperTranscriber,
    }
    made = [_pick(kinds, name, "--transcriber")() for name in names or ["mini"]]
    return [CachedTranscriber(each, default_folder()) for each in made]


def _pick(kinds: Mapping[str, Callable[[], Any]], name: str, option: str) -> Callable[[], Any]:
    if name not in kinds:
        raise UsageError(f"{option} takes {', '.join(kinds)}, not {name!r}.")
    return kinds[name]
