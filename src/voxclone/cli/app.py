"""The command line. Everything heavy is imported inside the commands, so that `--help` is quick."""

import sys
from typing import Annotated

import typer

from voxclone.cli.data import data_app
from voxclone.cli.enroll import enroll
from voxclone.cli.evaluate import diagnose, evaluate_app
from voxclone.cli.export import export, verify
from voxclone.cli.inject import inject
from voxclone.cli.refine import refine
from voxclone.cli.speak import clone, speak
from voxclone.cli.train import mini_app, train_app
from voxclone.cli.voices import voices_app
from voxclone.errors import EXIT_USER, VoxcloneError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Voice cloning for Voxtral TTS: recover the encoder, make voices, speak.",
)
app.add_typer(train_app, name="train")
app.add_typer(mini_app, name="mini")
app.add_typer(voices_app, name="voices")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(data_app, name="data")


def main() -> None:
    """Entry point: errors that a user can mend are one sentence and an exit code."""
    try:
        app()
    except VoxcloneError as error:
        print(f"voxclone: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, which is not imported for it
            raise
        print(
            "voxclone: the device has too little memory: use another one, for example with "
            f"`--device cpu`. ({str(error).splitlines()[0]})",
            file=sys.stderr,
        )
        sys.exit(EXIT_USER)
    except KeyboardInterrupt:
        print("voxclone: interrupted.", file=sys.stderr)
        sys.exit(EXIT_USER)


app.command()(clone)
app.command()(enroll)
app.command()(refine)
app.command()(speak)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="Directory, Hub id, or mini.")] = "mini",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what is in a release: sizes, parts, voices, and whether the encoder is there."""
    import dataclasses
    import json

    from voxclone.release.inspection import describe, inspect_release
    from voxclone.release.release import Release

    found = inspect_release(Release.open(model))
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        print(describe(found))
    if found.problems:
        raise typer.Exit(EXIT_USER)


app.command()(diagnose)
app.command()(export)
app.command()(verify)
app.command()(inject)
