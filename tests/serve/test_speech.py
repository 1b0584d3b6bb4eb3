"""`POST /v1/audio/speech`: formats, streams, seeds, refusals by name."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from tests.serve.conftest import RATE, Opener, Scripted
from voxclone.serve.encoding import MEDIA_TYPES
from voxclone.serve.status import PAGE
from voxclone.tts.limits import MAX_CFG, MAX_SEED

SPEECH: dict[str, Any] = {"model": "tiny", "input": "One two.", "voice": "anna"}


def speak(client: TestClient, **changes: Any) -> Any:
    return client.post("/v1/audio/speech", json=SPEECH | changes)


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream: type and data."""
    found = []
    for block in text.strip().split("\n\n"):
        first, second = block.split("\n")
        kind, data = first.removeprefix("event: "), json.loads(second.removeprefix("data: "))
        assert data["type"] == kind
        found.append((kind, data))
    return found


@pytest.mark.parametrize(
    ("name", "media_type", "begin"),
    [
        ("mp3", "audio/mpeg", b"\xff\xf3"),
        ("opus", "audio/ogg", b"OggS"),
        ("flac", "audio/flac", b"fLaC"),
        ("wav", "audio/wav", b"RIFF"),
        ("pcm", "audio/pcm", b""),
    ],
)
def test_every_format_is_the_same_speech(
    client: TestClient, name: str, media_type: str, begin: bytes
) -> None:
    pcm = np.frombuffer(speak(client, response_format="pcm", seed=1).content, "<i2") / 32768
    answer = speak(client, response_format=name, seed=1)
    assert answer.status_code == 200 and answer.content.startswith(begin)
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-seed"] == "1" and answer.headers["x-request-id"]
    if name == "pcm":
        assert len(pcm) % 1920 == 0 and len(pcm) > 0
        return
    samples, rate = soundfile.read(io.BytesIO(answer.content))
    assert rate in (RATE, 48000) and abs(len(samples) / rate - len(pcm) / RATE) < 0.12
    if name in ("flac", "wav"):
        assert np.array_equal(samples, pcm)


def test_mp3_is_what_nobody_asks_for_gets(client: TestClient) -> None:
    assert speak(client).headers["content-type"] == "audio/mpeg"


def test_aac_without_pyav_says_what_to_install(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("voxclone.serve.encoding.importlib.import_module", refuse)
    answer = speak(client, response_format="aac")
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (
        501, "response_format", "not_installed"
    )  # fmt: skip
    assert "voxclone[media]" in error["message"]


def test_aac_with_pyav(client: TestClient) -> None:
    pytest.importorskip("av", exc_type=ImportError)
    answer = speak(client, response_format="aac")
    assert answer.headers["content-type"] == "audio/aac" and answer.content[:1] == b"\xff"


def test_a_seed_holds_alone_and_in_company(client: TestClient) -> None:
    first = speak(client, response_format="pcm", seed=3)
    again = speak(client, response_format="pcm", seed=3)
    other = speak(client, response_format="pcm", seed=4)
    drawn = speak(client, response_format="pcm")
    assert first.content == again.content != other.content
    repeated = speak(client, response_format="pcm", seed=int(drawn.headers["x-seed"]))
    assert repeated.content == drawn.content


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_a_seed_is_the_same_bytes_in_every_format(client: TestClient, name: str) -> None:
    if name == "aac":
        pytest.importorskip("av", exc_type=ImportError)
    first, again = (speak(client, response_format=name, seed=3) for _ in range(2))
    assert first.status_code == 200 and first.content == again.content


def test_a_voice_may_be_an_object_with_an_id(client: TestClient) -> None:
    named = speak(client, response_format="pcm", seed=1)
    assert speak(client, response_format="pcm", seed=1, voice={"id": "anna"}).content == (
        named.content
    )


def test_events_are_openais(client: TestClient) -> None:
    raw = speak(client, response_format="pcm", seed=1, input="One two. Three.").content
    answer = speak(
        client, response_format="pcm", seed=1, input="One two. Three.", stream_format="sse"
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    *deltas, (kind, done) = events(answer.text)
    assert {name for name, _ in deltas} == {"speech.audio.delta"} and len(deltas) > 1
    assert all(name == data["type"] for name, data in [*deltas, (kind, done)])
    assert b"".join(base64.b64decode(data["audio"]) for _, data in deltas) == raw
    usage = done["usage"]
    assert kind == "speech.audio.done" and done["seed"] == 1
    assert usage["output_tokens"] == len(raw) // 2 // 1920 or usage["output_tokens"] > 0
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens"] > 5 and done["truncated"] >= 0


REFUSED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "unknown voice": ({"voice": "nobody"}, 404, "voice", "anna, bert, carla"),
    "near voice": ({"voice": "bertt"}, 404, "voice", "did you mean 'bert'"),
    "voice by path": ({"voice": "../voices/dora"}, 404, "voice", "no voice"),
    "voice by URL": ({"voice": "http://example.org/a.wav"}, 404, "voice", "no voice"),
    "unknown model": ({"model": "tts-1"}, 404, "model", "'tiny'"),
    "another speed": ({"speed": 1.5}, 400, "speed", "leave it at 1"),
    "speed in words": ({"speed": "fast"}, 400, "speed", "valid number"),
    "instructions": ({"instructions": "Whisper."}, 400, "instructions", "no instructions"),
    "unknown format": ({"response_format": "ogg"}, 400, "response_format", "'opus'"),
    "unknown stream": ({"stream_format": "ws"}, 400, "stream_format", "'sse'"),
    "unknown field": ({"ref_audio": "http://a/b.wav"}, 400, "ref_audio", "not known"),
    "unknown field of null": ({"ref_audio": None}, 400, "ref_audio", "not known"),
    "text of null": ({"input": None}, 400, "input", "is missing"),
    "empty text": ({"input": " \n"}, 400, "input", "at least one word"),
    "no words": ({"input": "...!"}, 400, "input", "at least one word"),
    "long text": ({"input": "word " * 900}, 400, "input", "4096"),
    "half a character": ({"input": "a\ud800"}, 400, "input", "surrogate"),
    "text in a list": ({"input": ["a"]}, 400, "input", "string"),
    "negative seed": ({"seed": -1}, 400, "seed", "greater than or equal to 0"),
    "huge seed": ({"seed": MAX_SEED + 1}, 400, "seed", f"less than or equal to {MAX_SEED}"),
    "seed in words": ({"seed": "one"}, 400, "seed", "integer"),
    "much guidance": ({"cfg": MAX_CFG + 1}, 400, "cfg", f"less than or equal to {MAX_CFG:g}"),
    "voice of another shape": ({"voice": {"name": "anna"}}, 400, "voice", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_field(client: TestClient, name: str) -> None:
    changes, status, param, words = REFUSED[name]
    body = json.dumps(SPEECH | changes)
    answer = client.post(
        "/v1/audio/speech", content=body, headers={"Content-Type": "application/json"}
    )
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert error["param"] == param and words in error["message"]
    catalog = client.app.state.service.catalog  # type: ignore[attr-defined]
    assert error["message"].endswith((".", "?"))
    assert not any(str(path) in error["message"] for path in (catalog.folder, catalog.release.path))


def test_the_limits_are_those_of_the_package(client: TestClient) -> None:
    assert speak(client, seed=MAX_SEED, cfg=MAX_CFG).status_code == 200
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert f'id="cfg" type="number" min="0" max="{MAX_CFG:g}"' in page


@pytest.mark.parametrize("field", ["model", "input", "voice"])
def test_missing_fields_are_named(client: TestClient, field: str) -> None:
    body = {name: value for name, value in SPEECH.items() if name != field}
    error = client.post("/v1/audio/speech", json=body).json()["error"]
    assert (error["param"], error["message"]) == (field, f"{field!r} is missing.")


def test_defaults_that_clients_send_pass(client: TestClient) -> None:
    assert speak(client, speed=1.0, instructions="", stream_format="audio").status_code == 200
    assert speak(client, speed=1, instructions=None, seed=None).status_code == 200
    unset = ("response_format", "speed", "instructions", "stream_format", "seed", "cfg")
    answer = speak(client, **dict.fromkeys(unset))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400"])
def test_guidance_is_a_number(client: TestClient, value: str) -> None:
    body = json.dumps(SPEECH)[:-1] + f', "cfg": {value}}}'
    answer = client.post(
        "/v1/audio/speech", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400


def test_a_model_that_says_nothing_is_an_error(opened: Opener) -> None:
    class Silent(Scripted):
        def batch(self) -> Any:
            batch = super().batch()
            step = batch.step

            def nothing(held: Any) -> Any:
                from dataclasses import replace

                return [
                    replace(p, wave_S=p.wave_S[:0], codes_KT=p.codes_KT[:, :0]) for p in step(held)
                ]

            batch.step = nothing  # type: ignore[method-assign]
            return batch

    client = opened(model=lambda: Silent(frames=2))
    answer = speak(client)
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "no_speech"


def test_an_error_in_the_middle_is_an_event(opened: Opener) -> None:
    class Failing(Scripted):
        def batch(self) -> Any:
            batch = super().batch()
            step = batch.step

            def fail(held: Any) -> Any:
                if self.steps == 3:
                    raise RuntimeError("out of memory at /secret/path")
                return step(held)

            batch.step = fail  # type: ignore[method-assign]
            return batch

    client = opened(model=Failing)
    answer = speak(client, stream_format="sse", response_format="pcm")
    *deltas, (kind, data) = events(answer.text)
    assert len(deltas) == 3 and kind == "speech.audio.error"
    assert data["error"]["code"] == "internal_error" and "secret" not in answer.text
