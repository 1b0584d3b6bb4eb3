"""`python -m recipes.mini_release CONFIG --speech MANIFEST --whisper FOLDER --out RUN`."""

import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from recipes.mini_release.publish import publish
from recipes.mini_release.recipe import make
from recipes.mini_release.run import SPEAKERS, MiniSettings, Options, open_run
from voxclone.config import load_settings
from voxclone.errors import UsageError, VoxcloneError


def main(
    config: Annotated[Path, typer.Argument(help="recipes/mini_release/mini.yaml")],
    speech: Annotated[Path, typer.Option(help="Manifest of the speech.")],
    whisper: Annotated[Path, typer.Option(help="Folder of Whisper base (transformers' layout).")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    kokoro: Annotated[Path | None, typer.Option(help="Folder of Kokoro-82M.")] = None,
    speakers: Annotated[Path, typer.Option(help="JSON of the sets of speakers.")] = SPEAKERS,
    stage: Annotated[str | None, typer.Option(help="This stage alone.")] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(help="STAGE=FILE: a new stage starts from these weights."),
    ] = None,
    publish_to: Annotated[
        Path | None,
        typer.Option("--publish", help="Write the finished release and its parts to this folder."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that prepare batches of codes.")] = 0,
    minutes: Annotated[
        float | None,
        typer.Option(help="Save and stop after so many minutes."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Go on with values that were changed.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a value of the config, such as speech.run.steps=100."),
    ] = None,
) -> None:
    """Make the mini release, or go on where an earlier call stopped."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    options = Options(
        speech, whisper, out, speakers, kokoro, device, workers, minutes, force,
        dict(_start(each) for each in start or []),
    )  # fmt: skip
    run = open_run(load_settings(MiniSettings, config, overrides or []), options, Console())
    make(run, stage)
    if publish_to is not None:
        publish(run, publish_to)


def _start(value: str) -> tuple[str, Path]:
    stage, separator, path = value.partition("=")
    if not separator:
        raise UsageError(f"`--start {value}` is not of the form STAGE=FILE.")
    return stage, Path(path)


if __name__ == "__main__":
    try:
        typer.run(main)
    except VoxcloneError as error:
        print(f"mini_release: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
