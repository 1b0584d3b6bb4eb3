"""A corpus of a few seconds: synthetic speakers with transcripts."""

import json
from pathlib import Path

import pytest
import soundfile

from tests.audio.signals import speech
from voxclone.audio.manifest import read_manifest
from voxclone.train.corpus import Corpus, pack

SPEAKERS = ("ada", "ben", "cid")
CLIPS = 4
TEXTS = ("we go", "a dog sat", "no more", "so it is")


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
