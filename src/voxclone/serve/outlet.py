"""From the thread of the model to a request that waits in the event loop."""

import asyncio
import time
from typing import Any


class GoneError(Exception):
    """Nobody waits for the result any more."""


class Outlet:
    """What a job hands out, in order: values, and an exception as the last if it fails.

    Made and read in the event loop; `put` is for the model's thread.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[tuple[Any, float]] = asyncio.Queue()
        self.closed = False
        self.unread = 0.0  # seconds of speech
        self._read_at = time.monotonic()

    def put(self, value: Any, seconds: float = 0.0) -> None:
        """Hand out a value, which is so many seconds of speech. Nobody may be there to take it."""
        try:
            self._loop.call_soon_threadsafe(self._arrive, value, seconds)
        except RuntimeError:  # the loop is closed
            self.closed = True

    async def get(self) -> Any:
        """The next value. Raises what the job raised."""
        value, seconds = await self._arrived.get()
        self.unread -= seconds
        self._read_at = time.monotonic()
        if isinstance(value, Exception):
            raise value
        return value

    def close(self) -> None:
        """Nobody reads any more: the job is given up at its next step."""
        self.closed = True

    def stalled(self) -> float:
        """Seconds for which something has been waiting to be read."""
        return 0.0 if self._arrived.empty() else time.monotonic() - self._read_at

    def check(self) -> None:
        """Raise GoneError where nobody waits any more."""
        if self.closed:
            raise GoneError

    def _arrive(self, value: Any, seconds: float) -> None:
        if self._arrived.empty():
            self._read_at = time.monotonic()
        self.unread += seconds
        self._arrived.put_nowait((value, seconds))
