"""A process that dies at one of its file operations."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest


class Died(BaseException):
    """As a kill: nothing may catch it."""


OPERATIONS: list[tuple[Any, str]] = [
    (os, name)
    for name in ("rename", "fsync", "open", "mkdir", "unlink", "rmdir", "scandir", "lstat")
] + [
    (Path, "write_text"), (Path, "iterdir"), (Path, "exists"), (Path, "glob"), (Path, "open"),
]  # fmt: skip


def dies_at(
    death: int,
    call: Callable[[], object],
    monkeypatch: pytest.MonkeyPatch,
    *,
    after: bool,
    operations: Sequence[tuple[Any, str]] = OPERATIONS,
) -> bool:
    """Whether a call dies, which it does before (or `after`) its file operation number `death`; it
    does not if it has fewer."""
    left = death

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left <= 0 and not after:
                raise Died
            left -= 1
            result = function(*args, **kwargs)
            if left < 0:
                raise Died
            return result

        return replaced

    with monkeypatch.context() as patched:
        for owner, name in operations:
            patched.setattr(owner, name, dying(getattr(owner, name)))
        try:
            call()
        except Died:
            return True
    return False
