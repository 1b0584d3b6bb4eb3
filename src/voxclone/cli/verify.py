"""The command that says what other programs would load. What is heavy is imported inside."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from voxclone.cli.common import Voices, choose_voice
from voxclone.errors import EXIT_QUALITY, UsageError

For = Annotated[str, typer.Option("--for", help="A runtime, as in `export --to`.")]


def verify(
    path: Annotated[Path, typer.Argument(help="What the runtime is given: a folder or a file.")],
    runtime: For,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--model", help="The release that speaks, where PATH is none itself."),
    ] = None,
    voice: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="This voice alone."),
    ] = None,
    like: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Stored voice, voice file or preset whose rows it must have."),
    ] = None,
    voices: Voices = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a program would load of a voice, and every trap; ends with 3 if there is one."""
    import json

    from rich.console import Console

    from voxclone.release.release import Release
    from voxclone.runtimes.table import find_runtime
    from voxclone.runtimes.verify import sentences
    from voxclone.runtimes.verify import verify as read_all

    found = find_runtime(runtime)
    if not path.exists():
        raise UsageError(f"There is no {path}: name what {found.name} is given.")
    if model is None and not (path / "params.json").exists():
        raise UsageError(f"{path} is no release: name the one that speaks with --model.")
    release = Release.open(model if model is not None else path)
    console = Console(highlight=False, soft_wrap=True, markup=False, quiet=as_json)
    chosen = None if like is None else choose_voice(like, release, voices, console)
    readings = read_all(found, path, release, name=voice, like=chosen)
    unheard = [reading.name for reading in readings if not reading.heard]
    if as_json:
        fields = ("name", "source", "rows", "places", "traps", "notes", "heard")
        values = [{field: getattr(reading, field) for field in fields} for reading in readings]
        print(json.dumps({"runtime": found.name, "voices": values}, indent=1))
    else:
        console.print(f"Runtime    {found.name} reads {found.reads}.")
        width = max(10, *(len(reading.name) for reading in readings))
        for reading in readings:
            for number, sentence in enumerate(sentences(reading)):
                console.print(f"{reading.name if not number else '':<{width}} {sentence}")
        shown = f": {', '.join(unheard[:8])}{' ...' if len(unheard) > 8 else ''}" if unheard else ""
        console.print(
            f"Verdict    {len(readings) - len(unheard)} of {len(readings)} voices would be heard "
            f"as meant{'; not' if unheard else ''}{shown}."
        )
    if unheard:
        raise typer.Exit(EXIT_QUALITY)
