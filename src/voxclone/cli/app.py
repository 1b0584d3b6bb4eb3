"""The command line: one verb a file. Everything heavy is imported inside the verbs, so that
`--help` is quick."""

import io
import re
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from voxclone.cli.clone import clone
from voxclone.cli.data import data_app
from voxclone.cli.diagnose import diagnose
from voxclone.cli.doctor import doctor
from voxclone.cli.enroll import enroll
from voxclone.cli.evaluate import evaluate_app
from voxclone.cli.export import export
from voxclone.cli.inject import inject
from voxclone.cli.inspect import inspect
from voxclone.cli.merge import merge
from voxclone.cli.recover import recover
from voxclone.cli.refine import refine
from voxclone.cli.serve import serve
from voxclone.cli.speak import speak
from voxclone.cli.strict import make_strict
from voxclone.cli.train import train_app
from voxclone.cli.verify import verify
from voxclone.cli.voices import voices_app
from voxclone.errors import (
    EXIT_USAGE,
    EXIT_USER,
    VoxcloneError,
    file_name,
    printable,
    reason,
    shorten,
)

TEXT_WITH_DASH = re.compile(r"-+(\d|[^=]* [^=]*$)")
INTERRUPTED = 130  # typer's code for it
_UsageMistake: Any = typer.BadParameter.__bases__[0]  # of click, which typer brings along

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
        "recover": recover,
        "data": data_app,
        "train": train_app,
        "diagnose": diagnose,
        "evaluate": evaluate_app,
        "inject": inject,
        "merge": merge,
    },
    "Look inside": {"inspect": inspect, "doctor": doctor},
}
"""For a user, for an owner of weights, and for a developer."""


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
make_strict(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        print(f"voxclone {importlib.metadata.version('voxclone')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Clone voices with Voxtral TTS, and recover the encoder that its release lacks."""


def main() -> None:
    """Entry point. An error that the user can mend is one sentence and an exit code."""
    open_streams()
    try:
        code = app(prog_name="voxclone", standalone_mode=False)
        if code == INTERRUPTED:
            _fail("interrupted.")
        sys.exit(code or 0)
    except VoxcloneError as error:
        _fail(str(error), error.exit_code)
    except _UsageMistake as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(EXIT_USAGE)
        words = " ".join(error.format_message().split()).rstrip(".")
        if type(error).__name__ == "NoSuchOption" and _takes_text(error.ctx):
            words += _hint_at_dashes(sys.argv[1:])
        _fail(
            f"{words}. See `{error.ctx.command_path if error.ctx else 'voxclone'} --help`.",
            EXIT_USAGE,
        )
    except OSError as error:  # one that nothing else has a sentence for
        name = error.filename
        where = shorten(file_name(name)) if isinstance(name, str | bytes) else "A file"
        _fail(f"{where} cannot be read or written: {reason(error)}.")
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, which is not imported for it
            raise
        _fail(
            "the device has too little memory: use another one, for example with "
            f"`--device cpu`. ({str(error).splitlines()[0]})"
        )
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted.")


def _takes_text(context: Any) -> bool:
    """Whether the command of a context has a text as an argument."""
    return context is not None and any(each.name == "text" for each in context.command.params)


def _hint_at_dashes(arguments: list[str]) -> str:
    """The end of a sentence, where an argument looks like a text that begins with a dash."""
    texts = [each for each in arguments if TEXT_WITH_DASH.match(each)]
    if not texts or "--" in arguments:
        return ""
    return (
        f"; a text that begins with a dash comes last, after `--`: `-- {shorten(texts[0], 40)!r}`"
    )


def open_streams() -> None:
    """Have characters that a terminal cannot show replaced, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _fail(sentence: str, code: int = EXIT_USER) -> NoReturn:
    if sys.stderr is not None:  # it may be closed
        print(f"voxclone: {printable(sentence)}", file=sys.stderr)
    sys.exit(code)
