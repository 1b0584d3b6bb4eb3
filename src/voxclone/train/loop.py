"""The loop that every training shares: steps, validations, checkpoints, signals, resume.

A `Task` owns what is trained and says what a step and a validation are; this module owns time. All
randomness of a step comes from `rng.step_generator(seed, step)`, so a run that was interrupted
and resumed ends with the weights of one that was not (bit for bit on a CPU). Several processes
(`distributed`) go through it together: they stop, skip and go on as one, and the first one writes.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import Field
from rich.console import Console
from torch import Tensor

from voxclone.config import Settings
from voxclone.errors import QualityError, TrainingError
from voxclone.train import distributed
from voxclone.train.checkpoint import TrainState, rescue, restore, save
from voxclone.train.logging import SKIPPED, Log, RunningMean, open_log, progress_bar, short
from voxclone.train.signals import Interrupted, catch_signals, stop_requested

EXIT_INTERRUPTED = 5
CHECKPOINTS = "checkpoints"
"""The folder of checkpoints in that of a run."""
VALIDATED = "validated"
"""Among the values of a state: the last step that was validated."""
GRAD_NORM = "other/grad_norm"
"""The metric of a step that is not finite where the step was skipped."""
LOG_EVERY = 20
MOST_SKIPPED = 20
"""So many skipped steps in a row end a run."""
IN_A_ROW = "skipped_in_a_row"
"""Among the values of a state: how many steps before this one were skipped."""

Metrics = dict[str, float]


class RunSettings(Settings):
    """How long a run is, when it saves and validates, and in which precision it computes:
    `autocast` takes bf16 where that is safe, on devices that multiply it (`voxclone.device`)."""

    steps: int
    seed: int = 0
    save_every: int = Field(500, ge=1)
    validate_every: int = Field(500, ge=1)
    max_minutes: float | None = None
    autocast: bool = True


class Task(Protocol):
    """What a training is: see `fit`."""

    state: TrainState

    def train_step(self, step: int) -> dict[str, Tensor]:
        """Do one step and return its metrics (tensors, read only when they are logged; but
        `other/grad_norm` at once). May raise Interrupted (`distributed.check_stop`), in all
        processes, before it has changed the state."""

    def validate(self, step: int, log: Log) -> Metrics:
        """Metrics on held-out material; may log audio."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `reason` is `done`, `time`, `interrupted`, `collapsed` or `broken`; the last
    two have a `sentence`."""

    step: int
    reason: str
    metrics: Metrics
    sentence: str | None = None


def fit(
    task: Task,
    settings: RunSettings,
    folder: Path,
    *,
    resume: bool,
    config: dict[str, Any],
    console: Console,
    changed: bool = False,
    keep: Callable[[int, Metrics], None] | None = None,
    collapse_check: Callable[[int, Metrics], str | None] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Outcome:
    """Train until `steps`, the time limit or a signal; save, validate and log on the way.

    With `resume` the newest valid checkpoint in `folder` is gone on from (none is no error), which
    must be of the same `config` unless `changed`; without it the folder must hold
    no checkpoint. A signal saves and stops after the current step, or within it if the task checks
    for it. An error goes on to the caller, after the steps before it have been saved. `keep` is
    called with the metrics of every validation; `collapse_check` may say why the run must stop.
    `on_step` is called after each step.
    """
    state, checkpoints = task.state, folder / CHECKPOINTS
    restore(state, checkpoints, resume=resume, changed=changed, config=config, console=console)
    saved = state.step if state.step else None
    with (
        open_log(folder if distributed.is_rank0() else None) as log,
        catch_signals(alone=distributed.world_size() == 1),
        progress_bar(console) as progress,
    ):
        bar = progress.add_task(folder.name, total=settings.steps, completed=state.step, metrics={})
        run = _Run(task, settings, log, console, keep, collapse_check)
        try:
            reason, sentence = run.validate_if_due()  # what an error may have prevented
            while reason is None and state.step < settings.steps:
                row = task.train_step(state.step)
                state.step += 1
                run.log_step(row)
                progress.update(bar, completed=state.step, metrics=run.shown)
                if on_step is not None:
                    on_step(state.step)
                reason, sentence = run.why_stop(row, *run.validate_if_due())
                if reason is not None or state.step % settings.save_every == 0:
                    save(state, checkpoints, config)
                    saved = state.step
        except Interrupted:
            reason, sentence = "interrupted", None
        except Exception:
            if state.whole and state.step:
                rescue(state, checkpoints, config, console, saved=saved == state.step)
            raise
        if saved != state.step:
            save(state, checkpoints, config)
    return Outcome(state.step, reason or "done", run.metrics, sentence)


@dataclass
class _Run:
    """What a run shows, and why it must stop."""

    task: Task
    settings: RunSettings
    log: Log
    console: Console
    keep: Callable[[int, Metrics], None] | None
    collapse_check: Callable[[int, Metrics], str | None] | None
    mean: RunningMean = field(default_factory=RunningMean)
    begun: float = field(default_factory=time.monotonic)
    metrics: Metrics = field(default_factory=dict)
    shown: Metrics = field(default_factory=dict)

    def validate_if_due(self) -> tuple[str | None, str | None]:
        """Validate, if it is time to and was not done: whether the run must stop, and why."""
        state, settings = self.task.state, self.settings
        if state.step % settings.validate_every and state.step != settings.steps:
            return None, None
        if state.values.get(VALIDATED, 0) == state.step:
            return None, None
        self.metrics = distributed.broadcast(self.task.validate(state.step, self.log))
        self.log.scalars(state.step, self.metrics)
        self.console.print(f"step {state.step}: {short(self.metrics)}")
        self.shown = self.shown | self.metrics
        if self.keep is not None:
            self.keep(state.step, self.metrics)
        state.values[VALIDATED] = state.step
        check = self.collapse_check
        sentence = None if check is None else check(state.step, self.metrics)
        return (None if sentence is None else "collapsed"), sentence

    def log_step(self, row: Mapping[str, Tensor]) -> None:
        """Count a step that was skipped, and log the means of the steps since if it is time to."""
        state = self.task.state
        self.mean.add(row)
        norm = row.get(GRAD_NORM)
        if norm is None or bool(torch.isfinite(norm)):
            state.values.pop(IN_A_ROW, None)
        else:
            state.values["skipped"] = state.values.get("skipped", 0) + 1
            state.values[IN_A_ROW] = state.values.get(IN_A_ROW, 0) + 1
        if state.step % LOG_EVERY == 0:
            values = self.mean.take() | {SKIPPED: float(state.values.get("skipped", 0))}
            self.log.scalars(state.step, values)
            # Another dictionary: a thread is looking at the one that was shown.
            self.shown = self.shown | values

    def why_stop(
        self, row: Mapping[str, Tensor], reason: str | None, sentence: str | None
    ) -> tuple[str | None, str | None]:
        """Why a run stops after a step, if it does: what its validation found is given."""
        state, limit = self.task.state, self.settings.max_minutes
        late = limit is not None and time.monotonic() - self.begun > limit * 60
        stopped, late = distributed.any_rank(stop_requested(), late)
        if state.values.get(IN_A_ROW, 0) >= MOST_SKIPPED:
            in_a_row = state.values.pop(IN_A_ROW)  # who goes on begins to count anew
            return "broken", (
                f"{in_a_row} steps in a row, up to step {state.step}, had losses or gradients that "
                "are not finite and were skipped, so the weights are those of before: try `--set "
                "optimizer.lr=...` at a third, or `run.autocast=false`."
            )
        if stopped:
            return "interrupted", None
        if late and reason is None:
            return "time", None
        return reason, sentence


def require_success(outcome: Outcome, out: Path) -> None:
    """Raise the error (see `distributed.fail_together`) of a run that cannot go on, or whose
    encoder has collapsed."""
    if outcome.reason == "broken":
        distributed.fail_together(TrainingError(f"The training was stopped: {outcome.sentence}"))
    if outcome.reason == "collapsed":
        distributed.fail_together(
            QualityError(
                f"The training was stopped at step {outcome.step}: {outcome.sentence}. The "
                f"checkpoint is in {out}; to go on all the same, add `--resume --set "
                "run.collapse_check_from=null`."
            )
        )
