"""Recordings that somebody sent, decoded in a process that may fail (`serve.decoder`)."""

import subprocess
import sys
import threading
from contextlib import suppress

from voxclone.audio.files import ReadingLimits, Recording
from voxclone.errors import AudioError
from voxclone.serve import decoder
from voxclone.serve.settings import Limits

NAME_SHOWN = 80


class DecodingProcess:
    """Decodes one recording after the other; a decoder that fails or takes too long is replaced."""

    def __init__(self, limits: Limits) -> None:
        self._limits = ReadingLimits(
            max_seconds=limits.recording_seconds, max_bytes=limits.upload_bytes
        )
        self._seconds = limits.decoding_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, content: bytes, name: str) -> Recording:
        """The recording in the bytes of a file. Waits for its turn. Raises AudioError."""
        with self._lock:
            process = self._started()
            timer = threading.Timer(self._seconds, process.kill)
            timer.start()
            try:
                assert process.stdin is not None and process.stdout is not None
                decoder.send(process.stdin, content, name[:NAME_SHOWN], self._limits)
                return decoder.receive(process.stdout)
            except (OSError, EOFError):
                self._stop()
                raise AudioError(
                    f"{name[:NAME_SHOWN]} cannot be decoded: its decoder failed or took longer "
                    f"than {self._seconds:g} s. Convert it to WAV and try again."
                ) from None
            finally:
                timer.cancel()

    def start(self) -> None:
        """Have the process ready before it is needed."""
        with self._lock:
            self._started()

    def stop(self) -> None:
        with self._lock:
            self._stop()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._stop()
            self._process = subprocess.Popen(
                [sys.executable, "-m", decoder.__name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):  # it flushes what a process that is gone never took
                    stream.close()
        process.wait()
