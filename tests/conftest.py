"""What all tests share: one thread, temporary folders, the mini release (loaded once a session),
and a corpus of a few seconds: synthetic speakers with transcripts."""

import os

# Before torch is imported: the tensors are tiny, and waiting for a second thread takes longer than
# the sums.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import json
from pathlib import Path

import pytest
import soundfile
import torch

from tests.helpers.command import Command, make_command
from tests.helpers.signals import speech
from tests.helpers.tiny_release import write_tiny_release
from voxclone.codec.model import Codec
from voxclone.data.corpus import Corpus, pack
from voxclone.data.manifest import read_manifest
from voxclone.mini.oracle import oracle_codec
from voxclone.release.release import Release, load_codec
from voxclone.tts.tts import TTS
from voxclone.voice.presets import Inversion, preset_inversions

torch.set_num_threads(1)

SPEAKERS = ("ada", "ben", "cid")
CLIPS = 4
TEXTS = ("we go", "a dog sat", "no more", "so it is")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of evaluations and stored voices stay out of the home directory."""
    folder = tmp_path_factory.getbasetemp()
    monkeypatch.setattr("voxclone.evaluate.cache.default_folder", lambda: folder / "cache")
    monkeypatch.setattr("voxclone.voice.store.default_folder", lambda: folder / "voices")


@pytest.fixture(autouse=True)
def one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases of random weights end no text by themselves: to draw again would take four times as
    long. Tests of drawing again do not go through this constant."""
    monkeypatch.setattr("voxclone.tts.tts.MAX_DRAWS", 1)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command; gives exit code, standard output and standard error."""
    return make_command(capsys, monkeypatch)


@pytest.fixture(scope="session")
def tiny_release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release of random weights with its encoder. Tests do not write to it."""
    folder = tmp_path_factory.mktemp("tiny") / "release"
    return Release.open(write_tiny_release(folder, with_encoder=True))


@pytest.fixture(scope="session")
def tiny_codec(tiny_release: Release) -> Codec:
    return load_codec(tiny_release)


@pytest.fixture(scope="session")
def tiny_tts(tiny_release: Release, tiny_codec: Codec) -> TTS:
    return TTS.load(tiny_release, codec=tiny_codec)


@pytest.fixture(scope="session")
def mini_release() -> Release:
    return Release.open("mini")


@pytest.fixture(scope="session")
def oracle_of_mini(mini_release: Release) -> Codec:
    """The codec of the mini release with its true encoder. Tests change copies only."""
    return oracle_codec(mini_release)


@pytest.fixture(scope="session")
def mini_tts(mini_release: Release, oracle_of_mini: Codec) -> TTS:
    return TTS.load(mini_release, codec=oracle_of_mini)


@pytest.fixture(scope="session")
def mini_inversions(mini_release: Release) -> dict[str, Inversion]:
    """The presets of the mini release as codes; finding them takes seconds."""
    return preset_inversions(mini_release)


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
                    "license": "CC0-1.0",
                }
            )
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def corpus(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return pack(read_manifest(manifest), tmp_path_factory.mktemp("packed"))
