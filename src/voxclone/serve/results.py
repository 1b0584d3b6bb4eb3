"""Results of a job, handed from the worker thread to a request in the event loop."""

import asyncio
import time
from typing import Any


class ClientGoneError(Exception):
    """The client has closed its connection, so nobody waits for the result."""


class JobResults:
    """The results of a job, in order; an exception is the last one if the job fails.

    Created and read in the event loop; only `put`, `unread`, `stalled` and `check` are for the
    worker thread.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[tuple[Any, float]] = asyncio.Queue()
        self.closed = False
        self.unread = 0.0  # seconds of speech
        self._read_at = time.monotonic()

    def put(self, value: Any, seconds: float = 0.0) -> None:
        """Add a result, with its seconds of speech if it is speech."""
        try:
            self._loop.call_soon_threadsafe(self._arrive, value, seconds)
        except RuntimeError:  # the loop is closed
            self.closed = True

    async def get(self) -> Any:
        """The next result. Raises the exception of the job."""
        value, seconds = await self._arrived.get()
        self.unread -= seconds
        self._read_at = time.monotonic()
        if isinstance(value, Exception):
            raise value
        return value

    def close(self) -> None:
        """Cancel the job at its next step: the results are not read any more."""
        self.closed = True

    def stalled(self) -> float:
        """Seconds since the last read, if there is something to read."""
        return 0.0 if self._arrived.empty() else time.monotonic() - self._read_at

    def check(self) -> None:
        """Raise ClientGoneError if the job was cancelled."""
        if self.closed:
            raise ClientGoneError

    def _arrive(self, value: Any, seconds: float) -> None:
        if self._arrived.empty():
            self._read_at = time.monotonic()
        self.unread += seconds
        self._arrived.put_nowait((value, seconds))
