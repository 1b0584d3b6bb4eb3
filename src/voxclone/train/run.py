"""The loop that every training shares: state, steps, checkpoints, signals, resume.

A `Task` owns what is trained and says what a step and a validation are; this module owns time. All
randomness of a step comes from `corpus.step_generator(seed, step)`, so a run that was interrupted
and resumed ends with the weights of one that was not (bit for bit on a CPU). Several processes
(`ranks`) go through it together: they stop, skip and go on as one, and the first of them writes.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import Field
from rich.console import Console
from torch import Tensor, nn

from voxclone.config import Settings
from voxclone.train import ranks
from voxclone.train.log import Log
from voxclone.train.saving import rescue, save, start
from voxclone.train.state import TrainState
from voxclone.train.stop import Interrupted, called, listening
from voxclone.train.undo import undoing
from voxclone.train.watch import SKIPPED, RunningMean, progress_bar, short

EXIT_INTERRUPTED = 5
CHECKPOINTS = "checkpoints"
"""The folder of checkpoints in that of a run."""
VALIDATED = "validated"
"""Among the values of a state: the last step that was validated."""
GRADIENT = "other/grad_norm"
"""The figure of a step that is not finite where the step was skipped."""


class RunSettings(Settings):
    """When a run stops, saves, validates and speaks.

    `accumulate` does a step's batch in so many parts, one after another, where memory does not hold
    it. Means over items and over the frames of pairs stay what they are; what divides by the
    statistics of a batch (`stft`, `l1`, `low`, `feature`, the priors, `told`, a Whisper's `distil`,
    the balancer) takes a part's, and judges and bridge, which step with the last part, are met by
    the others as they were before the step. `ema` is the decay of a mean of the encoder's weights,
    which is then what is validated and written (0: none).
    """

    steps: int
    seed: int = 0
    save_every: int = Field(500, ge=1)
    validate_every: int = Field(500, ge=1)
    log_every: int = Field(20, ge=1)
    max_minutes: float | None = None
    device: str = "auto"
    autocast: bool = True
    accumulate: int = Field(1, ge=1)
    ema: float = Field(0.0, ge=0, lt=1)
    most_skipped: int = Field(20, ge=1)
    """So many skipped steps in a row (losses or gradients that are not finite) end the run."""
    stop_when_sick: bool = True
    """Whether an encoder that has collapsed or saturated (`health`) ends the run."""
    sick_from: int = 1000
    """The step from which that is asked: before it, every encoder is."""


class OptimiserSettings(Settings):
    """AdamW with linear warm-up and cosine decay to `final_share` of the rate. With `muon` the
    matrices of transformer layers are stepped by Muon (Jordan et al. 2024, its steps brought to the
    size of AdamW's as in arXiv 2502.16982), all else by AdamW."""

    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    warmup_steps: int = 200
    final_share: float = 0.05
    clip: float = 1.0
    muon: bool = False


class Task(Protocol):
    """What a training is: see `fit`."""

    state: TrainState

    def train_step(self, step: int) -> dict[str, Tensor]:
        """Do one step and return its figures (tensors, read only when they are logged; but
        `other/grad_norm` at once). May raise Interrupted (`ranks.heed`), in all processes, before
        it has changed the state."""

    def validate(self, step: int, log: Log) -> dict[str, float]:
        """Figures on held-out material; may log audio."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `reason` is `done`, `time`, `interrupted`, `sick` or `broken`; the last two
    have a `sentence`."""

    step: int
    reason: str
    figures: dict[str, float]
    sentence: str | None = None


def adamw(parameters: Iterator[nn.Parameter], settings: OptimiserSettings) -> torch.optim.AdamW:
    """AdamW as the settings say."""
    return torch.optim.AdamW(
        parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
    )


def learners_of(module: nn.Module, settings: OptimiserSettings) -> dict[str, torch.optim.Optimizer]:
    """What trains a module: `adamw`, and beside it `muon` if the settings say so."""
    if not settings.muon:
        return {"adamw": adamw(module.parameters(), settings)}
    named = dict(module.named_parameters())
    matrices = [n for n, p in named.items() if p.ndim == 2 and ".layers." in f".{n}"]
    others = (parameter for name, parameter in named.items() if name not in set(matrices))
    muon = torch.optim.Muon(
        [(name, named[name]) for name in matrices],
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return {"adamw": adamw(others, settings), "muon": muon}


def learning_rate(settings: OptimiserSettings, step: int, steps: int) -> float:
    """The rate of a step: linear warm-up, then cosine to `final_share` at the last step."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return settings.lr * (settings.final_share + (1 - settings.final_share) * cosine)


def apply_gradients(
    optimisers: Sequence[torch.optim.Optimizer],
    settings: OptimiserSettings,
    step: int,
    steps: int,
    *,
    loss: Tensor | None = None,
) -> Tensor:
    """Average over processes, clip, set the rate, step and clear. Returns the norm before clipping;
    a norm or a `loss` that is not finite skips the step, in all processes alike (then what is
    returned is not finite either)."""
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    loss = ranks.average_gradients(parameters, loss)
    norm = nn.utils.clip_grad_norm_(parameters, settings.clip)
    if loss is not None:
        norm = norm + 0.0 * loss.detach().to(norm)
    if torch.isfinite(norm):
        for group in groups:
            group["lr"] = learning_rate(settings, step, steps)
        for optimiser in optimisers:
            optimiser.step()
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    return norm


def fit(
    task: Task,
    settings: RunSettings,
    folder: Path,
    *,
    resume: bool,
    config: dict[str, Any],
    console: Console,
    changed: bool = False,
    keep: Callable[[int, dict[str, float]], None] | None = None,
    sickness: Callable[[int, dict[str, float]], str | None] | None = None,
) -> Outcome:
    """Train until `steps`, the time limit or a signal; save, validate and log on the way.

    With `resume` the newest valid checkpoint in `folder` is gone on from (none is no error), which
    must be of the same `config` unless it is said to be `changed`; without it the folder must hold
    no checkpoint. A signal saves and stops after the current step, or within it if the task heeds
    it. An error goes on to the caller, after the steps before it have been saved. `keep` is called
    with the figures of every validation; `sickness` may say of them why the run must stop.
    """
    state = task.state
    checkpoints = folder / CHECKPOINTS
    start(state, checkpoints, resume=resume, changed=changed, config=config, console=console)
    begun = time.monotonic()
    figures: dict[str, float] = {}
    shown: dict[str, float] = {}
    reason, sentence = "done", None
    saved = state.step if state.step else None
    mean = RunningMean()
    with (
        closing(Log(folder if ranks.is_first() else None)) as log,
        listening(alone=ranks.size() == 1),
        progress_bar(console) as progress,
        undoing(state) as undo,
    ):
        bar = progress.add_task(folder.name, total=settings.steps, completed=state.step, figures={})

        def judged() -> str | None:
            """Validate, if it is time to and was not done: why the run must stop, if it must."""
            nonlocal figures, shown
            if state.step % settings.validate_every and state.step != settings.steps:
                return None
            if state.values.get(VALIDATED, 0) == state.step:
                return None
            figures = ranks.tell(task.validate(state.step, log))
            log.scalars(state.step, figures)
            console.print(f"step {state.step}: {short(figures)}")
            shown = shown | figures
            if keep is not None:
                keep(state.step, figures)
            state.values[VALIDATED] = state.step
            return None if sickness is None else sickness(state.step, figures)

        try:
            sentence = judged()  # of the step that is gone on from: an error may have prevented it
            reason = "done" if sentence is None else "sick"
            while reason == "done" and state.step < settings.steps:
                with undo.step():
                    row = task.train_step(state.step)
                mean.add(row)
                state.step += 1
                broken = _skipped_too_often(state, row, settings.most_skipped)
                if state.step % settings.log_every == 0:
                    values = mean.take() | {SKIPPED: float(state.values.get("skipped", 0))}
                    log.scalars(state.step, values)
                    shown = shown | values  # another: a thread is looking at the one that was shown
                progress.update(bar, completed=state.step, figures=shown)
                sentence = judged()
                reason = "done" if sentence is None else "sick"
                limit = settings.max_minutes
                late = limit is not None and time.monotonic() - begun > limit * 60
                stopped, late = ranks.any_of(called(), late)
                if broken is not None:
                    reason, sentence = "broken", broken
                elif stopped:
                    reason, sentence = "interrupted", None
                elif late and reason == "done":
                    reason = "time"
                if reason != "done" or state.step % settings.save_every == 0:
                    save(state, checkpoints, config)
                    saved = state.step
        except Interrupted:
            reason = "interrupted"
        except Exception:
            if undo.sane and state.step:
                rescue(state, checkpoints, config, console, saved=saved == state.step)
            raise
        if saved != state.step:
            save(state, checkpoints, config)
    return Outcome(state.step, reason, figures, sentence)


def _skipped_too_often(state: TrainState, row: Mapping[str, Tensor], most: int) -> str | None:
    """Count steps that were skipped; the sentence that ends a run after `most` in a row."""
    norm = row.get(GRADIENT)
    if norm is None or bool(torch.isfinite(norm)):
        state.values.pop("skipped_in_a_row", None)
        return None
    state.values["skipped"] = state.values.get("skipped", 0) + 1
    in_a_row = state.values.get("skipped_in_a_row", 0) + 1
    state.values["skipped_in_a_row"] = in_a_row
    if in_a_row < most:
        return None
    state.values.pop("skipped_in_a_row")  # who goes on begins to count anew
    return (
        f"{in_a_row} steps in a row, up to step {state.step}, had losses or gradients that are not "
        "finite and were skipped, so the weights are those of before: try `--set optimiser.lr=...` "
        "at a third, or `run.autocast=false`; `run.most_skipped` allows more."
    )
