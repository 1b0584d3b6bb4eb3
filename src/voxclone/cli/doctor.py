"""`voxclone doctor`: what this machine lacks."""

from pathlib import Path
from typing import Annotated

import typer

from voxclone.cli.common import open_console, print_line
from voxclone.errors import EXIT_QUALITY


def doctor(
    model: Annotated[str | None, typer.Option("--model", help="Check this release, too.")] = None,
) -> None:
    """Check Python, torch, GPU, disk, extras, the Hub and a release. Exit code 3: something that
    everything needs is missing."""
    from voxclone.doctor import examine

    console, found = open_console(False), examine(model, Path())
    for each in found:
        print_line(console, "ok" if each.ok else "missing", f"{each.name}: {each.found}",
                   warning=not each.ok)  # fmt: skip
        if not each.ok:
            print_line(console, "", f"prevents {each.prevents}; mend it: {each.mend}")
    if any(each.needed and not each.ok for each in found):
        raise typer.Exit(EXIT_QUALITY)
