"""The speech that an encoder is trained on: those clips of a manifest that can be read.

A clip whose file is missing or cannot be decoded is found before the first step and left out.
Every process of a training does this for itself, and all must come to the same.

Shapes: N clips.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from voxclone.data.corpus import Corpus, Subset, check_left_out, pack
from voxclone.data.manifest import Clip, Manifest
from voxclone.data.prepared import PreparedCorpus
from voxclone.data.rules import too_few
from voxclone.errors import ConfigError
from voxclone.train import ranks
from voxclone.train.encoder_settings import EncoderTraining


def open_speech(settings: EncoderTraining, folder: Path, console: Console) -> Subset:
    """The clips that the settings choose; where `data prepare` did not make them, they are packed
    into `folder`. Says which are left out.

    Raises ConfigError if no speech is named, none of it fits, too much of it cannot be read, or all
    of it is of one speaker.
    """
    if settings.speech is None:
        raise ConfigError(
            "The config names no speech: set `speech` to a manifest (JSON lines with id, path, "
            "speaker, duration), for example with `--set speech=my/manifest.jsonl`."
        )
    manifest, allowed = Manifest(settings.speech), settings.licences
    chosen_N = manifest.select(split="train", licenses=allowed)
    if not len(chosen_N):
        raise ConfigError(
            f"{settings.speech} has no clip of the split `train` under the licences {allowed}."
        )
    _require_voices(manifest.speaker_N[chosen_N], settings.speech)  # before hours are decoded
    corpus: Corpus
    if manifest.prepared:
        corpus = prepared = PreparedCorpus(manifest)
        kept_N, reasons = prepared.present(chosen_N)
    else:
        chosen = [manifest[number] for number in chosen_N.tolist()]
        corpus = packed = pack(chosen, folder, _bar(console))
        kept_N, reasons = np.arange(len(packed)), [*packed.left_out.values()]
    said = check_left_out(reasons, len(chosen_N))
    if said is not None:
        told = f"{settings.speech}: {said}"
        console.print(told, style="yellow", markup=False, highlight=False, soft_wrap=True)
    _require_voices(corpus.speaker_N[kept_N], settings.speech)
    return Subset(corpus, kept_N.tolist())


def is_same(identity: dict[str, Any]) -> bool:
    """Whether all processes read the same speech (`Subset.identity`)."""
    (other,) = ranks.any_of(ranks.tell(identity) != identity)
    return not other


def _require_voices(speaker_N: np.ndarray, manifest: Path) -> None:
    lonely = too_few(len(np.unique(speaker_N)))
    if lonely is not None:
        raise ConfigError(
            f"All clips of {manifest} to train on are of 1 speaker. {lonely} Add others."
        )


def _bar(console: Console) -> Callable[[Iterable[Clip]], Iterable[Clip]]:
    return lambda items: track(list(items), description="preparing", console=console)
