"""Memory of a server process with the mini release over 500 requests. Minutes of CPU."""

import contextlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import resident, until
from tests.serve.live import Address
from tests.serve.process import serve
from tests.serve.test_worker import send_voice

pytestmark = pytest.mark.slow
REFERENCE = Path(__file__).parents[2] / "examples" / "reference.flac"
SPEECH: dict[str, Any] = {
    "model": "mini",
    "voice": "en_male_1",
    "input": "The dogs are sitting in the sun.",
}
MARKS = (50, 100, 250, 500)


def test_memory_over_500_requests(tmp_path: Path) -> None:
    """Speech in all formats, streams, voices with their similarity, errors, and clients that leave:
    memory is flat after the first 100, and no file or socket stays open."""
    content = REFERENCE.read_bytes()
    marks: dict[int, dict[str, float]] = {}
    statuses: Counter[int] = Counter()
    with serve("mini", tmp_path / "voices") as server:
        address = Address(server.port)
        for number in range(500):
            statuses[ask(address, number, content)] += 1
            if number + 1 in MARKS:
                until(lambda: idle(address))
                marks[number + 1] = memory(server.process.pid)
        files = len(os.listdir(f"/proc/{server.process.pid}/fd"))
        assert server.stop() == 0
    for number, parts in marks.items():
        found = ", ".join(f"{name} {size:.1f}" for name, size in parts.items())
        print(f"\nMiB after {number} requests: {found}", end="")
    print(f"\n{files} open files; answers: {dict(statuses)}")
    assert statuses == {200: 400, 404: 50, 0: 50}
    for name in ("server", "decoder"):
        assert marks[500][name] < 1.05 * marks[100][name]
    assert files < 40 and list((tmp_path / "voices").iterdir()) == []


def ask(address: Address, number: int, content: bytes) -> int:
    """The status of the answer to one of ten kinds of requests; 0 for a client that left."""
    kind = number % 10
    body: dict[str, Any] = SPEECH | {
        "response_format": ("mp3", "wav", "pcm", "opus", "flac")[kind % 5]
    }
    if kind < 5:
        return address.ask("POST", "/v1/audio/speech", body | {"seed": number})[0]
    if kind == 5:
        with contextlib.closing(send_voice(address, content, name="temp")) as connection:
            answer = connection.getresponse()
            assert b'"similarity":{"ge2e' in answer.read()
            return answer.status
    if kind == 6:
        body |= {"voice": "temp", "stream_format": "sse"}
        return address.ask("POST", "/v1/audio/speech", body)[0]
    if kind == 7:
        return address.ask("DELETE", "/v1/audio/voices/temp")[0]
    if kind == 8:
        return address.ask("POST", "/v1/audio/speech", body | {"voice": f"nobody{number}"})[0]
    with contextlib.closing(address.send("POST", "/v1/audio/speech", body)) as connection:
        if number % 20 == 19:  # in the midst of the answer, else before it
            connection.getresponse().read(100)
    return 0


def idle(address: Address) -> bool:
    return b"\nvoxclone_slots 0.0" in address.ask("GET", "/metrics")[2]


def memory(pid: int) -> dict[str, float]:
    """MiB of a server and of the process that decodes for it."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for path in tasks for child in path.read_text().split()]
    (decoder,) = children
    return {"server": resident(pid) / 2**20, "decoder": resident(decoder) / 2**20}
