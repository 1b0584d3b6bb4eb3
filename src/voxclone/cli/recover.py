"""`voxclone recover`: the encoder of a release, from speech to a release that clones."""

from pathlib import Path
from typing import Annotated

import typer

from voxclone.cli.common import Device, Model, Overrides, Quiet, open_console
from voxclone.errors import UsageError


def recover(
    speech: Annotated[
        Path,
        typer.Option("--speech", help="Folder with a folder for each speaker, or a manifest."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the run.")],
    model: Model = "mini",
    corpus: Annotated[
        str | None,
        typer.Option(help="libritts-r, librispeech, commonvoice or vctk, as it was unpacked."),
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="License of the speech, such as CC-BY-4.0.")
    ] = None,
    until: Annotated[
        str,
        typer.Option(
            metavar="STAGE",
            help="Last stage: prepare, validate, pairs, train, diagnose, evaluate or inject.",
        ),
    ] = "inject",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, and do nothing.")
    ] = False,
    overrides: Overrides = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Recover the encoder of a release: prepare speech, train, check, and make a release that
    clones.

    The same command continues after an interruption, and does again only what has changed. Exit
    code 3: a check failed; everything is kept.
    """
    from voxclone.recover.options import STAGES, Options
    from voxclone.recover.run import recover as run

    if until not in STAGES:
        raise UsageError(f"--until takes {', '.join(STAGES)}, not {until!r}.")
    options = Options(
        model, speech, out, corpus, license, tuple(overrides or []), until, device
    )  # fmt: skip
    raise typer.Exit(run(options, open_console(quiet), dry_run=dry_run))
