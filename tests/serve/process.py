"""`voxclone serve` as its user starts it: a process of its own."""

import contextlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Served:
    """A server process that is ready."""

    process: "subprocess.Popen[str]"
    url: str
    voices: Path
    errors: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextlib.contextmanager
def serve(
    release: Path | str, voices: Path, *options: str, interpreter: Sequence[str] = ()
) -> Iterator[Served]:
    """Start a server, with options of its own and of Python, and end it with the block."""
    command = [
        sys.executable, *interpreter, "-m", "voxclone", "serve", str(release), "--port", "0",
        "--device", "cpu", "--voices", str(voices), *options,
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    served = Served(process, "", voices)
    reader = threading.Thread(target=lambda: served.errors.extend(process.stderr or []))
    reader.start()
    try:
        for line in process.stdout or []:
            if found := re.match(r"Ready +(http://\S+)", line):
                served.url = found[1]
                break
        else:
            process.wait(30)
            reader.join(5)
            raise AssertionError("".join(served.errors))
        yield served
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(5)
        if process.stdout is not None:
            process.stdout.close()
