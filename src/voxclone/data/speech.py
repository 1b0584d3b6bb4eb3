"""The speech that an encoder is trained on: those clips of a manifest that can be read.

A clip whose file is missing or cannot be decoded is found before the first step and left out.
Every process of a training does this for itself, and all must come to the same.

Shapes: N clips.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from voxclone.data.corpus import Corpus, Subset, check_left_out, pack
from voxclone.data.manifest import Clip, Manifest
from voxclone.data.prepared import PreparedCorpus
from voxclone.data.rules import too_few
from voxclone.errors import ConfigError


def open_speech(
    path: Path | None, licenses: tuple[str, ...] | None, folder: Path, console: Console
) -> Subset:
    """The clips of a manifest under these licenses; where `data prepare` did not make them, they
    are packed into `folder`. Says which are left out.

    Raises ConfigError if no speech is named, none of it fits, too much of it cannot be read, or all
    of it is of one speaker.
    """
    if path is None:
        raise ConfigError(
            "No speech is named: give a manifest (JSON lines with id, path, speaker, duration), "
            "for example `--speech my/manifest.jsonl`."
        )
    manifest = Manifest(path)
    chosen_N = manifest.select(split="train", licenses=licenses)
    if not len(chosen_N):
        raise ConfigError(f"{path} has no clip of the split `train` under the licenses {licenses}.")
    _require_voices(manifest.speaker_N[chosen_N], path)  # before hours are decoded
    corpus: Corpus
    if manifest.prepared:
        corpus = prepared = PreparedCorpus(manifest)
        kept_N, reasons = prepared.present(chosen_N)
    else:
        chosen = [manifest[number] for number in chosen_N.tolist()]
        corpus = packed = pack(chosen, folder, _bar(console))
        kept_N, reasons = np.arange(len(packed)), [*packed.left_out.values()]
    sentence = check_left_out(reasons, len(chosen_N))
    if sentence is not None:
        sentence = f"{path}: {sentence}"
        console.print(sentence, style="yellow", markup=False, highlight=False, soft_wrap=True)
    _require_voices(corpus.speaker_N[kept_N], path)
    return Subset(corpus, kept_N.tolist())


def _require_voices(speaker_N: np.ndarray, manifest: Path) -> None:
    lonely = too_few(len(np.unique(speaker_N)))
    if lonely is not None:
        raise ConfigError(
            f"All clips of {manifest} to train on are of 1 speaker. {lonely} Add others."
        )


def _bar(console: Console) -> Callable[[Iterable[Clip]], Iterable[Clip]]:
    return lambda items: track(list(items), description="preparing", console=console)
