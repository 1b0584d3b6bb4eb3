"""`voxclone train`: train what a release lacks."""

from pathlib import Path
from typing import Annotated

import typer

from voxclone.cli.common import Device, Encoder, Model, Overrides, Quiet, open_console
from voxclone.errors import UsageError
from voxclone.outputs import check_folder

train_app = typer.Typer(no_args_is_help=True, help="Train what a release lacks.")


@train_app.command("encoder")
def train_encoder(
    config: Annotated[
        Path, typer.Argument(help="Recipe: a YAML file, or a packaged one: voxtral_4b, mini.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the run.")],
    speech: Annotated[
        Path | None, typer.Option(help="Manifest (JSON lines) of the speech to train on.")
    ] = None,
    model: Model = "mini",
    init: Annotated[
        str | None,
        typer.Option(
            help="Initial weights: an encoder file, `release` for the release's own encoder, or "
            "`fresh`. Required if the release has an encoder."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest checkpoint in the folder.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --resume: accept other settings or speech.")
    ] = False,
    overrides: Overrides = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Recover the withheld encoder of a release.

    On many GPUs: `torchrun --nproc-per-node 8 -m voxclone train encoder ...`. A batch of the config
    is that of all processes together.
    """
    from voxclone.config import load_settings
    from voxclone.train import encoder
    from voxclone.train.encoder_config import EncoderConfig, find_config
    from voxclone.train.material import Inputs

    check_folder(out, [config, speech, init])
    if force and not resume:
        raise UsageError("--force goes with --resume: add that, or leave it out.")
    values = load_settings(EncoderConfig, find_config(config), overrides or [])
    inputs = Inputs(model, speech, init, device)
    code = encoder.main(values, inputs, out, open_console(quiet), resume=resume, changed=force)
    raise typer.Exit(code)


@train_app.command("adapter")
def train_adapter(
    config: Annotated[Path, typer.Argument(help="Recipe: voice, table, lora, or a YAML file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the run.")],
    speech: Annotated[
        Path | None,
        typer.Option(help="Manifest with texts and the splits train, valid and test."),
    ] = None,
    model: Model = "mini",
    encoder: Encoder = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest checkpoint in the folder.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Write an adapter that fails its gate, marked as failed; with --resume, accept "
            "other settings or speech, too.",
        ),
    ] = False,
    overrides: Overrides = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Adapt a release's language model to the codes of an encoder.

    An adapter that harms presets, or does not improve clones, is refused with exit code 3.
    """
    from voxclone.config import load_settings
    from voxclone.train.adapter import training
    from voxclone.train.adapter.config import CONFIGS, AdapterConfig
    from voxclone.train.adapter.material import Inputs
    from voxclone.train.encoder_config import find_config

    check_folder(out, [config, speech, encoder])
    values = load_settings(AdapterConfig, find_config(config, CONFIGS), overrides or [])
    inputs = Inputs(model, encoder, speech, device)
    code = training.main(values, inputs, out, open_console(quiet), resume=resume, force=force)
    raise typer.Exit(code)
