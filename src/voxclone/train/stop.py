"""How a training hears that it must stop: signals, between steps and within a long one."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_received: list[int] = []


class Interrupted(Exception):
    """A signal came within a step of which nothing was done yet; `run.fit` catches it."""


def called() -> bool:
    """Whether a signal has come since `listening` began."""
    return bool(_received)


@contextmanager
def listening(*, alone: bool) -> Iterator[None]:
    """Within, SIGINT and SIGTERM are noted. A second one stops at once, but only where a process is
    `alone`: beside others, a launcher repeats what a terminal sent."""

    def receive(number: int, frame: FrameType | None) -> None:
        if _received and alone:
            raise KeyboardInterrupt
        _received.append(number)

    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, receive) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
        _received.clear()
