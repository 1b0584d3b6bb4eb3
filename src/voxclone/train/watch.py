"""What a run shows while it goes: means, a progress bar."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as ProgressTask
from rich.table import Column
from rich.text import Text
from torch import Tensor

from voxclone.train import ranks

SECONDS = "audio/seconds"
"""A figure of this name is the seconds of audio of a step; it is shown as a speed."""
AUDIO_SPEED, STEP_SPEED = "speed/audio_per_second", "speed/steps_per_second"
SKIPPED = "other/skipped"
WORTH = ("loss/total", SKIPPED, "real/extreme", "real/largest_share", "real/codes_in_use")
"""The figures that a line must have room for before all others: whether it learns, and the health
of an encoder."""


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
            means[AUDIO_SPEED] = means.pop(SECONDS) * len(self._rows) / elapsed
        means[STEP_SPEED] = len(self._rows) / elapsed
        self._rows, self._since = [], time.monotonic()
        return means


def progress_bar(console: Console) -> Progress:
    """Step, time left and speed, whatever the width; then as many figures as there is room for.
    A task has them in its field `figures`, by name: those of the last steps and of the last
    validation."""
    fixed = Column(no_wrap=True)
    return Progress(
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, max_width=16, overflow="ellipsis"),
        ),
        BarColumn(bar_width=10, table_column=fixed),
        MofNCompleteColumn(table_column=fixed),
        TimeRemainingColumn(table_column=fixed),
        _Speed(table_column=fixed),
        _Figures(table_column=Column(no_wrap=False)),
        console=console,
        disable=not console.is_terminal or console.quiet,
    )


class _Speed(ProgressColumn):
    """Seconds of audio in a second, or where a training tells of none, steps."""

    def render(self, task: ProgressTask) -> Text:
        figures = task.fields["figures"]
        if AUDIO_SPEED in figures:
            return Text(f"audio {figures[AUDIO_SPEED]:.1f} s/s")
        return Text(f"{figures[STEP_SPEED]:.3g} steps/s" if figures else "")


class _Figures(ProgressColumn):
    def render(self, task: ProgressTask) -> "_Line":
        return _Line(by_worth(task.fields["figures"]))


@dataclass(frozen=True)
class _Line:
    """As many words as fit into one line. A column that may wrap is what a table makes narrower
    when it lacks room, and this one does not wrap."""

    words: list[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = ""
        for word in self.words:
            longer = f"{line} {word}".strip()
            if len(longer) > options.max_width:
                break
            line = longer
        yield Text(line, no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(0, min(len(" ".join(self.words)), options.max_width))


def by_worth(values: Mapping[str, float]) -> list[str]:
    """Figures as words, those first that tell most; speeds are none of them."""
    first = [name for name in WORTH if name in values]
    if not values.get(SKIPPED):
        first = [name for name in first if name != SKIPPED]
    others = [name for name in values if name not in WORTH and not name.startswith("speed/")]
    return [short({name: values[name]}) for name in first + others]


def short(values: Mapping[str, float]) -> str:
    """Figures in a line."""
    return " ".join(f"{name.split('/')[-1]} {value:.3g}" for name, value in values.items())
