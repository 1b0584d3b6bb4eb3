"""One line of progress with the time left, for all stages; and the log of a run.

A terminal shows it in place. Elsewhere a line is printed once a minute at most.
"""

import io
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from voxclone.errors import printable
from voxclone.recover.plan import duration

EVERY = 60.0
"""Seconds between two lines where there is no terminal."""
FIRST = 5.0
"""Seconds of a stage after which its own speed is believed more than the plan."""
MOST = 0.95
"""The share that is shown at most where only the time is known."""

ItemT = TypeVar("ItemT")


class RunProgress:
    """The progress of the `stages` of a run with the seconds that the plan has for them (None where
    it has none); every line goes to the console and to the file `log`."""

    def __init__(
        self,
        console: Console,
        log: Path,
        seconds: Mapping[str, float | None],
        stages: Sequence[str],
    ) -> None:
        self._console, self._path, self._seconds = console, log, dict(seconds)
        self._stages = list(stages)
        self._stage, self._begun, self._first, self._shown = "", 0.0, 0.0, 0.0
        live = console.is_terminal and not console.quiet
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[words]}", markup=False),
            console=console,
            transient=True,
            disable=not live,
        )
        self._task = self._bar.add_task("", total=1.0, words="")
        self._live = live

    def __enter__(self) -> Self:
        self._log: IO[str] = self._path.open("a", encoding="utf-8")
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._log.close()

    def say(self, line: str) -> None:
        """Print a line above the progress, and log it with the time."""
        text = printable(line)
        self._console.print(text)
        self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self._log.flush()

    def start(self, stage: str) -> None:
        """Begin a stage."""
        self._stage, self._begun, self._first = stage, time.monotonic(), 0.0
        self._shown = self._begun
        self.show(0.0)

    def show(self, share: float, words: str = "", *, by_plan: bool = False) -> None:
        """The share of the stage that is done; `by_plan` if the time alone gives it."""
        now = time.monotonic()
        if not self._first and share and not by_plan:
            self._first, self._begun = share, now  # what an earlier call has done took no time now
        seconds = self.left(share, by_plan)
        left = "" if seconds is None else f"{duration(seconds)} left"
        number = self._stages.index(self._stage) + 1
        title = f"{self._stage} ({number} of {len(self._stages)})"
        line = ", ".join(part for part in (words, left) if part)
        self._bar.update(self._task, description=title, completed=share, words=line)
        if not self._live and now - self._shown >= EVERY:
            self._shown = now
            self.say(f"{title}: {100 * share:.0f} %, {line}")

    def left(self, share: float, by_plan: bool = False) -> float | None:
        """Seconds left of all stages: of this one by its own speed, of later ones by the plan. None
        where the plan does not know them."""
        elapsed, done = time.monotonic() - self._begun, share - self._first
        planned = self._seconds.get(self._stage)
        own = None if planned is None else planned * (1 - share)
        if elapsed > FIRST and done > 0 and not by_plan:
            own = elapsed / done * (1 - share)
        later = self._stages[self._stages.index(self._stage) + 1 :]
        parts = [own, *(self._seconds.get(stage) for stage in later)]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    def track(self, items: Iterable[ItemT], label: str, /) -> Iterator[ItemT]:
        """As `evaluate.progress.Track`: passes items on under a label."""
        listed = list(items)
        for number, item in enumerate(listed):
            planned = self._seconds.get(self._stage)
            share = min(MOST, (time.monotonic() - self._begun) / planned) if planned else 0.0
            self.show(share, f"{label} {number + 1} of {len(listed)}", by_plan=True)
            yield item

    def console(self) -> Console:
        """A console, not of a terminal, whose lines go here."""
        return Console(
            file=cast(IO[str], _Lines(self)), width=400, force_terminal=False, highlight=False
        )


class _Lines(io.TextIOBase):
    """A text file whose lines go to the console and the log."""

    def __init__(self, progress: RunProgress) -> None:
        self._progress, self._begun = progress, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                self._progress.say(f"  {line.rstrip()}")
        return len(text)
