"""Signals that end a training after its step, or within one that checks for them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_signals: list[int] = []


class Interrupted(Exception):
    """A signal came within a step that has changed nothing yet; `loop.fit` catches it."""


@contextmanager
def catch_signals(*, alone: bool) -> Iterator[None]:
    """Within, SIGINT and SIGTERM are noted. A second one stops a process that is `alone` at once;
    beside others, a launcher repeats what a terminal sent."""

    def receive(number: int, frame: FrameType | None) -> None:
        if _signals and alone:
            raise KeyboardInterrupt
        _signals.append(number)

    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, receive) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
        _signals.clear()


def stop_requested() -> bool:
    """Whether a signal has come to this process since `catch_signals` began."""
    return bool(_signals)
