"""The clients that people have, against a real process: OpenAI's Python client, and curl."""

import contextlib
import http.client
import io
import json
import runpy
import shutil
import signal
import subprocess
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.serve.conftest import GIVEN, RATE, wav
from tests.serve.process import Served, serve
from tests.serve.test_hostile import bodies
from tests.serve.test_speech import events
from voxclone.release.release import Release

KEY = "a-key-of-the-tests"
openai = pytest.importorskip("openai", exc_type=ImportError)


@pytest.fixture(scope="module")
def served(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with serve(release.path, folder / "voices", "--api-key", KEY) as server:
        yield server


@pytest.fixture(scope="module")
def ai(served: Served) -> Any:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0)


SPEECH: dict[str, Any] = {"model": "tiny", "voice": "anna", "input": "Hi."}


def test_openai_whole(ai: Any, tmp_path: Path) -> None:
    answer = ai.audio.speech.create(**SPEECH)
    answer.write_to_file(tmp_path / "speech.mp3")
    samples, rate = soundfile.read(tmp_path / "speech.mp3")
    assert rate == RATE and len(samples) > RATE / 10
    answer = ai.audio.speech.create(**SPEECH, response_format="wav", extra_body={"seed": 1})
    with wave.open(io.BytesIO(answer.content)) as file:
        assert file.getframerate() == RATE
    again = ai.audio.speech.create(**SPEECH, response_format="wav", extra_body={"seed": 1})
    assert again.content == answer.content


def test_openai_streaming(ai: Any) -> None:
    with ai.audio.speech.with_streaming_response.create(
        **SPEECH, response_format="pcm", speed=1.0
    ) as answer:
        chunks = list(answer.iter_bytes())
    assert len(chunks) > 1 and sum(map(len, chunks)) > RATE / 5


def test_openai_events(ai: Any) -> None:
    answer = ai.audio.speech.create(**SPEECH, response_format="pcm", stream_format="sse")
    *deltas, (kind, done) = events(answer.text)
    assert len(deltas) > 1 and kind == "speech.audio.done" and done["usage"]["total_tokens"]
    # The client's own reader of events, by the type that it has for other routes.
    stream = ai.post(
        "/audio/speech", body=SPEECH | {"stream_format": "sse", "response_format": "pcm"},
        cast_to=object, stream=True, stream_cls=openai.Stream[object],
    )  # fmt: skip
    assert [each["type"] for each in stream][-1] == "speech.audio.done"


def test_openai_async(served: Served) -> None:
    import asyncio

    async def ask() -> int:
        client = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=KEY)
        async with client.audio.speech.with_streaming_response.create(**SPEECH) as answer:
            return sum([len(chunk) async for chunk in answer.iter_bytes()])

    assert asyncio.run(ask()) > 100


def test_openai_errors(ai: Any, served: Served) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ai.audio.speech.create(**SPEECH | {"voice": "alloy"})
    assert caught.value.code == "voice_not_found" and caught.value.param == "voice"
    assert "anna, bert, carla" in str(caught.value)
    with pytest.raises(openai.BadRequestError) as caught:
        ai.audio.speech.create(**SPEECH, speed=2)
    assert caught.value.param == "speed" and caught.value.type == "invalid_request_error"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong").models.list()


def test_openai_models_and_voices(ai: Any) -> None:
    assert [model.id for model in ai.models.list()] == ["tiny"]
    assert ai.models.retrieve("tiny").owned_by == "voxclone"
    voice = ai.audio.voices.create(
        name="olga", audio_sample=("olga.wav", wav(2)), consent="written",
        extra_body={"statement": "Letter of 2 May."},
    )  # fmt: skip
    assert (voice.id, voice.object) == ("olga", "audio.voice")
    assert len(ai.audio.speech.create(**SPEECH | {"voice": {"id": voice.id}}).content) > 100
    gone = ai.audio.voices.delete("olga")
    assert gone.deleted and gone.object == "audio.voice.deleted"


def curl(served: Served, path: str, *options: str) -> "subprocess.CompletedProcess[bytes]":
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    return subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "60", *options,
         "-H", f"Authorization: Bearer {KEY}", f"{served.url}{path}"],
        capture_output=True, check=False,
    )  # fmt: skip


def test_curl_whole_and_streaming(served: Served, tmp_path: Path) -> None:
    given = ("-H", "Content-Type: application/json", "-d", json.dumps(SPEECH))
    out = tmp_path / "out.mp3"
    answer = curl(served, "/v1/audio/speech", "--fail", *given, "-o", str(out))
    assert answer.returncode == 0 and soundfile.info(out).samplerate == RATE
    body = json.dumps(SPEECH | {"response_format": "wav"})
    streamed = curl(served, "/v1/audio/speech", "--no-buffer", "-H", given[1], "-d", body)
    samples, _ = soundfile.read(io.BytesIO(streamed.stdout))
    assert len(samples) > RATE / 10
    body = json.dumps(SPEECH | {"stream_format": "sse"})
    streamed = curl(served, "/v1/audio/speech", "--no-buffer", "-H", given[1], "-d", body)
    assert streamed.stdout.startswith(b"event: speech.audio.delta\ndata: {")


def test_curl_voices(served: Served, tmp_path: Path) -> None:
    clip = tmp_path / "me.wav"
    clip.write_bytes(wav(2))
    form = [option for name, value in GIVEN.items() for option in ("-F", f"{name}={value}")]
    made = curl(served, "/v1/audio/voices", *form, "-F", f"audio_sample=@{clip}")
    assert json.loads(made.stdout)["voice"]["name"] == "dora"
    (path,) = served.voices.iterdir()
    assert path.name == "dora.voice.safetensors"
    assert json.loads(curl(served, "/v1/audio/voices/dora", "-X", "DELETE").stdout)["deleted"]
    assert list(served.voices.iterdir()) == []
    refused = curl(served, "/v1/audio/voices", "--fail", "-F", "name=dora")
    assert refused.returncode == 22


def test_who_goes_away_frees_the_process(served: Served, ai: Any) -> None:
    """S5 against the real model: within a second nobody is spoken for."""
    text = "One two three four five. " * 40
    with ai.audio.speech.with_streaming_response.create(
        **SPEECH | {"input": text}, response_format="pcm"
    ) as answer:
        chunks = answer.iter_bytes()
        next(chunks)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.port)) as metrics:
            assert speaking(metrics) == 1
    left = asked = time.monotonic()
    # A slow answer proves nothing: what counts is when it was asked for. It is an error only if
    # somebody is still spoken for at a moment that is surely more than a second later.
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.port)) as metrics:
        while speaking(metrics):
            assert asked - left < 1.0
            asked = time.monotonic()
    assert list(served.voices.iterdir()) == []


@pytest.mark.slow
def test_the_benchmark_measures_this_server(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = Path(__file__).parents[2] / "bench" / "serve.py"
    options = ["--url", served.url, "--key", KEY, "--clients", "1", "2", "--requests", "1"]
    monkeypatch.setattr("sys.argv", [str(path), *options])
    runpy.run_path(str(path), run_name="__main__")
    one, two = map(json.loads, capsys.readouterr().out.splitlines())
    assert (one["requests"], two["requests"]) == (1, 2)
    assert 0 < one["first_sound_median_s"] < 60 and one["speech_s_per_s"] > 0


def speaking(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {KEY}"})
    metrics = connection.getresponse().read().decode()
    (line,) = [each for each in metrics.splitlines() if each.startswith("voxclone_speaking")]
    return int(float(line.split()[1]))


def test_the_process_ends_well(release: Release, tmp_path: Path) -> None:
    """A signal lets running requests end; then the process does, with 0, and nothing is left."""
    with serve(release.path, tmp_path / "voices") as served:
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0)
        with client.audio.speech.with_streaming_response.create(
            **SPEECH, response_format="pcm"
        ) as answer:
            chunks = answer.iter_bytes()
            first = next(chunks)
            served.process.terminate()
            rest = b"".join(chunks)
        assert len(first + rest) % 480 == 0 and len(rest) > 0
        assert served.process.wait(60) == 0
    assert not any("Traceback" in line for line in served.errors), served.errors
    lines = [json.loads(line) for line in served.errors if line.startswith("{")]
    assert lines[-1]["route"] == "/v1/audio/speech" and lines[-1]["status"] == 200
    assert list((tmp_path / "voices").iterdir()) == []


def test_standard_error_is_the_log(release: Release, tmp_path: Path) -> None:
    """One JSON line a request: libraries add none of their own, whatever is sent."""
    with serve(release.path, tmp_path / "voices") as served:
        asked = 0
        for route, _, headers, content in bodies(220):
            if route == "/v1/audio/voices":
                asked += 1
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.port)) as to:
                    to.request("POST", route, content, headers)
                    assert to.getresponse().status < 500
        assert served.stop() == 0
    assert asked > 100 and len(served.errors) == asked
    assert all(json.loads(line)["route"] for line in served.errors)


def test_a_second_interrupt_does_not_wait(release: Release, tmp_path: Path) -> None:
    """The model's thread ends first: PyTorch would abort the process otherwise."""
    with serve(release.path, tmp_path / "voices") as served:
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0)
        with client.audio.speech.with_streaming_response.create(
            **SPEECH | {"input": "One two three four five. " * 100}, response_format="pcm"
        ) as answer:
            chunks = answer.iter_bytes()
            next(chunks)
            served.process.send_signal(signal.SIGINT)
            time.sleep(0.5)
            assert served.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--host", "0.0.0.0"], 2, "--api-key"),
        (["--api-key", "short"], 2, "16 are needed"),
        (["--port", "99999"], 2, "less than or equal to 65535"),
        (["--host", "192.0.2.1", "--api-key", KEY], 2, "cannot be used: Cannot assign requested"),
        (["--voices", __file__], 1, "No folder for voices can be made"),
        (["--queue", "0"], 2, "--queue"),
        (["--cors-origin", "*"], 2, "scheme://host"),
        (["--cors-origin", "http://page.example/"], 2, "scheme://host"),
        (["--api-key", KEY, "--api-key-file", "x"], 2, "either"),
        (["--api-key-file", "no/such/file"], 2, "cannot be read"),
        (["--encoder", "no/such/file"], 1, "no/such/file"),
    ],
)
def test_wrong_options_get_a_sentence(
    release: Release, tmp_path: Path, options: list[str], code: int, words: str, capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from voxclone.cli import main

    monkeypatch.setattr("sys.argv", ["voxclone", "serve", str(release.path), *options])
    monkeypatch.setattr("voxclone.serve.run.run", pytest.fail)
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == code and words in error and "Traceback" not in error
