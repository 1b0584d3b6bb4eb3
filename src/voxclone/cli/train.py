"""The command that trains what a release lacks. What is heavy is imported inside."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from voxclone.cli.common import Device, Model, Quiet, open_console
from voxclone.errors import UsageError

train_app = typer.Typer(no_args_is_help=True, help="Train what a release lacks.")


@train_app.command("encoder")
def train_encoder(
    config: Annotated[Path, typer.Argument(help="For example configs/encoder/mini.yaml.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the run.")],
    model: Model = "mini",
    speech: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Manifest of the speech to train on."),
    ] = None,
    init: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="First weights: an encoder file, `release` for the release's own encoder, or "
            "`fresh`. Needed where the release has an encoder."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in the folder.")
    ] = False,
    changed: Annotated[
        bool, typer.Option("--changed", help="With --resume: allow values other than before.")
    ] = False,
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="Override a value of the config, such as run.steps=100."),
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Recover the withheld encoder of a release. On many GPUs: `torchrun --nproc-per-node 8 -m
    voxclone train encoder ...`; the batches of the config are those of all together."""
    from voxclone.config import load_settings
    from voxclone.train import encoder
    from voxclone.train.encoder_config import EncoderConfig
    from voxclone.train.material import Inputs

    if changed and not resume:
        raise UsageError("--changed belongs to --resume.")
    values = load_settings(EncoderConfig, config, overrides or [])
    inputs = Inputs(model, speech, init, device)
    code = encoder.main(values, inputs, out, open_console(quiet), resume=resume, changed=changed)
    raise typer.Exit(code)
