"""The commands that train: what a release lacks, and the mini release. As in `cli`, what is heavy
is imported inside."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from voxclone.cli.common import open_console
from voxclone.errors import UsageError

mini_app = typer.Typer(no_args_is_help=True, help="Make the mini release.")
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


@mini_app.command("train")
def mini_train(
    config: Annotated[Path, typer.Argument(help="recipes/mini_release/mini.yaml")],
    speech: Annotated[Path, typer.Option(help="manifest.jsonl of the speech pack")],
    out: Annotated[Path, typer.Option(help="folder of the run")],
    stage: Annotated[Optional[str], typer.Option(help="this stage alone")] = None,  # noqa: UP045
    changed: Changed = False,
    overrides: Overrides = None,
) -> None:
    """Train recogniser, codec and language model; goes on where it stopped."""
    from recipes.mini_release import recipe, workshop

    from voxclone.config import load_settings

    settings = load_settings(workshop.MiniSettings, config, overrides or [])
    recipe.run(settings, speech, out, open_console(False), stage=stage, changed=changed)


@mini_app.command("publish")
def mini_publish(
    config: Annotated[Path, typer.Argument(help="recipes/mini_release/mini.yaml")],
    speech: Annotated[Path, typer.Option(help="manifest.jsonl of the speech pack")],
    out: Annotated[Path, typer.Option(help="folder of the finished run")],
    target: Annotated[Path, typer.Option(help="folder to write release, oracle, recogniser to")],
    overrides: Overrides = None,
) -> None:
    """Write the release and the oracle of a finished run."""
    from recipes.mini_release import publish, workshop

    from voxclone.config import load_settings

    settings = load_settings(workshop.MiniSettings, config, overrides or [])
    publish.publish(workshop.open_workshop(settings, speech, out, open_console(False)), target)


@mini_app.command("report")
def mini_report(
    speech: Annotated[Path, typer.Option(help="manifest.jsonl of the speech pack")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder for a report of each kind")],
    encoder: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="NAME=FILE of an encoder to compare with the oracle."),
    ] = None,
    assets: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder that `mini publish` wrote, if not the packaged one."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the manifest to measure on.")] = "test",
    seconds: Annotated[float, typer.Option(help="About how much speech.")] = 300,
) -> None:
    """Measure codec, presets and cloning on the test speakers, against the oracle."""
    from recipes.mini_release import report

    from voxclone.cli.report import present, progress
    from voxclone.cli.tools import load_listed, make_embedders, make_listener
    from voxclone.evaluate.wer import CharacterTranscriber
    from voxclone.mini import oracle
    from voxclone.release.release import Release

    console = open_console(False)
    track = progress(console)
    named = dict(item.split("=", 1) for item in encoder or [])
    folder = assets if assets is not None else oracle.ASSETS
    found = report.report(
        Release.open(folder / "release"),
        load_listed(speech, split, seconds, track),
        {name: Path(path) for name, path in named.items()},
        make_embedders(None)[0],
        CharacterTranscriber(oracle.recogniser(folder)),
        make_listener(True),
        assets=folder,
        track=track,
    )
    for name, figures in found.items():
        console.rule(name)
        present(figures, None, list, out / name.replace(" ", "-"), console)
