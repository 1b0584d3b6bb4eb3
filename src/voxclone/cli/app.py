"""The command line: one verb a file. Everything heavy is imported inside the verbs, so that
`--help` is quick."""

import sys
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperGroup

from voxclone.cli.clone import clone
from voxclone.cli.data import data_app
from voxclone.cli.diagnose import diagnose
from voxclone.cli.enroll import enroll
from voxclone.cli.evaluate import evaluate_app
from voxclone.cli.export import export
from voxclone.cli.inject import inject
from voxclone.cli.inspect import inspect
from voxclone.cli.refine import refine
from voxclone.cli.serve import serve
from voxclone.cli.speak import speak
from voxclone.cli.train import train_app
from voxclone.cli.verify import verify
from voxclone.cli.voices import voices_app
from voxclone.errors import EXIT_USER, UsageError, VoxcloneError

COMMANDS: dict[str, dict[str, Any]] = {
    "Clone and use voices": {
        "clone": clone,
        "enroll": enroll,
        "speak": speak,
        "voices": voices_app,
        "export": export,
        "verify": verify,
        "refine": refine,
        "serve": serve,
    },
    "Recover the encoder of a release": {
        "data": data_app,
        "train": train_app,
        "diagnose": diagnose,
        "evaluate": evaluate_app,
        "inject": inject,
    },
    "Look inside": {"inspect": inspect},
}
"""For a user, for an owner of weights, and for a developer."""

RENAMED = {
    "--accept-ill": "--force",
    "--changed": "--force",
    "--choose-by": "--select-by",
    "--data": "--training-data",
    "--for": "--runtime",
    "--fresh": "--init fresh",
    "--from": "--init",
    "--judge": "--select-by",
    "--licence": "--license",
    "--most": "--limit",
    "--no-model": "--no-lm",
    "--run": "--checkpoints",
    "--seconds": "--max-seconds, and --speech-seconds of a measurement",
    "--speaker": "--speaker-pattern",
    "--spoken": "--generated",
    "--to": "--runtime",
}
"""Options of version 0.1, and their names now."""


class _Ordered(TyperGroup):
    """Lists commands in the order of `COMMANDS`; typer lists groups last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for commands in COMMANDS.values() for name in commands]


app = typer.Typer(
    cls=_Ordered,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Clone voices with Voxtral TTS, and recover the encoder that its release lacks.",
)
for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(command)


def main() -> None:
    """Entry point. An error that the user can mend is one sentence and an exit code."""
    try:
        refuse_renamed(sys.argv[1:])
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


def refuse_renamed(arguments: Iterable[str]) -> None:
    """Raise UsageError, with the new name, for an option of an older version."""
    for argument in arguments:
        option = argument.partition("=")[0]
        if option in RENAMED:
            raise UsageError(f"The option {option} is now {RENAMED[option]}.")
