"""What a run shows and hears while it goes: means, a progress bar, signals."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from voxclone.train import ranks

SECONDS = "audio/seconds"
"""A figure of this name is the seconds of audio of a step; it is shown as a speed."""


class RunningMean:
    """Means of figures over the steps since the last time they were taken."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Tensor]] = []
        self._since = time.monotonic()

    def add(self, row: Mapping[str, Tensor]) -> None:
        self._rows.append({name: value.detach() for name, value in row.items()})

    def take(self) -> dict[str, float]:
        """The means, over all processes; all must call it at the same step."""
        sums: dict[str, list[float]] = {}
        for row in self._rows:
            for name, value in row.items():
                sums.setdefault(name, []).append(float(value))
        elapsed = max(1e-9, time.monotonic() - self._since)
        means = {name: sum(values) / len(values) for name, values in sums.items()}
        means = dict(zip(means, ranks.means_of([*means.values()]), strict=True))
        if SECONDS in means:
            means["speed/audio_per_second"] = means.pop(SECONDS) * len(self._rows) / elapsed
        means["speed/steps_per_second"] = len(self._rows) / elapsed
        self._rows, self._since = [], time.monotonic()
        return means


@contextmanager
def signals() -> Iterator[Callable[[], bool]]:
    """Within, SIGINT and SIGTERM are noted; what it gives tells whether one came. A second one
    stops at once, except beside other processes: there a launcher repeats what a terminal sent."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received and ranks.size() == 1:
            raise KeyboardInterrupt
        received.append(number)

    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, receive) for kind in kinds}
    try:
        yield lambda: bool(received)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def progress_bar(console: Console) -> Progress:
    """Step, time left, figures of the last steps, and those of the last validation (`health`)."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        TextColumn("[dim]{task.fields[health]}[/dim]"),
        console=console,
        disable=not console.is_terminal or console.quiet,
    )


def short(values: Mapping[str, float]) -> str:
    """Figures in a line."""
    return " ".join(f"{name.split('/')[-1]} {value:.3g}" for name, value in values.items())
