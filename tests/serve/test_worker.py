"""The queue: bounded, fair, and free again at once when somebody goes away."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import GIVEN, Opener, Scripted, app_of, sample, until, wav
from tests.serve.live import Address, live
from tests.serve.test_speech import SPEECH
from voxclone.release.release import Release
from voxclone.serve.settings import Limits

WAVE = SPEECH | {"response_format": "pcm"}


@pytest.fixture
def scripted() -> Scripted:
    return Scripted(frames=1000, pace=0.002)


def served(release: Release, folder: Path, model: Any, **limits: Any) -> Any:
    return live(app_of(release, None, folder, lambda: model, limits=Limits(**limits)))


def test_sound_comes_before_the_text_is_spoken(
    release: Release, tmp_path: Path, scripted: Scripted
) -> None:
    with served(release, tmp_path, scripted) as server:
        connection = server.send("POST", "/v1/audio/speech", WAVE)
        answer = connection.getresponse()
        assert answer.headers["transfer-encoding"] == "chunked"
        assert len(answer.read(3840)) == 3840
        assert scripted.steps < 500 and len(scripted.running) == 1
        connection.close()
        until(lambda: not scripted.running, 1.0)


def test_who_goes_away_in_an_upload_is_no_error_of_the_server(
    release: Release, tmp_path: Path, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    with served(release, tmp_path, scripted) as server:
        raw = server.raw()
        raw.sendall(
            b"POST /v1/audio/voices HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            b'Content-Disposition: form-data; name="audio_sample"; filename="a"\r\n\r\nRIFF'
        )
        until(lambda: server.worker.waiting)
        raw.close()
        until(lambda: not server.worker.waiting)
        route = 'voxclone_requests_total{route="/v1/audio/voices",status="499"} 1.0'
        until(lambda: route in server.ask("GET", "/metrics")[2].decode(), 5.0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    "changes", [{}, {"seed": 1}, {"stream_format": "sse"}, {"response_format": "flac"}]
)
def test_who_goes_away_is_not_spoken_for(
    release: Release, tmp_path: Path, scripted: Scripted, changes: dict[str, Any]
) -> None:
    """S5 in small: the model is free within a second, and so is the place in the queue."""
    rng = random.Random(0)
    with served(release, tmp_path, scripted) as server:
        for _ in range(5):
            connection = server.send("POST", "/v1/audio/speech", WAVE | changes)
            until(lambda: scripted.running)
            time.sleep(rng.random() / 20)
            connection.close()
            until(lambda: not scripted.running and not server.worker.waiting, 1.0)
        assert server.worker.speaking == 0
        status, _, metrics = server.ask("GET", "/metrics")
        assert status == 200 and b"voxclone_abandoned_total 5.0" in metrics


def test_who_goes_away_while_waiting_is_never_spoken_for(
    release: Release, tmp_path: Path, scripted: Scripted
) -> None:
    with served(release, tmp_path, scripted, together=1, queue=4) as server:
        first = server.send("POST", "/v1/audio/speech", WAVE)
        until(lambda: scripted.running)
        others = [server.send("POST", "/v1/audio/speech", WAVE) for _ in range(4)]
        until(lambda: server.worker.waiting == 5)
        for connection in others:
            connection.close()
        until(lambda: server.worker.waiting == 1, 1.0)
        first.close()
        until(lambda: not scripted.running and not server.worker.waiting, 1.0)
        assert scripted.most == 1


def test_a_full_queue_says_when_to_come_again(
    release: Release, tmp_path: Path, scripted: Scripted
) -> None:
    with served(release, tmp_path, scripted, together=2, queue=3) as server:
        scripted.gate.clear()
        waiting = [server.send("POST", "/v1/audio/speech", WAVE) for _ in range(5)]
        until(lambda: server.worker.waiting == 5)
        for method, path in (("POST", "/v1/audio/speech"), ("DELETE", "/v1/audio/voices/x")):
            status, headers, body = server.ask(method, path, WAVE)
            assert status == 429 and b'"code":"queue_full"' in body
            assert 1 <= int(headers["retry-after"]) <= 60
        assert server.ask("GET", "/health")[0] == server.ask("GET", "/ready")[0] == 200
        scripted.frames = 3
        scripted.gate.set()
        for connection in waiting:
            assert len(connection.getresponse().read()) == 3 * 3840
            connection.close()
        until(lambda: not server.worker.waiting, 2.0)
        assert scripted.most == 2


def test_a_short_text_does_not_wait_for_a_long_one(
    release: Release, tmp_path: Path, scripted: Scripted
) -> None:
    """Both with a seed: batches of their own take turns."""
    with served(release, tmp_path, scripted) as server:
        long = server.send("POST", "/v1/audio/speech", WAVE | {"seed": 1})
        until(lambda: scripted.running)
        scripted.frames = len(scripted.running) + 4
        begun = scripted.steps
        assert server.ask("POST", "/v1/audio/speech", WAVE | {"seed": 2})[0] == 200
        assert scripted.steps - begun < 40
        long.close()


def test_speech_that_nobody_takes_is_not_made_for_ever(
    release: Release, tmp_path: Path, scripted: Scripted
) -> None:
    """A reader that stops: memory is bounded, and after a while it is given up."""
    scripted.frames, scripted.pace = 10**9, 0.0
    with served(release, tmp_path, scripted, ahead_seconds=3.0, stalled_seconds=0.5) as server:
        connection = server.send("POST", "/v1/audio/speech", WAVE)
        connection.sock.setsockopt(  # a small window, so that the server notices soon
            __import__("socket").SOL_SOCKET, __import__("socket").SO_RCVBUF, 4096
        )
        until(lambda: scripted.running)
        until(lambda: not scripted.running, 20.0)
        assert scripted.steps * 3840 < 50 * 2**20
        connection.close()


def test_stopping_lets_running_requests_end(release: Release, tmp_path: Path) -> None:
    model = Scripted(frames=60, pace=0.005)
    with served(release, tmp_path, model) as server:
        connection = server.send("POST", "/v1/audio/speech", WAVE)
        answer = connection.getresponse()
        answer.read(3840)
        server.server.should_exit = True
        assert len(answer.read()) == 59 * 3840
        with pytest.raises(OSError):
            for _ in range(100):
                server.ask("GET", "/health")
                time.sleep(0.01)


def test_stopping_gives_up_what_takes_too_long(
    release: Release, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is being sent is cut; what is not begun is refused. The log has sentences alone."""
    model = Scripted(frames=10**6, pace=0.005)
    app = app_of(release, None, tmp_path, lambda: model, limits=Limits())
    with live(app) as server:
        server.server.config.timeout_graceful_shutdown = 1
        connections = [
            server.send("POST", "/v1/audio/speech", WAVE | {"response_format": kind})
            for kind in ("pcm", "flac")  # of which one is sent when all of it is there
        ]
        answer = connections[0].getresponse()
        until(lambda: len(model.running) == 2)
        server.server.should_exit = True
        with pytest.raises(http.client.IncompleteRead):
            answer.read()
        refused = connections[1].getresponse()
        assert refused.status == 503
        assert json.loads(refused.read())["error"]["code"] == "stopping"
    assert not model.running or app.state.service.worker.speaking == 0
    assert "Cancel 2 running task(s)" in caplog.text
    assert "CancelledError" not in caplog.text and "Traceback" not in caplog.text


def test_a_slow_body_is_given_up(release: Release, tmp_path: Path) -> None:
    """S3: a body of which a byte comes now and then."""
    with served(release, tmp_path, Scripted(), body_seconds=0.3) as server, server.raw() as raw:
        raw.sendall(
            b"POST /v1/audio/voices HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
        until(lambda: server.worker.waiting == 1)
        answer = raw.recv(4096)
        while b'"code":"timeout"' not in answer and (more := raw.recv(4096)):
            answer += more
        assert answer.startswith(b"HTTP/1.1 408") and b'"code":"timeout"' in answer
        until(lambda: not server.worker.waiting, 1.0)


def test_one_of_many_gets_a_name(opened: Opener) -> None:
    """S7 in small; the whole of it is in `test_load.py`."""
    client = opened()
    content = wav(1.2)

    def make(number: int) -> int:
        answer = client.post("/v1/audio/voices", data=GIVEN, files=sample(content))
        return answer.status_code

    with ThreadPoolExecutor(6) as pool:
        counts = Counter(pool.map(make, range(6)))
    assert counts == {200: 1, 409: 5}
    assert len(list((client.app.state.service.catalog.folder).iterdir())) == 1  # type: ignore[attr-defined]


def test_a_task_that_nobody_waits_for_leaves_nothing(
    release: Release, tts_of: Any, tmp_path: Path
) -> None:
    """A client that goes away while its voice is made: no voice is stored."""
    from voxclone.serve.engine import Engine

    entered, go_on = threading.Event(), threading.Event()
    original = Engine.enroll

    def slow(self: Engine, recording: Any, new: Any, progress: Any) -> Any:
        def slow_progress(stage: str) -> None:
            if stage == "codes":
                entered.set()
                go_on.wait(20)
            progress(stage)

        return original(self, recording, new, slow_progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "enroll", slow)
        with live(app_of(release, tts_of, tmp_path)) as server:
            connection = send_voice(server, wav(1.5))
            assert entered.wait(30)
            connection.close()
            until(lambda: not server.worker.waiting, 1.0)
            go_on.set()
            assert server.ask("DELETE", "/v1/audio/voices/dora")[0] == 404
            assert list(tmp_path.iterdir()) == []


def send_voice(
    server: Address, content: bytes, field: str = "audio_sample", **changes: str
) -> http.client.HTTPConnection:
    """A connection on which a voice was sent."""
    fields = GIVEN | changes if field == "audio_sample" else changes
    return server.send_form("/v1/audio/voices", field, content, fields)
