"""What a server process imports, from its start until it has answered every route."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.conftest import GIVEN, wav
from tests.serve.live import Address
from tests.serve.process import serve
from tests.serve.test_speech import SPEECH
from voxclone.audio.files import ReadingLimits
from voxclone.release.release import Release
from voxclone.serve import decoder
from voxclone.serve.status import PAGE

IMPORTS = ("-X", "importtime")  # each import, at once, on standard error
VOICES = "/v1/audio/voices"
TRAINING = ("voxclone.train", "voxclone.evaluate", "voxclone.recover")


def check_imports(lines: list[str], *expected: str) -> None:
    modules = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert modules.issuperset(expected)
    assert not [name for name in modules if name.startswith(TRAINING)]


@pytest.mark.slow  # the rules test asks the same of the import graph
def test_a_server_imports_nothing_that_trains_or_evaluates(
    release: Release, tmp_path: Path
) -> None:
    """Each operation of the description and each file of the page is answered with success."""
    with serve(release.path, tmp_path / "voices", interpreter=IMPORTS) as server:
        address = Address(server.port)
        done = set()

        def ask(method: str, path: str, body: object = None, at: str = "") -> bytes:
            status, _, content = address.ask(method, path, body)
            assert status == 200, (method, path, content)
            done.add((method.lower(), at or path))
            return content

        def send(path: str, field: str, content: bytes, fields: dict[str, str], at: str) -> bytes:
            with contextlib.closing(address.send_form(path, field, content, fields)) as connection:
                answer = connection.getresponse()
                found = answer.read()
            assert answer.status == 200, (path, found)
            done.add(("post", at))
            return found

        description = json.loads(ask("GET", "/openapi.json"))
        for path in ("/", *(f"/page/{file.name}" for file in PAGE.iterdir())):
            ask("GET", path)
        for path in ("/health", "/ready", "/metrics", "/v1/models", VOICES, "/v1/audio/runtimes"):
            ask("GET", path)
        ask("GET", "/v1/models/tiny", at="/v1/models/{model}")
        for kind in ("mp3", "opus", "flac", "wav", "pcm"):
            ask("POST", "/v1/audio/speech", SPEECH | {"response_format": kind, "seed": 1})
        ask("POST", "/v1/audio/speech", SPEECH | {"stream_format": "sse"})
        send(f"{VOICES}/check", "audio_sample", wav(2), {}, f"{VOICES}/check")
        made = json.loads(send(VOICES, "audio_sample", wav(4), GIVEN, VOICES))
        assert made["voice"]["similarity"]
        one = f"{VOICES}/{{name}}"
        ask("GET", f"{VOICES}/dora", at=one)
        ask("GET", f"{VOICES}/dora/reference", at=f"{one}/reference")
        ask("GET", f"{VOICES}/dora/export?runtime=vllm-omni", at=f"{one}/export")
        send(f"{VOICES}/dora/similarity", "audio_sample", wav(2), {}, f"{one}/similarity")
        content = ask("GET", f"{VOICES}/dora/file", at=f"{one}/file")
        send(VOICES, "voice_file", content, {"name": "eva"}, VOICES)
        ask("PATCH", f"{VOICES}/eva", {"name": "fay"}, at=one)
        ask("DELETE", f"{VOICES}/fay", at=one)
        described = {
            (method, path) for path, methods in description["paths"].items() for method in methods
        }
        assert done >= described
        assert server.stop() == 0
    check_imports(server.errors, "voxclone.serve.engine", "voxclone.cloning.enroll")


def test_the_decoder_imports_neither() -> None:
    request = io.BytesIO()
    decoder.send(request, wav(2), "clip.wav", ReadingLimits())
    command = [sys.executable, *IMPORTS, "-m", decoder.__name__]
    process = subprocess.run(command, input=request.getvalue(), capture_output=True, check=True)
    assert decoder.receive(io.BytesIO(process.stdout)).duration == 2.0
    check_imports(process.stderr.decode().splitlines(), "voxclone.audio.files", "soundfile")
