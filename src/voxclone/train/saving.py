"""The state of a training goes into checkpoints and comes back.

The first of several processes writes and chooses, the others load what it has chosen; but where an
error ends the run, whoever it came to writes.
"""

from pathlib import Path
from typing import Any

from rich.console import Console

from voxclone import checkpoint
from voxclone.errors import TrainingError
from voxclone.train import ranks
from voxclone.train.resume import check_config
from voxclone.train.state import TrainState


def start(
    state: TrainState,
    folder: Path,
    *,
    resume: bool,
    changed: bool,
    config: dict[str, Any],
    console: Console,
) -> None:
    """Load what is gone on from into a fresh `state`. Raises ConfigError where `resume` and what
    lies in the folder do not go together, or a checkpoint and the config (see `run.fit`)."""
    if ranks.is_first():
        checkpoint.drop_claims(folder)
    if not resume:
        if ranks.is_first():
            checkpoint.require_none(folder, "--out")
        ranks.any_of(False)
        return
    directory, found = None, None
    if ranks.is_first():
        directory, found, complaints = checkpoint.find_latest(folder)
        for complaint in complaints:
            console.print(f"[yellow]{complaint} Passed over.[/yellow]")
        if found is not None and not changed:
            for note in check_config(found.values["config"], config, folder):
                console.print(f"[yellow]{note}[/yellow]")
    name = ranks.tell(None if directory is None else directory.name)
    if name is None:
        return
    if found is None:
        found = checkpoint.load(folder / name)
    for absent in state.load_tensors(found.tensors, changed=changed):
        console.print(f"[yellow]The checkpoint has nothing of {absent}: it begins anew.[/yellow]")
    state.step = found.step
    state.values = found.values["state"]
    console.print(f"Going on from step {found.step}.")


def save(state: TrainState, folder: Path, config: dict[str, Any]) -> None:
    """Write the state, with the config that it was made under. Raises TrainingError if that cannot
    be done."""
    if ranks.is_first():
        checkpoint.save(folder, _checkpoint(state, config))


def rescue(
    state: TrainState, folder: Path, config: dict[str, Any], console: Console, *, saved: bool
) -> None:
    """Before an error ends the run, save the state unless it is `saved`, in whichever process that
    is: all hold the same, and those that had no error may wait for this one for ever, so that
    nothing can be agreed on."""
    if not saved:
        try:
            checkpoint.save_by_one(folder, _checkpoint(state, config))
        except TrainingError as error:  # not instead of the error that ends the run
            console.print(f"[yellow]{error}[/yellow]")
            return
    console.print(
        f"[yellow]An error ends the run. Step {state.step} is saved; when it is mended, go on from "
        "there (`train encoder`: with `--resume auto`).[/yellow]"
    )


def _checkpoint(state: TrainState, config: dict[str, Any]) -> checkpoint.Checkpoint:
    values = {"config": config, "state": state.values}
    return checkpoint.Checkpoint(state.step, state.tensors(), values)
