"""A tiny release with an encoder behind the whole app; and a scripted model."""

import io
import resource
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.helpers.tiny_release import write_tiny_release
from voxclone.release.release import Release
from voxclone.serve.app import build_app
from voxclone.serve.catalog import Catalog
from voxclone.serve.engine import Engine
from voxclone.serve.settings import ServeSettings
from voxclone.tts.streams import SpeechChunk, Utterance
from voxclone.tts.text import Part

RATE = 24000
BASE = "http://127.0.0.1:8000"
GIVEN = {"name": "dora", "consent": "self", "statement": "I am Dora and this is my voice."}


def syllables(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that comes and goes like speech."""
    rng = np.random.default_rng(seed)
    time_S = np.arange(round(seconds * RATE)) / RATE
    loud_S = (time_S % 1.1 < 0.8) * np.abs(np.sin(2 * np.pi * 2 * time_S))
    noise_S = 0.15 * loud_S * rng.normal(size=len(time_S)) + 1e-4 * rng.normal(size=len(time_S))
    return noise_S.astype(np.float32)


def wav(seconds: float = 2.0, seed: int = 0) -> bytes:
    """A recording as a WAV file."""
    file = io.BytesIO()
    soundfile.write(file, syllables(seconds, seed), RATE, format="WAV")
    return file.getvalue()


def sample(content: bytes | None = None, name: str = "clip.wav") -> dict[str, Any]:
    """The file of a form."""
    return {"audio_sample": (name, wav() if content is None else content, "audio/wav")}


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("serve") / "tiny"
    return Release.open(write_tiny_release(folder, with_encoder=True))


Opener = Callable[..., TestClient]


@pytest.fixture(scope="session")
def tts_of(release: Release) -> Any:
    """The tiny release, loaded once; its parts are cut short, since it ends by chance only."""
    catalog = Catalog(release, ServeSettings("tiny", Path("unused")), None)
    return Engine.load(catalog, torch.device("cpu")).tts


def app_of(
    release: Release,
    tts: Any,
    folder: Path,
    model: Callable[[], Any] | None = None,
    **changes: Any,
) -> FastAPI:
    """An app with its own settings, of the tiny release or of another model."""
    settings = replace(ServeSettings("tiny", folder), **changes)
    catalog = Catalog(release, settings, None)
    return build_app(settings, catalog, model or (lambda: Engine(catalog, tts)))


@pytest.fixture
def opened(release: Release, tts_of: Any, tmp_path: Path) -> Iterator[Opener]:
    """Opens clients of apps with their own settings, ready to be used."""
    clients = []

    def open_client(wait: bool = True, **changes: Any) -> TestClient:
        app = app_of(release, tts_of, tmp_path / "voices", **changes)
        client = TestClient(app, base_url=BASE, raise_server_exceptions=False)
        clients.append(client.__enter__())
        if wait:
            until(lambda: app.state.service.worker.ready)
        return client

    yield open_client
    for client in clients:
        client.__exit__()


@pytest.fixture(scope="session")
def client(
    release: Release, tts_of: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """One app for all tests that leave no voice behind."""
    app = app_of(release, tts_of, tmp_path_factory.mktemp("shared") / "voices")
    with TestClient(app, base_url=BASE, raise_server_exceptions=False) as client:
        until(lambda: app.state.service.worker.ready)
        yield client


@pytest.fixture(scope="session", autouse=True)
def _decoders_on_demand() -> Iterator[None]:
    """No process is started for an app that decodes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("voxclone.serve.decoding.DecodingProcess.start", lambda self: None)
        yield


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random model never ends by itself: a part is cut after its length in frames."""
    monkeypatch.setattr("voxclone.tts.streams.frame_cap", lambda text, rate: 8 + len(text))


def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def resident(pid: int | str = "self") -> int:
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


class Scripted:
    """A model that speaks `frames` frames of each text, one after each permission."""

    sampling_rate = RATE

    def __init__(self, frames: int = 5, pace: float = 0.0) -> None:
        self.frames, self.pace = frames, pace
        self.running: list[Utterance] = []
        self.steps = 0
        self.most = 0
        self.gate = threading.Event()
        self.gate.set()

    def utterance(self, text: str, voice: str, seed: int, cfg: float) -> Utterance:
        return Utterance([Part(text)], torch.zeros(1, 1), seed, cfg)

    def text_tokens(self, parts: list[str]) -> int:
        return sum(map(len, parts))

    def batch(self) -> "ScriptedBatch":
        return ScriptedBatch(self)


class ScriptedBatch:
    def __init__(self, model: Scripted) -> None:
        self.model = model
        self.done: dict[Utterance, int] = {}
        self.own: list[Utterance] = []

    @property
    def busy(self) -> int:
        return len(self.own)

    def add(self, utterance: Utterance) -> None:
        self.own.append(utterance)
        self.model.running.append(utterance)

    def drop(self, utterances: list[Utterance]) -> None:
        for each in [each for each in self.own if each in utterances]:
            self.own.remove(each)
            self.model.running.remove(each)

    def step(self, held: list[Utterance]) -> list[SpeechChunk]:
        model, chunks = self.model, []
        if not model.gate.wait(20):
            raise RuntimeError("the gate was never opened")
        time.sleep(model.pace)
        model.steps += 1
        model.most = max(model.most, len(model.running))
        for utterance in [each for each in self.own if each not in held]:
            count = self.done[utterance] = self.done.get(utterance, 0) + 1
            ended = count == model.frames
            wave_S, codes_KT = torch.zeros(1920), torch.zeros(7, 1, dtype=torch.long)
            chunks.append(
                SpeechChunk(utterance, 0, wave_S, codes_KT, count == 1, ended, False, ended)
            )
            if ended:
                self.drop([utterance])
        return chunks
