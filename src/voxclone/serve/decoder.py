"""A process that decodes recordings for the server: `python -m voxclone.serve.decoder`.

Decoders of audio have had holes that a file can use, so none of them runs in the server. Requests
come on standard input, answers go to standard output, each a line of JSON and so many bytes.
"""

import json
import os
import sys
from typing import IO, Any

from voxclone.audio.files import ReadingLimits, Recording, read_recording
from voxclone.errors import AudioError

ADDRESS_SPACE = 2 * 2**30
FACTS = ("sampling_rate", "native_rate", "channels", "duration", "sha256", "source")
MORE_FACTS = ("clipped_share", "notes")


def main() -> None:
    """Answer until there is nothing more to read."""
    _confine()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while line := requests.readline():
        request = json.loads(line)
        content = requests.read(request["bytes"])
        answer, samples = _decode(content, request)
        answers.write(json.dumps(answer).encode() + b"\n" + samples)
        answers.flush()


def send(stream: IO[bytes], content: bytes, name: str, limits: ReadingLimits) -> None:
    """Ask for a recording."""
    request = {"bytes": len(content), "name": name, "limits": limits.model_dump()}
    stream.write(json.dumps(request).encode() + b"\n")
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes]) -> Recording:
    """Read an answer. Raises AudioError for what is no recording, EOFError if there is no whole
    answer."""
    import numpy as np

    line = stream.readline(2**16)
    if not line.endswith(b"\n"):
        raise EOFError
    answer = json.loads(line)
    if "error" in answer:
        raise AudioError(answer["error"], answer["rule"])
    samples = stream.read(4 * answer["samples"])
    if len(samples) < 4 * answer["samples"]:
        raise EOFError
    facts: dict[str, Any] = {name: answer[name] for name in (*FACTS, *MORE_FACTS)}
    facts["notes"] = tuple(facts["notes"])
    return Recording(np.frombuffer(samples, np.float32).copy(), **facts)


def _decode(content: bytes, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    limits = ReadingLimits.model_validate(request["limits"])
    try:
        recording = read_recording(content, limits, name=request["name"])
    except AudioError as error:
        return {"error": str(error), "rule": error.rule}, b""
    facts = {name: getattr(recording, name) for name in (*FACTS, *MORE_FACTS)}
    samples = recording.wave_S.astype("float32").tobytes()
    return facts | {"samples": len(recording.wave_S)}, samples


def _confine() -> None:
    """Take from this process what no decoder needs."""
    if os.name != "posix":
        return
    import resource

    for limit, value in (
        (resource.RLIMIT_AS, ADDRESS_SPACE),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(limit, (value, value))


if __name__ == "__main__":
    main()
