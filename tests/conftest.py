"""What all tests share: one thread, since the tensors are tiny and waiting for a second one takes
longer than the sums; and a corpus of a few seconds, of synthetic speakers with transcripts."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import torch

from tests.audio.signals import speech
from voxclone.data.corpus import Corpus, pack
from voxclone.data.manifest import read_manifest

SPEAKERS = ("ada", "ben", "cid")
CLIPS = 4
TEXTS = ("we go", "a dog sat", "no more", "so it is")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered between evaluations, and voices, stay out of the home directory."""
    folder = tmp_path_factory.getbasetemp()
    monkeypatch.setattr("voxclone.evaluate.cache.default_folder", lambda: folder / "heard")
    monkeypatch.setattr("voxclone.voice.store.default_folder", lambda: folder / "voices")


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    rows = []
    for s, speaker in enumerate(SPEAKERS):
        for c in range(CLIPS):
            name = f"{speaker}-{c}"
            wave = speech([0.6 + 0.1 * c, 0.4 + 0.1 * s], [0.05, 0.1, 0.1])
            soundfile.write(folder / f"{name}.flac", wave, 24000)
            rows.append(
                {
                    "id": name,
                    "path": f"{name}.flac",
                    "speaker": speaker,
                    "duration": len(wave) / 24000,
                    "text": TEXTS[c],
                    "language": "en",
                    "split": "valid" if c == 0 else "train",
                    "licence": "CC0-1.0",
                }
            )
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def corpus(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return pack(read_manifest(manifest), tmp_path_factory.mktemp("packed"))
