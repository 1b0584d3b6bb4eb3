"""What a run writes down and shows: JSON lines always, TensorBoard beside them where it is
installed, means over steps, and a progress bar.

Shapes: S samples, N codes, M mel bands, T frames.
"""

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
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

from voxclone.audio.spectrum import mel_spectrogram
from voxclone.errors import TrainingError, os_errors
from voxclone.spec import SAMPLING_RATE
from voxclone.train import distributed

N_FFT, HOP, BANDS = 1024, 240, 128
DARKEST, BRIGHTEST = -2.0, 2.0
"""Log10 of mel magnitudes. They do not depend on the clip, so that a recording and what became of
it can be compared by eye."""
MOST_BINS = 256

SECONDS = "audio/seconds"
"""The metric of this name is the seconds of audio of a step; it is shown as a speed."""
AUDIO_SPEED, STEP_SPEED = "speed/audio_per_second", "speed/steps_per_second"
SKIPPED = "other/skipped"
FIRST = ("loss/total", SKIPPED, "real/extreme", "real/largest_share", "real/codes_in_use")
"""The metrics that a line must have room for before all others: whether it learns, and whether
an encoder has collapsed."""


class Log:
    """Scalars, audio and histograms of one run, in `folder`; without a folder, nothing is
    written. All raise TrainingError if that cannot be done."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._board: Any = None
        self._lines: TextIO | None = None
        if folder is None:
            return
        with self._written():
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = (folder / "log.jsonl").open("a", encoding="utf-8")
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self._board = SummaryWriter(str(folder / "tensorboard"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Named metrics of a step; the part of a name before `/` is its group. JSON has no word for
        what is not finite (the losses of a step that was skipped): there it is null."""
        if self._lines is None:
            return
        row: dict[str, float | None] = {"step": step, "time": round(time.time(), 1)}
        for name, value in values.items():
            row[name] = float(f"{value:.6g}") if math.isfinite(value) else None
        with self._written():
            self._lines.write(json.dumps(row, allow_nan=False) + "\n")
            self._lines.flush()
            if self._board is not None:
                for name, value in values.items():
                    self._board.add_scalar(name, value, step)
                self._board.flush()

    def audio(self, step: int, name: str, wave_S: Tensor) -> None:
        """A waveform, and its spectrogram as NAME_mel, for TensorBoard alone."""
        if self._board is None:
            return
        wave_S = wave_S.detach().float().cpu()
        with self._written():
            self._board.add_audio(name, wave_S.clamp(-1, 1)[None], step, SAMPLING_RATE)
            self._board.add_image(f"{name}_mel", spectrogram(wave_S), step, dataformats="HW")

    def codes(self, step: int, name: str, code_N: Tensor, count: int) -> None:
        """How often each of the codes 0 to `count` - 1 occurs, for TensorBoard alone. Where they
        are many, a bar is as many of them as its neighbors are."""
        if self._board is None:
            return
        width = -(-count // MOST_BINS)
        edges = np.arange(0, count + width, width) - 0.5
        with self._written():
            self._board.add_histogram(name, code_N.detach().cpu().long().numpy(), step, bins=edges)

    def close(self) -> None:
        with self._written():
            if self._lines is not None:
                self._lines.close()
            if self._board is not None:
                self._board.close()

    def _written(self) -> AbstractContextManager[None]:
        return os_errors(
            f"The log of the training cannot be written to {self._folder}", TrainingError
        )


@contextmanager
def open_log(folder: Path | None) -> Iterator[Log]:
    """A log that is closed at the end; an error in closing it hides no other one. What fails in the
    thread of TensorBoard is raised by the next call, and not printed besides."""
    log, printed = Log(folder), threading.excepthook

    def hook(error: threading.ExceptHookArgs) -> None:
        if not isinstance(error.exc_value, OSError):
            printed(error)

    threading.excepthook = hook
    try:
        yield log
    except BaseException:
        with suppress(TrainingError):
            log.close()
        raise
    else:
        log.close()
    finally:
        threading.excepthook = printed


def spectrogram(wave_S: Tensor) -> np.ndarray:
    """Gray [M, T] (uint8), the highest band first, 10 ms a column at 24 kHz."""
    mel_MT = mel_spectrogram(wave_S[None], N_FFT, HOP, BANDS)[0].clamp(min=1e-5).log10()
    share_MT = ((mel_MT - DARKEST) / (BRIGHTEST - DARKEST)).nan_to_num().clamp(0, 1)
    gray_MT: np.ndarray = (255 * share_MT).round().to(torch.uint8).flip(0).numpy()
    return gray_MT


class RunningMean:
    """Means of metrics over the steps since the last time they were taken."""

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
        shared = torch.tensor([*means.values()], dtype=torch.float64)
        means = dict(zip(means, distributed.mean(shared).tolist(), strict=True))
        if SECONDS in means:
            means[AUDIO_SPEED] = means.pop(SECONDS) * len(self._rows) / elapsed
        means[STEP_SPEED] = len(self._rows) / elapsed
        self._rows, self._since = [], time.monotonic()
        return means


def progress_bar(console: Console) -> Progress:
    """Step, time left and speed, whatever the width; then as many metrics as there is room for.
    A task has them in its field `metrics`, by name: those of the last steps and of the last
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
        _Metrics(table_column=Column(no_wrap=False)),
        console=console,
        disable=not console.is_terminal or console.quiet,
    )


class _Speed(ProgressColumn):
    """Seconds of audio in a second, or where a training tells of none, steps."""

    def render(self, task: ProgressTask) -> Text:
        metrics = task.fields["metrics"]
        if AUDIO_SPEED in metrics:
            return Text(f"audio {metrics[AUDIO_SPEED]:.1f} s/s")
        return Text(f"{metrics[STEP_SPEED]:.3g} steps/s" if metrics else "")


class _Metrics(ProgressColumn):
    def render(self, task: ProgressTask) -> "_Line":
        return _Line(by_priority(task.fields["metrics"]))


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


def by_priority(values: Mapping[str, float]) -> list[str]:
    """Metrics as words, those first that say most; speeds are none of them."""
    first = [name for name in FIRST if name in values]
    if not values.get(SKIPPED):
        first = [name for name in first if name != SKIPPED]
    others = [name for name in values if name not in FIRST and not name.startswith("speed/")]
    return [short({name: values[name]}) for name in first + others]


def short(values: Mapping[str, float]) -> str:
    """Metrics in a line."""
    return " ".join(f"{name.split('/')[-1]} {value:.3g}" for name, value in values.items())
