"""A disk that is full, one that is slow, and a folder that may not be written."""

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


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
def no_permission(folder: Path) -> Iterator[None]:
    """The folder may be read, but not written. Root may write anywhere, so it becomes another
    user."""
    user = os.geteuid()
    folder.chmod(0o555)
    parents = [each for each in folder.parents if not each.stat().st_mode & 0o010]
    modes = [each.stat().st_mode for each in parents]
    if user == 0:
        for each, mode in zip(parents, modes, strict=True):
            each.chmod(mode | 0o011)
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
        for each, mode in zip(parents, modes, strict=True):
            each.chmod(mode)


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
