"""Batches of the next steps, made in a thread while a step computes."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Batch = TypeVar("Batch")
AHEAD = 2


@dataclass
class Prefetcher(Generic[Batch]):
    """Gives the batch of a step, and has those of the next ones made, up to `steps`. `make` depends
    on its step alone, so a run gives the same results without a prefetcher."""

    make: Callable[[int], Batch]
    steps: int
    _made: dict[int, Future[Batch]] = field(default_factory=dict, init=False)
    _thread: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "batches")

    def take(self, step: int) -> Batch:
        """The batch of a step. An error of `make` for this step is raised here."""
        wanted = range(step, max(step + 1, min(step + 1 + AHEAD, self.steps)))
        for other in self._made.keys() - set(wanted):
            self._made.pop(other).cancel()
        for each in wanted:
            if each not in self._made:
                self._made[each] = self._thread.submit(self.make, each)
        return self._made.pop(step).result()
