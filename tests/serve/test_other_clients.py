"""Requests of clients that do not run here, letter by letter as their sources make them.

Open WebUI 0.12.4 (`open_webui/routers/audio/__init__.py`, `src/lib/apis/audio/index.ts`), Home
Assistant's openai_tts (`openaitts_engine.py`, `voice_listing.py`, `streaming.py`,
`api_validation.py`), SillyTavern (`src/endpoints/openai.js`).
"""

import io
import json
import wave
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from tests.serve.conftest import RATE, Opener
from tests.serve.test_operation import KEY
from tests.serve.test_speech import speak

JSON = {"Content-Type": "application/json"}
HOME_ASSISTANT = JSON | {"User-Agent": "HomeAssistant-OpenAI-TTS"}
SPEECH = "/v1/audio/speech"

BODIES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "Open WebUI": (JSON, {"input": "One two.", "voice": "anna", "model": "tiny"}),
    "Open WebUI with parameters": (
        JSON, {"input": "One two.", "voice": "anna", "model": "tiny", "seed": 1},
    ),
    "Open WebUI's users": (
        JSON | {
            "X-OpenWebUI-User-Name": "Anna", "X-OpenWebUI-User-Id": "1",
            "X-OpenWebUI-User-Email": "a@b.example", "X-OpenWebUI-User-Role": "admin",
        },
        {"input": "One two.", "voice": "anna", "model": "tiny"},
    ),
    "Home Assistant up to 3.7": (
        HOME_ASSISTANT,
        {
            "model": "tiny", "input": "One two.", "voice": "anna", "response_format": "mp3",
            "speed": 1.0,
        },
    ),
    "Home Assistant from 3.8 on": (
        HOME_ASSISTANT,
        {"model": "tiny", "input": "One two.", "voice": "anna", "response_format": "opus"},
    ),
    "Home Assistant with more": (
        HOME_ASSISTANT,
        {
            "model": "tiny", "input": "One two.", "voice": "anna", "response_format": "wav",
            "instructions": "", "seed": 1,
        },
    ),
    "SillyTavern": (
        JSON,
        {
            "input": "One two.", "response_format": "mp3", "voice": "anna", "speed": 1,
            "model": "tiny",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("key", [None, KEY])
def test_what_they_send_is_spoken(opened: Opener, name: str, key: str | None) -> None:
    """Without a key on this machine, where the clients still send a header; and with the key."""
    headers, body = BODIES[name]
    client = opened(api_key=key)
    for given in (
        ("", "Bearer ", "Bearer none", "Bearer None") if key is None else (f"Bearer {key}",)
    ):
        sent = headers | ({"Authorization": given} if given else {})
        answer = client.post(SPEECH, content=json.dumps(body), headers=sent)
        assert answer.status_code == 200, (given, answer.text)
        samples, rate = soundfile.read(io.BytesIO(answer.content))
        assert rate in (RATE, 48000) and len(samples) > RATE / 10


def test_open_webui_lists_models_and_voices(client: TestClient) -> None:
    """It asks `/audio/models` first, and `/models` where that is not there."""
    assert client.get("/v1/audio/models").status_code == 404
    found = client.get("/v1/models").json()
    assert [model["id"] for model in found["data"]] == ["tiny"]
    voices = client.get("/v1/audio/voices").json()
    assert {voice["id"]: voice["name"] for voice in voices["voices"]} == {
        "anna": "anna", "bert": "bert", "carla": "carla",
    }  # fmt: skip


def test_home_assistant_lists_voices_beside_the_speech(client: TestClient) -> None:
    """Of the lists that it knows, the first that is there and not empty is taken."""
    found = client.get(SPEECH.rpartition("/")[0] + "/voices").json()
    listed = found.get("items") or found.get("data") or found.get("voices")
    assert [voice["id"] for voice in listed] == ["anna", "bert", "carla"]


def test_home_assistant_joins_sentences(client: TestClient) -> None:
    """It takes streamed WAVs apart by Python's `wave`, and frames of MP3s without a first one of
    their own."""
    given = {"seed": 1, "response_format": "pcm"}
    pcm = speak(client, **given).content
    with wave.open(io.BytesIO(speak(client, **given | {"response_format": "wav"}).content)) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (RATE, 2, 1)
        assert file.readframes(file.getnframes()) == pcm
    parts = [speak(client, seed=seed).content for seed in (1, 2)]
    for part in parts:
        assert part[0] == 0xFF and b"Xing" not in part[:200] and b"Info" not in part[:200]
    joined, _ = soundfile.read(io.BytesIO(b"".join(parts)))
    lengths = [len(soundfile.read(io.BytesIO(part))[0]) for part in parts]
    assert abs(len(joined) - sum(lengths)) <= 2 * 1152 and np.abs(joined).max() > 0


def test_home_assistant_asks_whether_a_key_is_right(opened: Opener) -> None:
    """Its probe asks for a model and a voice of OpenAI. 401 alone says that the key is wrong."""
    client = opened(api_key=KEY)
    probe = {"model": "tts-1", "input": ".", "voice": "alloy", "response_format": "mp3"}
    for key, status in ((KEY, 404), ("wrong-key-wrong-key", 401)):
        headers = JSON | {"Authorization": f"Bearer {key}"}
        answer = client.post(SPEECH, content=json.dumps(probe), headers=headers)
        assert answer.status_code == status


def test_what_they_show_of_an_error(client: TestClient) -> None:
    """Open WebUI shows `error.message`; the others show the whole body."""
    body = BODIES["SillyTavern"][1]
    for changes, words in (
        ({"speed": 1.25}, "leave it at 1"), ({"model": "tts-1"}, "this server has 'tiny'"),
        ({"voice": "alloy"}, "anna, bert, carla"), ({"instructions": "Whisper."}, "instructions"),
    ):  # fmt: skip
        answer = client.post(SPEECH, json=body | changes)
        assert answer.status_code in (400, 404) and words in answer.json()["error"]["message"]
