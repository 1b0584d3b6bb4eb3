"""Embeddings and transcripts of recordings, kept by the content of the recording.

What a slow network says of the same samples does not change, so a second evaluation of the same
references, recordings and texts costs nothing. Entries are files of a few kilobytes, named by the
SHA-256 of the network's name and the samples; a damaged one is made anew.

Shapes: S samples, E embedding.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from voxclone.io import atomic_file
from voxclone.models.dnsmos import MosPredictor
from voxclone.models.speaker_encoder import SpeakerEmbedder
from voxclone.models.transcribers import Transcriber

FORMAT = "voxclone.cache/1"
ValueT = TypeVar("ValueT")


def default_folder() -> Path:
    """Where entries lie unless another folder is named."""
    return Path.home() / ".cache" / "voxclone" / "heard"


class CachedEmbedder:
    """A speaker embedder that remembers."""

    def __init__(self, embedder: SpeakerEmbedder, folder: Path) -> None:
        self.embedder, self.folder = embedder, folder
        self.name = embedder.name

    def embed(self, wave_S: Tensor) -> Tensor:
        def compute() -> list[float]:
            return [float(value) for value in self.embedder.embed(wave_S)]

        return torch.tensor(_remembered(self.folder, self.name, wave_S, compute, list))


class CachedTranscriber:
    """A transcriber that remembers."""

    def __init__(self, transcriber: Transcriber, folder: Path) -> None:
        self.transcriber, self.folder = transcriber, folder
        self.name = transcriber.name

    def transcribe(self, wave_S: Tensor) -> str:
        def compute() -> str:
            return self.transcriber.transcribe(wave_S)

        words: str = _remembered(self.folder, self.name, wave_S, compute, str)
        return words


class CachedMosPredictor:
    """A listener that remembers."""

    def __init__(self, listener: MosPredictor, folder: Path) -> None:
        self.listener, self.folder = listener, folder
        self.name = listener.name

    def predict(self, wave_S: Tensor) -> dict[str, float]:
        def compute() -> dict[str, float]:
            return self.listener.predict(wave_S)

        ratings: dict[str, float] = _remembered(self.folder, self.name, wave_S, compute, dict)
        return ratings


def _remembered(
    folder: Path, name: str, wave_S: Tensor, compute: Callable[[], ValueT], kind: type[ValueT]
) -> ValueT:
    digest = hashlib.sha256(f"{FORMAT} {name} ".encode())
    digest.update(wave_S.detach().cpu().contiguous().numpy().tobytes())
    path = folder / digest.hexdigest()[:2] / f"{digest.hexdigest()}.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(stored, dict) and isinstance(stored.get("value"), kind):
            value: ValueT = stored["value"]
            return value
    except (OSError, ValueError):
        pass  # not there, or damaged: made anew
    made = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(json.dumps({"name": name, "value": made}).encode())
    return made
