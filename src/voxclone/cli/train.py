"""The command that trains what a release lacks. What is heavy is imported inside."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from voxclone.cli.common import open_console
from voxclone.errors import UsageError

train_app = typer.Typer(no_args_is_help=True, help="Train what a release lacks.")

Changed = Annotated[
    bool, typer.Option("--changed", help="Go on with values that the checkpoint was not made with.")
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="Override a value of the config, such as run.steps=100."),
]


@train_app.command("encoder")
def train_encoder(
    config: Annotated[Path, typer.Argument(help="For example configs/encoder/mini.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    resume: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="`auto` goes on from the newest checkpoint in the folder."),
    ] = None,
    changed: Changed = False,
    start: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--from", help="Go on from an encoder: a file, or `release` for its own."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="From nothing, though the release has an encoder.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Recover the withheld encoder of a release. On many GPUs: `torchrun --nproc-per-node 8 -m
    voxclone train encoder ...`; the batches of the config are those of all together."""
    from voxclone.config import load_settings
    from voxclone.train import recovery
    from voxclone.train.encoder_settings import EncoderTraining

    if resume not in (None, "auto"):
        raise UsageError(f"--resume takes `auto`, not {resume!r}.")
    if changed and resume is None:
        raise UsageError("--changed belongs to `--resume auto`.")
    if start is not None and fresh:
        raise UsageError("--from and --fresh exclude each other.")
    settings = load_settings(EncoderTraining, config, overrides or [])
    if fresh or start is not None:
        settings = settings.model_copy(update={"start": recovery.FRESH if fresh else start})
    console = open_console(False)
    going_on = resume == "auto"
    raise typer.Exit(recovery.recover(settings, out, console, resume=going_on, changed=changed))
