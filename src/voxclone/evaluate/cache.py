"""Cache of embeddings, transcripts and opinion scores by the content of the recording.

A frozen network gives the same result for the same samples, so a second evaluation of the same
recordings costs nothing. Entries are small files, named by the SHA-256 of network name and samples;
damaged ones are computed again.

Shapes: S samples.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from voxclone.errors import ConfigError
from voxclone.io import atomic_file
from voxclone.models.dnsmos import MosPredictor
from voxclone.models.speaker_encoder import SpeakerEmbedder
from voxclone.models.transcribers import Transcriber

FORMAT = "voxclone.cache/1"
ValueT = TypeVar("ValueT", list[float], str, dict[str, float])


def default_folder() -> Path:
    """The folder of the entries. Raises ConfigError where no home directory is known."""
    try:
        return Path.home() / ".cache" / "voxclone" / "evaluation"
    except RuntimeError:
        raise ConfigError(
            "Your home directory, which holds the cache of evaluations, is not known: set HOME."
        ) from None


class CachedEmbedder:
    """A speaker encoder with a cache."""

    def __init__(self, embedder: SpeakerEmbedder, folder: Path) -> None:
        self.embedder, self.folder = embedder, folder
        self.name = embedder.name

    def embed(self, wave_S: Tensor) -> Tensor:
        values = _cached(
            self.folder, self.name, wave_S, list, lambda: self.embedder.embed(wave_S).tolist()
        )
        return torch.tensor(values)


class CachedTranscriber:
    """A recognizer with a cache."""

    def __init__(self, transcriber: Transcriber, folder: Path) -> None:
        self.transcriber, self.folder = transcriber, folder
        self.name = transcriber.name

    def transcribe(self, wave_S: Tensor) -> str:
        return _cached(
            self.folder, self.name, wave_S, str, lambda: self.transcriber.transcribe(wave_S)
        )


class CachedMosPredictor:
    """A predictor of opinion scores with a cache."""

    def __init__(self, predictor: MosPredictor, folder: Path) -> None:
        self.predictor, self.folder = predictor, folder
        self.name = predictor.name

    def predict(self, wave_S: Tensor) -> dict[str, float]:
        return _cached(self.folder, self.name, wave_S, dict, lambda: self.predictor.predict(wave_S))


def _cached(
    folder: Path, name: str, wave_S: Tensor, kind: type[ValueT], compute: Callable[[], ValueT]
) -> ValueT:
    digest = hashlib.sha256(f"{FORMAT} {name} ".encode())
    digest.update(wave_S.detach().cpu().contiguous().numpy().tobytes())
    path = folder / digest.hexdigest()[:2] / f"{digest.hexdigest()}.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(stored, dict) and isinstance(stored.get("value"), kind):
            value: ValueT = stored["value"]
            return value
    except (OSError, ValueError, RecursionError):
        pass  # absent or damaged
    computed = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(json.dumps({"name": name, "value": computed}).encode())
    return computed
