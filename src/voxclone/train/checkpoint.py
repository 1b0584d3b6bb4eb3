"""The state of a training, how it goes into checkpoints, and which of them may be gone on from.

The first of several processes writes and chooses, the others load what it has chosen; but where an
error ends the run, whoever it came to writes.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from voxclone import checkpoint
from voxclone.checkpoint import load_optimizer, optimizer_tensors
from voxclone.config import flatten
from voxclone.errors import ConfigError, TrainingError
from voxclone.train import distributed

EMA = "_ema"
"""The module `NAME_ema` is the mean of the weights of the module `NAME`."""
FREE = frozenset(
    f"run.{name}"
    for name in (
        "steps",
        "save_every",
        "validate_every",
        "max_minutes",
        "collapse_check_from",
    )
)
"""What may change from one start to the next without a word."""
SPEECH = "trained_on"
"""Beside the values of a config: which speech it was (`Subset.identity`)."""


@dataclass
class TrainState:
    """What a checkpoint holds: modules and optimizers by name, the step, and JSON values. It is
    `whole` but for the moment in which optimizers step (`updating`)."""

    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer] = field(default_factory=dict)
    step: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    whole: bool = True

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Within, optimizers step: an error there leaves a state that is of no step."""
        self.whole = False
        yield
        self.whole = True

    def tensors(self) -> dict[str, Tensor]:
        """All tensors under flat names: `module.NAME.key`, `optimizer.NAME.index.key`."""
        result = {}
        for name, module in self.modules.items():
            for key, tensor in module.state_dict().items():
                result[f"module.{name}.{key}"] = tensor
        for name, optimizer in self.optimizers.items():
            result |= optimizer_tensors(optimizer, f"optimizer.{name}.")
        return result

    def load_tensors(self, tensors: dict[str, Tensor], *, changed: bool = False) -> list[str]:
        """Put back what `tensors` gave. With `changed`, a module or an optimizer of which there is
        nothing stays as it is (a mean begins where its module is); these are returned. Raises
        ConfigError if the names or shapes do not fit."""
        absent = []
        for name, module in self.modules.items():
            prefix = f"module.{name}."
            part = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            if changed and not part and module.state_dict():
                absent.append(name)
                continue
            try:
                module.load_state_dict(part)
            except RuntimeError as error:
                first = str(error).splitlines()[-1].strip()
                raise ConfigError(f"The checkpoint is of another configuration: {first}") from None
        for name in absent:
            if name.endswith(EMA):
                own = self.modules[name.removesuffix(EMA)]
                self.modules[name].load_state_dict(own.state_dict())
        for name, optimizer in self.optimizers.items():
            prefix = f"optimizer.{name}."
            if changed and not any(full.startswith(prefix) for full in tensors):
                absent.append(f"the optimizer {name}")
                continue
            load_optimizer(optimizer, prefix, tensors)
        return absent


def restore(
    state: TrainState,
    folder: Path,
    *,
    resume: bool,
    changed: bool,
    config: dict[str, Any],
    console: Console,
) -> None:
    """Load what is gone on from into a fresh `state`. Raises ConfigError where `resume` and what
    lies in the folder do not go together, or a checkpoint and the config (see `loop.fit`)."""
    if distributed.is_rank0():
        checkpoint.drop_leftovers(folder)
    if not resume:
        if distributed.is_rank0():
            checkpoint.require_none(folder, "--out")
        distributed.any_rank(False)
        return
    directory, found = None, None
    if distributed.is_rank0():
        directory, found, complaints = checkpoint.find_latest(folder)
        for complaint in complaints:
            console.print(f"[yellow]{complaint} Passed over.[/yellow]")
        if found is not None:
            _require_known_names(found, folder)
            if not changed:
                for note in check_config(found.values["config"], config, folder):
                    console.print(f"[yellow]{note}[/yellow]")
    name = distributed.broadcast(None if directory is None else directory.name)
    if name is None:
        return
    if found is None:
        found = checkpoint.load(folder / name)
    for absent in state.load_tensors(found.tensors, changed=changed):
        console.print(f"[yellow]The checkpoint has nothing of {absent}: it begins anew.[/yellow]")
    state.step = found.step
    state.values = found.values["state"]
    console.print(f"Continuing from step {found.step}.")


def save(state: TrainState, folder: Path, config: dict[str, Any]) -> None:
    """Write the state, with the config that it was made under. Raises TrainingError if that cannot
    be done."""
    if distributed.is_rank0():
        checkpoint.save(folder, _checkpoint(state, config))


def rescue(
    state: TrainState, folder: Path, config: dict[str, Any], console: Console, *, saved: bool
) -> None:
    """Before an error ends the run, save the state unless it is `saved`, in whichever process that
    is: all hold the same, and those that had no error may wait for this one for ever, so that
    nothing can be agreed on."""
    if not saved:
        try:
            checkpoint.save(folder, _checkpoint(state, config), writer=distributed.rank())
        except TrainingError as error:  # not instead of the error that ends the run
            console.print(f"[yellow]{error}[/yellow]")
            return
    console.print(
        f"[yellow]An error ends the run. Step {state.step} is saved; when it is mended, go on from "
        "there (`train encoder`: with `--resume`).[/yellow]"
    )


def check_config(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> list[str]:
    """Raise ConfigError, naming the keys, if a checkpoint in `folder` was made under another
    config or on other speech. Returns notes: keys that only one of the two has come from another
    version of this program, and are no reason to refuse."""
    speech = _speech(before.get(SPEECH), now.get(SPEECH))
    old, new = (flatten({k: v for k, v in each.items() if k != SPEECH}) for each in (before, now))
    other = sorted(key for key in old.keys() & new.keys() if old[key] != new[key])
    other = [key for key in other if key not in FREE]
    if other:
        values = ", ".join(f"{key} ({old[key]} there, {new[key]} here)" for key in other)
        raise ConfigError(
            f"The checkpoint in {folder} was made with another config, in {values}: give these "
            "values back, name another folder with `--out`, or go on with what is changed by "
            "adding `--force`."
        )
    if speech is not None:
        raise ConfigError(
            f"The checkpoint in {folder} was trained on other speech ({speech}): give back what it "
            "was trained on, name another folder with `--out`, or go on with other draws by adding "
            "`--force`."
        )
    unshared = sorted((old.keys() ^ new.keys()) - FREE)
    notes = [f"The checkpoint's config has other keys: {', '.join(unshared)}."] if unshared else []
    if SPEECH in now and SPEECH not in before:
        notes.append("The checkpoint does not say what speech it was trained on: not compared.")
    return notes


def _checkpoint(state: TrainState, config: dict[str, Any]) -> checkpoint.Checkpoint:
    values = {"config": config, "state": state.values}
    return checkpoint.Checkpoint(state.step, state.tensors(), values)


def _require_known_names(found: checkpoint.Checkpoint, folder: Path) -> None:
    if any(name.startswith("optimiser.") for name in found.tensors):
        raise ConfigError(
            f"The checkpoint in {folder} was written by an older version, whose trainings cannot "
            "be resumed: begin a new run from its encoder (`--init FILE` and another `--out`)."
        )


def _speech(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str | None:
    """How the speech there differs from that here; None where it does not, or is not known."""
    if before is None or now is None or before == now:
        return None
    there, here = (f"{each['clips']:,} clips of {each['hours']:g} h" for each in (before, now))
    if there == here:
        return f"{there}, but not the same ones or not in the same order"
    return f"{there} there, {here} here"


def require_shared(folder: Path) -> None:
    """Make `folder`. Raises ConfigError (see `distributed.fail_together`) if not all processes see
    what the first one writes into it."""
    if distributed.world_size() == 1:
        return
    mark = folder / f".{secrets.token_hex(8)}"
    if distributed.is_rank0():
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    name = distributed.broadcast(mark.name)
    (missed,) = distributed.any_rank(not (folder / name).exists())
    if distributed.is_rank0():
        mark.unlink()
    if missed:
        distributed.fail_together(
            ConfigError(
                f"The folder {folder} is not the same one on all machines: name one on a file "
                "system that they share (`--out`)."
            )
        )
