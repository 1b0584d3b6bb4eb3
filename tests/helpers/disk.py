"""A disk that is full, and one that is slow."""

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def files_of_at_most(count: int) -> Iterator[None]:
    """No file can grow beyond so many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def slow_disk(seconds: float, begun: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Whatever is flushed to the disk takes so many seconds more; `begun` is called before."""
    flush = os.fsync

    def flush_slowly(file: int) -> None:
        begun()
        time.sleep(seconds)
        flush(file)

    os.fsync = flush_slowly  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync = flush
