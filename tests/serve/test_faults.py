"""Faults of the server itself, and what it says of its own files: never where they are."""

import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from fastapi.testclient import TestClient

from tests.helpers.tiny_release import write_tiny_release
from tests.serve.conftest import BASE, GIVEN, Opener, app_of, sample, until
from tests.serve.test_hostile import check_envelope, folder_of
from tests.serve.test_speech import events, speak
from voxclone.release.release import Release

VOICES = "/v1/audio/voices"


def check_fault(answer: Any, place: Path) -> None:
    """A fault of the server, of which its client learns no path."""
    error = check_envelope(answer)
    assert (answer.status_code, error["type"], error["param"]) == (500, "server_error", None)
    assert str(place) not in answer.text and place.name not in answer.text


@pytest.mark.parametrize(
    "name",
    [f"{'x' * 150}/{'y' * 150}", os.fsdecode(b"n\xfft"), "a\nb"],
    ids=["long", "byte", "line"],
)
def test_a_folder_that_messages_would_not_show_whole(
    release: Release, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from voxclone.cli import main

    command = ["voxclone", "serve", str(release.path), "--voices", str(tmp_path / name)]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setattr("voxclone.serve.run.run", pytest.fail)
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 1 and "its path may have 200" in error and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_lost(opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    """A file takes its place while the server runs."""
    client = opened()
    folder = folder_of(client)
    folder.rmdir()
    folder.write_text("no folder")
    with caplog.at_level(logging.ERROR, "voxclone.serve"):
        for answer in (
            client.get(VOICES),
            client.get(f"{VOICES}/dora"),
            client.delete(f"{VOICES}/dora"),
            client.post(VOICES, data=GIVEN, files=sample()),
            client.post(VOICES, files={"voice_file": ("x", b"x")}),
            client.get(f"{VOICES}/anna/export?runtime=vllm-omni&replace_preset=anna"),
            speak(client, voice="dora"),
        ):
            check_fault(answer, folder)
    assert speak(client).status_code == 200
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 7 and all(str(folder) in each for each in messages)
    assert "Traceback" not in caplog.text and not any(each.exc_info for each in caplog.records)


def test_a_voice_that_cannot_be_written(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, new: bool) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    client = opened()
    monkeypatch.setattr("voxclone.voice.file.atomic_file", full)
    check_fault(client.post(VOICES, data=GIVEN, files=sample()), folder_of(client))
    sent = client.post(VOICES, data=GIVEN | {"stream_format": "sse"}, files=sample())
    kind, data = events(sent.text)[-1]
    assert (kind, data["error"]["type"]) == ("voice.error", "server_error")
    assert str(folder_of(client)) not in sent.text


def test_a_release_that_has_lost_a_preset(
    tts_of: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    release = Release.open(write_tiny_release(tmp_path / "tiny", with_encoder=True))
    (release.path / "voice_embedding" / "anna.pt").unlink()
    app = app_of(release, tts_of, tmp_path / "voices")
    with TestClient(app, base_url=BASE) as client:
        until(lambda: app.state.service.worker.ready)
        check_fault(speak(client, voice="anna"), release.path / "voice_embedding" / "anna.pt")
    assert "anna.pt is missing" in caplog.text


def test_text_of_clients_is_left_as_it_is(opened: Opener) -> None:
    """A path in it is the client's: another one in its place would confirm a guess."""
    client = opened()
    folder, release = folder_of(client), client.app.state.service.catalog.release.path  # type: ignore[attr-defined]
    tensors = {
        "codes": torch.zeros(2, 3, dtype=torch.int16),
        "embedding": torch.zeros(4, 8, dtype=torch.bfloat16),
    }
    for guess in (f"{folder}/x", str(folder), str(release)):
        metadata = {"voxclone": f'{{"format": "{guess}"}}'}
        uploaded = safetensors.torch.save(tensors, metadata)
        for answer in (
            speak(client, voice=guess),
            client.post(VOICES, data=GIVEN | {"name": guess}, files=sample()),
            client.post(VOICES, files={"voice_file": ("x", uploaded)}),
            client.get(f"{VOICES}/anna/export", params={"runtime": guess}),
            client.get(
                f"{VOICES}/anna/export", params={"runtime": "vllm-omni", "replace_preset": guess}
            ),
        ):
            assert answer.status_code in (400, 404)
            assert repr(guess) in check_envelope(answer)["message"], answer.text


def test_a_listed_file_that_is_no_voice(opened: Opener) -> None:
    """It is called what it is, and its name is the field."""
    client = opened()
    (folder_of(client) / "dir.voice.safetensors").mkdir()
    (folder_of(client) / "damaged.voice.safetensors").write_bytes(b"no voice")
    listed = client.get(VOICES).json()["voices"][-2:]
    assert [each["id"] for each in listed] == ["damaged", "dir"] and all(
        each["problem"] and str(folder_of(client)) not in each["problem"] for each in listed
    )
    for name, words in (
        ("dir", "'dir' is stored, but it is no voice: dir.voice.safetensors is a directory or"),
        ("damaged", "damaged.voice.safetensors is no voice file"),
    ):
        path = f"{VOICES}/{name}"
        for answer in (
            speak(client, voice=name),
            client.get(path),
            client.get(f"{path}/reference"),
            client.get(f"{path}/export?runtime=codes"),
            client.get(f"{path}/export?runtime=vllm-omni"),
            client.patch(path, json={"name": "eva"}),
        ):
            error = check_envelope(answer)
            assert answer.status_code == 400 and error["message"].startswith(words), answer.text
            assert error["param"] == ("name" if answer.url.path.startswith(path) else None)
            assert str(folder_of(client)) not in answer.text
