"""How a caller shows the progress of measurements."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

ItemT = TypeVar("ItemT")


class Track(Protocol):
    """Passes items on and shows the progress under a label."""

    def __call__(self, items: Iterable[ItemT], label: str, /) -> Iterable[ItemT]: ...


def untracked(items: Iterable[ItemT], label: str, /) -> Iterable[ItemT]:
    """Passes items on and shows nothing."""
    return items
