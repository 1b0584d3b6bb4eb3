"""Many at once, many in a row, and servers that are killed (S4 to S7). Minutes of CPU."""

import contextlib
import http.client
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import GIVEN, Opener, app_of, resident, sample, until, wav
from tests.serve.live import Address, Live, live
from tests.serve.test_speech import SPEECH, speak
from tests.serve.test_worker import send_voice
from voxclone.release.release import Release
from voxclone.serve.settings import Limits
from voxclone.voice import store
from voxclone.voice.file import Voice

pytestmark = pytest.mark.slow
WAVE = SPEECH | {"response_format": "pcm"}


def test_200_uploads_at_once(release: Release, tts_of: Any, tmp_path: Path) -> None:
    """S4: each is made or sent away; none fails, and memory stays."""
    content = wav(3)
    app = app_of(release, tts_of, tmp_path / "voices", limits=Limits(queue=32, together=1))
    waits: list[float] = []

    def upload(server: Live, number: int) -> int:
        begun = time.monotonic()
        connection = send_voice(server, content, name=f"voice{number}")
        with contextlib.closing(connection):
            answer = connection.getresponse()
            answer.read()
        if answer.status == 200:
            waits.append(time.monotonic() - begun)
        return answer.status

    with live(app) as server:
        upload(server, 1000)
        before = resident()
        with ThreadPoolExecutor(200) as pool:
            counts = Counter(pool.map(lambda number: upload(server, number), range(200)))
        grown = resident() - before
    assert set(counts) == {200, 429} and sum(counts.values()) == 200, counts
    assert counts[200] >= 33 and len(store.list_voices(tmp_path / "voices")) == counts[200] + 1
    each = sorted(waits[1:])[int(0.95 * (len(waits) - 2))] / 33
    print(f"\nS4: {dict(counts)}, p95 {each:.2f} s an encoding, memory +{grown / 2**20:.0f} MiB")
    assert each < 10 and grown < 300 * 2**20


def test_50_disconnects_at_any_moment(release: Release, tts_of: Any, tmp_path: Path) -> None:
    """S5: in the middle of a body, while waiting, while a voice is made, while it is spoken."""
    rng, content = random.Random(1), wav(2)
    app = app_of(release, tts_of, tmp_path / "voices")
    freed = []
    with live(app) as server:
        server.ask("POST", "/v1/audio/speech", WAVE)
        threads = threading.active_count()
        for number in range(50):
            kind = number % 4
            if kind == 0:
                raw = server.raw()
                raw.sendall(
                    b"POST /v1/audio/voices HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
                    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n" + bytes(500)
                )
                leave: Any = raw.close
            elif kind == 1:
                leave = send_voice(server, content, name=f"v{number}").close
            else:
                text = "One two three four five six. " * 20
                more = {"input": text} | ({"seed": 1} if kind == 2 else {"stream_format": "sse"})
                leave = server.send("POST", "/v1/audio/speech", WAVE | more).close
            time.sleep(rng.random() * 0.3)
            leave()
            left = time.monotonic()
            until(lambda: not server.worker.speaking and not server.worker.waiting, 5.0)
            freed.append(time.monotonic() - left)
        until(lambda: threading.active_count() <= threads + 2, 5.0)
    print(f"\nS5: freed after {max(freed):.3f} s at most")
    assert max(freed) < 1.0
    assert not [path for path in (tmp_path / "voices").iterdir() if path.name.startswith(".")]


@pytest.fixture
def forking(release: Release, tmp_path: Path) -> Iterator[Any]:
    command = [sys.executable, "-m", "tests.serve.forking", str(release.path), str(tmp_path / "v")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start() -> tuple[int, int]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        pid, port = process.stdout.readline().split()
        return int(pid), int(port)

    yield start
    process.kill()
    process.wait()


def test_50_kills(release: Release, forking: Any, opened: Opener, tmp_path: Path) -> None:
    """S6: killed during uploads, deletions and lists; no half voice, and nothing left behind."""
    rng, folder = random.Random(2), tmp_path / "v"
    client = opened()
    client.post("/v1/audio/voices", data=GIVEN, files=sample(wav(1.2)))
    content = client.get("/v1/audio/voices/dora/file").content
    seen: Counter[str] = Counter()
    for number in range(51):
        for path in folder.glob(".voxclone-*") if folder.is_dir() else ():
            seen["leftovers"] += 1
            os.utime(path, (1, 1))  # they are removed when they are a minute old
        pid, port = forking()
        server = Address(port)
        until(lambda at=server: _answers(at), 60.0)  # type: ignore[misc]
        assert not list(folder.glob(".*")), "an earlier server left something behind"
        for voice in store.list_voices(folder):
            assert voice.problem is None, voice
            Voice.load(voice.path)
        if number == 50:
            os.kill(pid, signal.SIGKILL)
            break
        done = threading.Event()
        workers = [
            threading.Thread(target=_disturb, args=(server, content, number, k, done, seen))
            for k in range(4)
        ]
        for thread in workers:
            thread.start()
        time.sleep(rng.random() * 3)
        os.kill(pid, signal.SIGKILL)
        done.set()
        for thread in workers:
            thread.join()
    print(f"\nS6: 50 kills among {dict(seen)}, {len(store.list_voices(folder))} voices whole")
    assert seen["imported"] > 50 and seen["deleted"] > 20


def _answers(server: Address) -> bool:
    try:
        return server.ask("GET", "/ready")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def _disturb(
    server: Address, content: bytes, number: int, kind: int, done: threading.Event,
    seen: "Counter[str]",
) -> None:  # fmt: skip
    """Make, delete and list voices until the server is gone."""
    count = 0
    with contextlib.suppress(OSError, http.client.HTTPException):
        while not done.is_set():
            count += 1
            if kind == 0:
                connection = send_voice(server, content, "voice_file", name=f"n{number}-{count}")
                with contextlib.closing(connection):
                    seen["imported"] += connection.getresponse().status == 200
            elif kind == 3:
                connection = send_voice(server, wav(1.2), name=f"m{number}-{count}")
                with contextlib.closing(connection):
                    seen["made"] += connection.getresponse().status == 200
            elif kind == 1:
                status, _, _ = server.ask("DELETE", f"/v1/audio/voices/n{number}-{count // 2 + 1}")
                seen["deleted"] += status == 200
            else:
                assert server.ask("GET", "/v1/audio/voices")[0] == 200
                seen["listed"] += 1


@dataclass
class Operation:
    """One that succeeded, from when to when."""

    kind: str
    begun: float
    ended: float


def test_1000_operations_on_one_name(opened: Opener) -> None:
    """S7: there is an order of all that succeeded in which making and deleting alternate, and it
    agrees with the clock."""
    client = opened()
    client.post("/v1/audio/voices", data=GIVEN, files=sample(wav(1.2)))
    content = client.get("/v1/audio/voices/dora/file").content
    client.delete("/v1/audio/voices/dora")
    operations: list[Operation] = []
    statuses: Counter[tuple[str, int]] = Counter()

    def act(number: int) -> None:
        kind, begun = ("make", "delete")[number % 2], time.monotonic()
        if kind == "make":
            answer = client.post("/v1/audio/voices", files={"voice_file": ("x", content)})
        else:
            answer = client.delete("/v1/audio/voices/dora")
        statuses[kind, answer.status_code] += 1
        if answer.status_code == 200:
            operations.append(Operation(kind, begun, time.monotonic()))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(act, range(1000)))
    assert set(statuses) <= {("make", 200), ("make", 409), ("delete", 200), ("delete", 404)}
    made, deleted = statuses["make", 200], statuses["delete", 200]
    there = client.get("/v1/audio/voices/dora").status_code == 200
    assert made - deleted == int(there) and made > 50
    print(f"\nS7: {dict(statuses)}")
    assert _in_order(operations)


def _in_order(operations: list[Operation]) -> bool:
    """Whether there is an alternating order in which nothing comes before what had ended."""
    left, wanted = list(operations), "make"
    while left:
        soonest = min(each.ended for each in left)
        possible = [each for each in left if each.kind == wanted and each.begun <= soonest]
        if not possible:
            return False
        left.remove(min(possible, key=lambda each: each.ended))
        wanted = "delete" if wanted == "make" else "make"
    return True


def test_a_seed_holds_in_a_crowd(
    release: Release, tts_of: Any, tmp_path: Path, opened: Opener
) -> None:
    """The same bytes alone and beside seven others."""
    client = opened()
    body = {"seed": 7, "response_format": "pcm", "input": "Four and five and six and seven."}
    alone = speak(client, **body).content

    def ask(number: int) -> bytes:
        own = body if number == 3 else {"response_format": "pcm", "input": "One two three four."}
        content: bytes = speak(client, **own).content
        return content

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8)))[3] == alone
