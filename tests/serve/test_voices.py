"""Voices over HTTP: made, listed, imported, renamed, compared, exported, deleted."""

import io
import json
import zipfile
from pathlib import Path
from socket import socket
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.serve.conftest import BASE, GIVEN, RATE, Opener, sample, syllables, until, wav
from tests.serve.test_speech import events, speak
from voxclone.cli.serve import serve
from voxclone.release.release import Release
from voxclone.runtimes.table import RUNTIMES
from voxclone.serve.settings import Limits, ServeSettings
from voxclone.voice.file import Voice, read_metadata


def make(client: TestClient, content: bytes | None = None, **changes: Any) -> Any:
    return client.post("/v1/audio/voices", data=GIVEN | changes, files=sample(content))


def folder_of(client: TestClient) -> Path:
    folder: Path = client.app.state.service.catalog.folder  # type: ignore[attr-defined]
    return folder


@pytest.fixture
def dora(opened: Opener) -> TestClient:
    """A server with a voice."""
    client = opened()
    assert make(client).status_code == 200
    return client


def test_a_voice_is_made_kept_and_spoken_with(opened: Opener) -> None:
    client = opened()
    answer = make(client, ref_text="La la la.", speaker_description="Warm.")
    made = answer.json()
    assert answer.status_code == 200 and made["success"] is True
    voice, report = made["voice"], made["report"]
    assert (voice["name"], voice["consent"], voice["ref_text"]) == ("dora", "self", "La la la.")
    assert voice["speaker_description"] == "Warm." and voice["embedding_source"] == "audio"
    assert voice["consent_record"]["statement"] == GIVEN["statement"]
    assert list(voice["similarity"]) == ["ge2e, decoded codes"] or voice["similarity"] == {}
    assert report["verdict"] in ("fair", "bad") and len(report["checks"]) == 6
    assert any("La la la" not in line for line in report["sentences"])

    listed = client.get("/v1/audio/voices").json()
    assert [each["id"] for each in listed["voices"]] == ["anna", "bert", "carla", "dora"]
    assert listed["voices"][-1] == {
        "id": "dora", "name": "dora", "kind": "stored", "problem": None
    }  # fmt: skip
    (uploaded,) = listed["uploaded_voices"]
    assert uploaded["name"] == "dora" and uploaded["file_size"] > 100
    assert client.get("/v1/audio/voices/dora").json() == voice

    metadata = read_metadata(folder_of(client) / "dora.voice.safetensors")
    assert (metadata.consent.kind, metadata.transcript) == ("self", "La la la.")
    spoken = speak(client, voice="dora", response_format="pcm", seed=1)
    assert spoken.status_code == 200 and len(spoken.content) > 1920


def test_stages_are_sent_as_events(opened: Opener) -> None:
    client = opened()
    answer = make(client, stream_format="sse")
    stages = events(answer.text)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [data["stage"] for kind, data in stages if kind == "voice.progress"] == [
        "reference", "codes", "voice", "saving"
    ]  # fmt: skip
    assert stages[-1][0] == "voice.done" and stages[-1][1]["made"]["name"] == "dora"
    kind, data = events(make(client, stream_format="sse").text)[-1]
    assert kind == "voice.error" and data["error"]["code"] == "voice_exists"
    kind, data = events(make(client, wav(0.5), name="eva", stream_format="sse").text)[-1]
    assert kind == "voice.error" and data["error"]["code"] == "audio_too_short"
    assert "eva" not in client.get("/v1/audio/voices").text


def test_a_clip_is_checked_and_not_kept(client: TestClient) -> None:
    report = client.post("/v1/audio/voices/check", files=sample(wav(12))).json()
    found = {check["name"]: check for check in report["checks"]}
    assert list(found) == ["length", "level", "noise", "clipping", "bandwidth", "speakers"]
    assert found["length"]["verdict"] == "good" and not found["length"]["suggestion"]
    assert 10 < report["used_seconds"] <= 12 and report["start"] < report["end"]
    quiet = client.post("/v1/audio/voices/check", files=sample(wav(2))).json()
    assert quiet["verdict"] == "bad" and "Record more" in str(quiet["checks"][0]["suggestion"])
    assert list(folder_of(client).iterdir()) == []


MISTAKES: dict[str, tuple[dict[str, str], int, str, str]] = {
    "no consent": ({"consent": ""}, 400, "consent", "consent_required"),
    "consent in other words": ({"consent": "yes"}, 400, "consent", "consent_required"),
    "consent nobody stated": ({"consent": "unstated"}, 400, "consent", "consent_required"),
    "no statement": ({"statement": " "}, 400, "statement", "consent_required"),
    "endless statement": ({"statement": "x" * 2001}, 400, "statement", "consent_required"),
    "no name": ({"name": ""}, 400, "name", "bad_request"),
    "a preset's name": ({"name": "anna"}, 409, "name", "voice_exists"),
    "an unknown field": ({"callback_url": "http://a"}, 400, "callback_url", "invalid_value"),
    "long description": (
        {"speaker_description": "x" * 1001}, 400, "speaker_description", "invalid_value"
    ),
    "another type": ({"type": "prompt"}, 400, "type", "invalid_value"),
    "an unknown stream": ({"stream_format": "ws"}, 400, "stream_format", "invalid_value"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_and_nothing_is_kept(client: TestClient, name: str) -> None:
    changes, status, param, code = MISTAKES[name]
    answer = make(client, **changes)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)
    assert error["message"].endswith(".") and "--" not in error["message"]
    assert list(folder_of(client).iterdir()) == []


BAD_CLIPS: dict[str, tuple[bytes, int, str]] = {
    "no audio": (b"hello, I am no audio", 415, "audio_undecodable"),
    "nothing": (b"", 415, "audio_undecodable"),
    "webm": (b"\x1aE\xdf\xa3" + bytes(100), 415, "audio_undecodable"),
    "half a second": (wav(0.5), 400, "audio_too_short"),
    "cut in its header": (wav(2)[:20], 415, "audio_undecodable"),
}


@pytest.mark.parametrize("name", BAD_CLIPS)
@pytest.mark.parametrize("route", ["/v1/audio/voices", "/v1/audio/voices/check"])
def test_clips_that_cannot_be_used(client: TestClient, name: str, route: str) -> None:
    content, status, code = BAD_CLIPS[name]
    data = {} if route.endswith("check") else GIVEN
    answer = client.post(route, data=data, files=sample(content))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, "audio_sample")


def silence() -> bytes:
    """A second of nothing, as a WAV file."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(RATE), RATE, format="WAV")
    return file.getvalue()


def test_silence_and_length_are_refused(opened: Opener) -> None:
    client = opened(limits=Limits(recording_seconds=3.0))
    answer = make(client, silence())
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "audio_silent")
    answer = make(client, wav(4))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "audio_too_long")


def test_a_name_is_taken_once(dora: TestClient) -> None:
    before = (folder_of(dora) / "dora.voice.safetensors").read_bytes()
    answer = make(dora, wav(2, seed=5))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (409, "voice_exists", "name")
    assert (folder_of(dora) / "dora.voice.safetensors").read_bytes() == before


def test_no_more_voices_than_allowed(opened: Opener) -> None:
    client = opened(limits=Limits(voices=1))
    assert make(client).status_code == 200
    answer = make(client, name="eva")
    assert answer.status_code == 400 and "no more can be" in answer.json()["error"]["message"]


def test_a_file_goes_out_and_comes_back(dora: TestClient, opened: Opener) -> None:
    answer = dora.get("/v1/audio/voices/dora/file")
    content = answer.content
    assert 'filename="dora.voice.safetensors"' in answer.headers["content-disposition"]
    assert content == (folder_of(dora) / "dora.voice.safetensors").read_bytes()

    def send(content: bytes, **fields: str) -> Any:
        return dora.post("/v1/audio/voices", data=fields, files={"voice_file": ("x", content)})

    assert send(content).status_code == 409
    assert send(content, name="eva", consent="self").json()["error"]["param"] == "consent"
    imported = send(content, name="eva")
    assert imported.status_code == 200 and imported.json()["voice"]["name"] == "eva"
    assert imported.json()["voice"]["consent_record"]["statement"] == GIVEN["statement"]
    first, second = (
        Voice.load(folder_of(dora) / f"{name}.voice.safetensors") for name in ("dora", "eva")
    )
    assert (first.codes_KT == second.codes_KT).all() and second.metadata.name == "eva"
    for bad in (b"", b"no voice", content[:-5], content.replace(b"voxclone.voice/3", b"x" * 16)):
        answer = send(bad, name="fay")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "voice_file")
    assert sorted(path.name for path in folder_of(dora).iterdir()) == [
        "dora.voice.safetensors", "eva.voice.safetensors"
    ]  # fmt: skip


def test_a_voice_gets_another_name(dora: TestClient) -> None:
    speak(dora, voice="dora")  # it is remembered under its name
    answer = dora.patch("/v1/audio/voices/dora", json={"name": "eva"})
    assert answer.status_code == 200 and answer.json()["voice"]["name"] == "eva"
    assert speak(dora, voice="dora").status_code == 404
    assert speak(dora, voice="eva").status_code == 200
    for name, status in (("eva", 409), ("anna", 409), ("../x", 400), ("Eva", 400)):
        assert dora.patch("/v1/audio/voices/eva", json={"name": name}).status_code == status
    assert dora.patch("/v1/audio/voices/nobody", json={"name": "b"}).status_code == 404
    assert dora.patch("/v1/audio/voices/anna", json={"name": "b"}).status_code == 404


def test_deleting_leaves_nothing(dora: TestClient) -> None:
    speak(dora, voice="dora")
    dora.post("/v1/audio/voices/dora/similarity", files=sample())
    answer = dora.delete("/v1/audio/voices/dora")
    assert answer.json() == {
        "id": "dora", "object": "audio.voice.deleted", "deleted": True, "success": True,
        "message": "Voice 'dora' was deleted.",
    }  # fmt: skip
    assert list(folder_of(dora).iterdir()) == []
    engine = dora.app.state.service.worker.model  # type: ignore[attr-defined]
    assert "dora" not in engine._resolved._values and "dora" not in engine._embedded._values
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("GET", "/file"), ("GET", "/reference"),
        ("GET", "/export?runtime=codes"),
    ):  # fmt: skip
        answer = dora.request(method, f"/v1/audio/voices/dora{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "voice_not_found")
    assert speak(dora, voice="dora").status_code == 404
    assert dora.delete("/v1/audio/voices/anna").status_code == 404  # a preset is not theirs


def test_reference_and_similarity(dora: TestClient) -> None:
    answer = dora.get("/v1/audio/voices/dora/reference")
    samples, rate = soundfile.read(io.BytesIO(answer.content))
    assert rate == RATE and 1.0 < len(samples) / rate <= 2.1
    same = dora.post("/v1/audio/voices/dora/similarity", files=sample(answer.content)).json()
    assert same["similarity"] > 0.9
    assert (same["same_speaker"], same["other_speakers"], same["network"]) == (0.75, 0.5, "ge2e")
    other = dora.post("/v1/audio/voices/dora/similarity", files=sample(wav(3, 9))).json()
    assert other["similarity"] < same["similarity"]
    assert dora.post("/v1/audio/voices/anna/similarity", files=sample()).status_code == 404
    assert dora.get("/v1/audio/voices/anna/reference").status_code == 404


def test_export_is_a_file_or_a_zip_of_what_is_new(dora: TestClient) -> None:
    """Of every runtime in `tests/runtimes/test_archive.py`."""
    answer = dora.get("/v1/audio/voices/dora/export?runtime=vllm-omni")
    assert 'filename="dora-vllm-omni.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        assert sorted(packed.namelist()) == [
            "README.txt", "params.json", "tekken.json", "voice_embedding/dora.pt"
        ]  # fmt: skip
    answer = dora.get("/v1/audio/voices/dora/export?runtime=codes")
    assert 'filename="dora-codes.safetensors"' in answer.headers["content-disposition"]
    assert [path.name for path in folder_of(dora).iterdir()] == ["dora.voice.safetensors"]


def test_exports_that_cannot_be(dora: TestClient) -> None:
    width = "width 3072, and that of the release is 28"
    for query, param, words in (
        ("runtime=vlm-omni", "runtime", "did you mean 'vllm-omni'"),
        ("runtime=none&replace_preset=x", "runtime", "No runtime is called 'none'"),
        ("runtime=comfyui", "name", "replace one with 'replace_preset', such as"),
        ("runtime=codes&replace_preset=anna", "replace_preset", "'replace_preset' is for others"),
        ("runtime=vllm-omni&replace_preset=nobody", "replace_preset", "no preset 'nobody' to"),
        ("runtime=voxtral-tts.c", "runtime", width),
        ("runtime=voxtral-tts.c&replace_preset=anna", "runtime", "with the voice 'dora', so"),
        ("runtime=faster-voxtral", "runtime", f"faster-voxtral is written for a model of {width}"),
        ("runtime=mlx-audio", "runtime", "refuses the codec encoder"),
        ("", "runtime", "'runtime' is missing."),
    ):
        answer = dora.get(f"/v1/audio/voices/dora/export?{query}")
        error = answer.json()["error"]
        assert answer.status_code == 400 and words in error["message"]
        assert "--" not in error["message"]
        assert error["param"] == param, query
    answer = dora.get("/v1/audio/voices/anna/export?runtime=vllm-omni")
    error = answer.json()["error"]
    assert "'replace_preset' anna" in error["message"] and "--" not in error["message"]
    assert error["param"] == "name"
    answer = dora.get("/v1/audio/voices/anna/export?runtime=codes")
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (404, "name")
    assert "voice file" not in error["message"]


def test_no_path_of_the_server_is_answered(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a release and a folder that were named by relative paths, and through a link."""
    apps: list[FastAPI] = []

    def run(app: FastAPI, settings: ServeSettings, listening: socket, quiet: bool) -> None:
        listening.close()
        apps.append(app)

    monkeypatch.setattr("voxclone.serve.run.run", run)
    monkeypatch.setattr("voxclone.device.limit_threads", lambda parameters: None)
    (tmp_path / "e").symlink_to(release.path)
    folder = tmp_path / "voices"
    folder.mkdir()
    (folder / "damaged.voice.safetensors").write_bytes(b"no voice")
    monkeypatch.chdir(folder)
    serve("../e", voices=Path("."), port=0, device="cpu", quiet=True)
    with TestClient(apps[0], base_url=BASE) as client:
        until(lambda: client.get("/ready").status_code == 200)
        assert make(client).status_code == 200

        def refusal(method: str, path: str) -> str:
            answer = client.request(method, f"/v1/audio/voices{path}")
            message: str = answer.json()["error"]["message"]
            assert answer.status_code >= 400 and tmp_path.name not in message, message
            return message

        assert refusal("DELETE", "/anna") == (
            "'anna' is a preset of the release: only stored voices can be read or changed."
        )
        assert refusal("GET", "/eva").endswith("stored in this server: damaged, dora.")
        assert refusal("GET", "/damaged").startswith("damaged.voice.safetensors is no voice file")
        for runtime in ("voxtral-tts.c", "faster-voxtral", "comfyui", "none"):
            refusal("GET", f"/dora/export?runtime={runtime}")
        assert "that is in tiny: export" in refusal("GET", "/dora/export?runtime=mlx-audio")
        damaged = client.get("/v1/audio/voices").json()["voices"][-2]
        assert damaged["problem"].startswith("damaged.voice.safetensors is no voice file")


def test_refusals_name_their_field(dora: TestClient) -> None:
    path = "/v1/audio/voices"
    content = dora.get(f"{path}/dora/file").content
    voice = {"voice_file": ("dora.voice.safetensors", content)}
    for answer, param in (
        (dora.post(path, data=GIVEN | {"statement": ""}, files=sample()), "statement"),
        (dora.post(path, data=GIVEN | {"statement": "x" * 2001}, files=sample()), "statement"),
        (dora.post(path, data=GIVEN | {"consent": ""}, files=sample()), "consent"),
        (dora.post(path, data={"name": "A B"}, files=voice), "name"),
        (dora.post(path, files=voice), "name"),
        (dora.post(path, data={"name": "anna"}, files=voice), "name"),
        (dora.post(f"{path}/dora/similarity", files=sample(silence())), "audio_sample"),
        (dora.post(path, files={"voice_file": ("x", b"junk")}), "voice_file"),
        (dora.post(f"{path}/nobody/similarity", files=sample()), "name"),
        (dora.get(f"{path}/nobody/export?runtime=codes"), "name"),
    ):
        assert answer.json()["error"]["param"] == param, answer.text


def test_runtimes_are_listed(client: TestClient) -> None:
    found = client.get("/v1/audio/runtimes").json()
    assert [each["name"] for each in found["runtimes"]] == list(RUNTIMES)
    assert "casual_male" in found["presets"]
    uses = {each["name"]: each["use"] for each in found["runtimes"]}
    assert uses["vllm-omni"].startswith("vllm serve voxtral-NAME --omni")
    assert uses["mlx-voxtral-swift"] == 'voxtral tts --voice-embedding FILE "..."'
    assert all(each["reads"] and "{" not in each["use"] for each in found["runtimes"][:-1])


def test_a_release_without_encoder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.helpers.tiny_release import write_tiny_release
    from tests.serve.conftest import Scripted, app_of

    release = Release.open(write_tiny_release(tmp_path / "tiny"))
    with TestClient(app_of(release, None, tmp_path / "voices", Scripted), base_url=BASE) as client:
        until(lambda: client.get("/ready").status_code == 200)
        answer = make(client)
        assert (answer.status_code, answer.json()["error"]["code"]) == (501, "no_encoder")
        assert "voxclone train encoder" in answer.json()["error"]["message"]
        (model,) = client.get("/v1/models").json()["data"]
        assert model["can_clone"] is False and model["why_not"]
        assert str(tmp_path) not in json.dumps(model)


@pytest.mark.parametrize(("container", "codec"), [("ipod", "aac"), ("webm", "libopus")])
def test_recordings_of_phones_and_browsers(client: TestClient, container: str, codec: str) -> None:
    """By PyAV, in the confined process."""
    pytest.importorskip("av")
    from tests.helpers.media import encode_media

    content = encode_media(container, codec, syllables(4.0))
    answer = client.post("/v1/audio/voices/check", files=sample(content, f"clip.{container}"))
    assert answer.status_code == 200 and 3 < answer.json()["used_seconds"] < 4.1
