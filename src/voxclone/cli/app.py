"""The command line. Everything heavy is imported inside the commands, so that `--help` is quick."""

import sys

import typer

from voxclone.cli.clone import clone
from voxclone.cli.data import data_app
from voxclone.cli.diagnose import diagnose
from voxclone.cli.enroll import enroll
from voxclone.cli.evaluate import evaluate_app
from voxclone.cli.export import export
from voxclone.cli.inject import inject
from voxclone.cli.inspect import inspect
from voxclone.cli.refine import refine
from voxclone.cli.speak import speak
from voxclone.cli.train import train_app
from voxclone.cli.verify import verify
from voxclone.cli.voices import voices_app
from voxclone.errors import EXIT_USER, VoxcloneError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Voice cloning for Voxtral TTS: recover the encoder, make voices, speak.",
)
# As a user meets them, then who owns weights, then who makes encoders.
app.command()(clone)
app.command()(enroll)
app.command()(speak)
app.add_typer(voices_app, name="voices")
app.command()(export)
app.command()(verify)
app.command()(inspect)
app.command()(refine)
app.add_typer(data_app, name="data")
app.add_typer(train_app, name="train")
app.command()(diagnose)
app.add_typer(evaluate_app, name="evaluate")
app.command()(inject)


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
