"""A command line that takes nothing silently: repeated options, renamed ones, and numbers that are
not finite."""

import math
import os
from collections.abc import Sequence, Set
from typing import Any

import typer
from typer.core import TyperCommand

from voxclone.errors import UsageError

INT64 = 2**63
TEXTS = {"text", "statement", "training_data"}
"""Parameters that are texts; the others may be paths, whose bytes must stay as they are."""
RENAMED = {
    "--accept-ill": ("--force",),
    "--changed": ("--force",),
    "--choose-by": ("--select-by",),
    "--data": ("--training-data",),
    "--for": ("--runtime",),
    "--fresh": ("--init fresh",),
    "--from": ("--init",),
    "--judge": ("--select-by",),
    "--licence": ("--license",),
    "--most": ("--limit",),
    "--no-model": ("--no-lm",),
    "--run": ("--checkpoints",),
    "--seconds": ("--max-seconds", "--speech-seconds"),
    "--speaker": ("--speaker-pattern",),
    "--spoken": ("--generated",),
    "--to": ("--runtime",),
}
"""Options of version 0.1, and what each is now, which depends on the command."""


class StrictCommand(TyperCommand):
    """Refuses an option that is given twice, of which the last would win, and numbers that no
    computation can use."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises UsageError; otherwise as the class it derives from."""
        refuse_renamed(args, {name for each in self.get_params(ctx) for name in each.opts})
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in order:
            single = parameter.param_type_name == "option" and not parameter.multiple
            if single and order.count(parameter) > 1:
                raise UsageError(f"The option {parameter.opts[0]} is given twice: give it once.")
        rest = super().parse_args(ctx, args)
        for parameter in self.get_params(ctx):
            given = ctx.params.get(parameter.name)
            for value in given if isinstance(given, list | tuple) else [given]:
                _check_number(value, parameter.opts[0])
            if parameter.name in TEXTS and isinstance(given, str):
                ctx.params[parameter.name] = _decoded(given, parameter.opts[0])
        return rest


def refuse_renamed(arguments: Sequence[str], options: Set[str]) -> None:
    """Raise UsageError, with the new name, for an option of an older version whose new name is one
    of a command's `options`."""
    for argument in arguments:
        given = argument.partition("=")[0]
        now = [new for new in RENAMED.get(given, ()) if new.split()[0] in options]
        if now and given not in options:
            raise UsageError(f"The option {given} is now {now[0]}.")


def make_strict(app: typer.Typer) -> None:
    """Make all commands of an app, and of the apps in it, strict."""
    for command in app.registered_commands:
        command.cls = StrictCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            make_strict(group.typer_instance)


def _decoded(text: str, name: str) -> str:
    """The text of an argument that the locale, such as C, may not have decoded."""
    try:
        return os.fsencode(text).decode()
    except UnicodeEncodeError:  # the locale knows fewer characters, and has decoded none wrongly
        return text
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not in UTF-8: set the terminal to UTF-8.") from None


def _check_number(value: object, name: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} is {value}: give a finite number.")
    if isinstance(value, int) and not -INT64 <= value < INT64:
        raise UsageError(f"{name} is a number of more than 64 bits: give a smaller one.")
