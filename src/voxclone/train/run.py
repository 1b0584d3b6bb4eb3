"""The loop that every training shares: state, steps, checkpoints, signals, resume.

A `Task` owns what is trained and says what a step and a validation are; this module owns time. All
randomness of a step comes from `corpus.step_generator(seed, step)`, so a run that was interrupted
and resumed ends with the weights of one that was not (bit for bit on a CPU).
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from voxclone.errors import ConfigError
from voxclone.settings import Settings
from voxclone.train import checkpoint
from voxclone.train.log import Log

EXIT_INTERRUPTED = 5


class RunSettings(Settings):
    """When a run stops, saves, validates and speaks."""

    steps: int
    seed: int = 0
    save_every: int = 500
    validate_every: int = 500
    log_every: int = 20
    max_minutes: float | None = None
    device: str = "auto"
    autocast: bool = True


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


@dataclass
class TrainState:
    """Everything that a checkpoint holds: modules and optimisers by name, and the step."""

    modules: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    step: int = 0
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def learners(self) -> list[torch.optim.Optimizer]:
        """The optimisers that `learners_of` made, without those of judges."""
        return [self.optimisers[name] for name in ("adamw", "muon") if name in self.optimisers]

    def tensors(self) -> dict[str, Tensor]:
        """All tensors under flat names: `module.NAME.key`, `optimiser.NAME.index.key`."""
        result = {}
        for name, module in self.modules.items():
            for key, tensor in module.state_dict().items():
                result[f"module.{name}.{key}"] = tensor
        for name, optimiser in self.optimisers.items():
            for index, entry in optimiser.state_dict()["state"].items():
                for key, value in entry.items():
                    result[f"optimiser.{name}.{index}.{key}"] = torch.as_tensor(value)
        return result

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave. Raises ConfigError if the names or shapes do not fit."""
        for name, module in self.modules.items():
            prefix = f"module.{name}."
            part = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            try:
                module.load_state_dict(part)
            except RuntimeError as error:
                first = str(error).splitlines()[-1].strip()
                raise ConfigError(f"The checkpoint is of another configuration: {first}") from None
        for name, optimiser in self.optimisers.items():
            prefix = f"optimiser.{name}."
            entries: dict[int, dict[str, Tensor]] = {}
            for full, value in tensors.items():
                if full.startswith(prefix):
                    index, key = full[len(prefix) :].split(".", 1)
                    entries.setdefault(int(index), {})[key] = value
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": entries, "param_groups": groups})


class Task(Protocol):
    """What a training is: see `fit`."""

    state: TrainState

    def train_step(self, step: int) -> dict[str, Tensor]:
        """Do one step and return its figures (tensors, read only when they are logged)."""

    def validate(self, step: int, log: Log) -> dict[str, float]:
        """Figures on held-out material; may log audio."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `reason` is `done`, `time` or `interrupted`."""

    step: int
    reason: str
    figures: dict[str, float]


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU. Raises ConfigError for what is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"The device {name!r} was asked for, but this machine has no CUDA GPU.")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{name!r} is not a device: use cpu, cuda or auto.") from None


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
) -> Tensor:
    """Clip, set the rate, step and clear. Returns the norm before clipping; a norm that is not
    finite skips the step."""
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, settings.clip)
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
) -> Outcome:
    """Train until `steps`, the time limit or a signal; save, validate and log on the way.

    With `resume` the newest valid checkpoint in `folder` is gone on from (none is no error);
    without it the folder must hold no checkpoint. A signal saves and stops after the current step.
    """
    state = task.state
    checkpoints = folder / "checkpoints"
    _start(state, checkpoints, resume=resume, config=config, console=console)
    log = Log(folder)
    begun = time.monotonic()
    figures: dict[str, float] = {}
    reason = "done"
    mean = _RunningMean()
    with _signals() as interrupted, _progress(console) as progress:
        bar = progress.add_task(folder.name, total=settings.steps, completed=state.step, figures="")
        while state.step < settings.steps:
            mean.add(task.train_step(state.step))
            state.step += 1
            if state.step % settings.log_every == 0:
                values = mean.take()
                log.scalars(state.step, values)
                progress.update(bar, figures=_short(values))
            progress.update(bar, completed=state.step)
            if state.step % settings.validate_every == 0 or state.step == settings.steps:
                figures = task.validate(state.step, log)
                log.scalars(state.step, figures)
                console.print(f"step {state.step}: {_short(figures)}")
            limit = settings.max_minutes
            if interrupted():
                reason = "interrupted"
            elif limit is not None and time.monotonic() - begun > limit * 60:
                reason = "time"
            if reason != "done" or state.step % settings.save_every == 0:
                _save(state, checkpoints, config)
            if reason != "done":
                break
    if reason == "done":
        _save(state, checkpoints, config)
    log.close()
    return Outcome(state.step, reason, figures)


def _start(
    state: TrainState, folder: Path, *, resume: bool, config: dict[str, Any], console: Console
) -> None:
    if not resume:
        if list(folder.glob("step-*")):
            raise ConfigError(
                f"{folder} already holds checkpoints: go on with `--resume auto`, or name another "
                "folder with `--out`."
            )
        return
    found, complaints = checkpoint.load_latest(folder)
    for complaint in complaints:
        console.print(f"[yellow]{complaint} Passed over.[/yellow]")
    if found is None:
        return
    if found.values["config"] != config:
        changed = [key for key in config if found.values["config"].get(key) != config[key]]
        console.print(f"[yellow]The config differs from the checkpoint's in: {changed}.[/yellow]")
    state.load_tensors(found.tensors)
    state.step = found.step
    state.values = found.values["state"]
    console.print(f"Going on from step {found.step}.")


def _save(state: TrainState, folder: Path, config: dict[str, Any]) -> None:
    values = {"config": config, "state": state.values}
    checkpoint.save(folder, checkpoint.Checkpoint(state.step, state.tensors(), values))


class _RunningMean:
    """Means of figures over the steps since the last time they were taken."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Tensor]] = []
        self._since = time.monotonic()

    def add(self, row: dict[str, Tensor]) -> None:
        self._rows.append({name: value.detach() for name, value in row.items()})

    def take(self) -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        for row in self._rows:
            for name, value in row.items():
                sums.setdefault(name, []).append(float(value))
        now = time.monotonic()
        means = {name: sum(values) / len(values) for name, values in sums.items()}
        means["speed/steps_per_second"] = len(self._rows) / max(1e-9, now - self._since)
        self._rows, self._since = [], now
        return means


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt  # asked twice: stop at once
        received.append(number)

    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, receive) for kind in kinds}
    try:
        yield lambda: bool(received)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        disable=not console.is_terminal,
    )


def _short(values: dict[str, float]) -> str:
    return " ".join(f"{name.split('/')[-1]} {value:.3g}" for name, value in values.items())
