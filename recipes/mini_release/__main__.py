"""Make the mini release: `python -m recipes.mini_release train|publish|report`, from the root.

python -m recipes.mini_release train recipes/mini_release/mini.yaml --speech MANIFEST --out RUN
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from recipes.mini_release import publish as publishing
from recipes.mini_release import recipe, workshop
from recipes.mini_release import report as measure
from voxclone.cli.common import open_console
from voxclone.cli.report import present, progress
from voxclone.config import load_settings
from voxclone.errors import VoxcloneError
from voxclone.evaluate.networks import make_models
from voxclone.evaluate.speechset import open_speech
from voxclone.mini.oracle import ASSETS
from voxclone.models.ctc_asr import load_recognizer
from voxclone.models.transcribers import CharacterTranscriber
from voxclone.release.release import Release

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Make the mini release.")

Changed = Annotated[
    bool, typer.Option("--changed", help="Go on with values that the checkpoint was not made with.")
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="Override a value of the config, such as run.steps=100."),
]


@app.command("train")
def train(
    config: Annotated[Path, typer.Argument(help="recipes/mini_release/mini.yaml")],
    speech: Annotated[Path, typer.Option(help="manifest.jsonl of the speech pack")],
    out: Annotated[Path, typer.Option(help="folder of the run")],
    stage: Annotated[Optional[str], typer.Option(help="this stage alone")] = None,  # noqa: UP045
    changed: Changed = False,
    overrides: Overrides = None,
) -> None:
    """Train recogniser, codec and language model; goes on where it stopped."""
    settings = load_settings(workshop.MiniSettings, config, overrides or [])
    recipe.run(settings, speech, out, open_console(False), stage=stage, changed=changed)


@app.command("publish")
def publish(
    config: Annotated[Path, typer.Argument(help="recipes/mini_release/mini.yaml")],
    speech: Annotated[Path, typer.Option(help="manifest.jsonl of the speech pack")],
    out: Annotated[Path, typer.Option(help="folder of the finished run")],
    target: Annotated[Path, typer.Option(help="folder to write release, oracle, recogniser to")],
    overrides: Overrides = None,
) -> None:
    """Write the release and the oracle of a finished run."""
    settings = load_settings(workshop.MiniSettings, config, overrides or [])
    publishing.publish(workshop.open_workshop(settings, speech, out, open_console(False)), target)


@app.command("report")
def report(
    speech: Annotated[Path, typer.Option(help="manifest.jsonl of the speech pack")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder for a report of each kind")],
    encoder: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="NAME=FILE of an encoder to compare with the oracle."),
    ] = None,
    assets: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder that `publish` wrote, if not the packaged one."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the manifest to measure on.")] = "test",
    seconds: Annotated[float, typer.Option(help="About how much speech.")] = 300,
) -> None:
    """Measure codec, presets and cloning on the test speakers, against the oracle."""
    console = open_console(False)
    track = progress(console)
    named = dict(item.split("=", 1) for item in encoder or [])
    folder = assets if assets is not None else ASSETS
    recognizer = load_recognizer(folder / "recogniser")
    found = measure.report(
        Release.open(folder / "release"),
        open_speech(speech, split, seconds, track),
        {name: Path(path) for name, path in named.items()},
        replace(make_models(None, None, True), transcribers=[CharacterTranscriber(recognizer)]),
        assets=folder,
        track=track,
    )
    for name, figures in found.items():
        console.rule(name)
        present(figures, None, list, out / name.replace(" ", "-"), console)


if __name__ == "__main__":
    try:
        app()
    except VoxcloneError as error:
        print(f"mini_release: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
