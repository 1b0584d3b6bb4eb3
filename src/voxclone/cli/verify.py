"""`voxclone verify`: what another program would load of a voice."""

import os
from pathlib import Path
from typing import Annotated

import typer

from voxclone.cli.common import Json, Voices, choose_voice, open_console, print_line
from voxclone.cli.export import Runtime
from voxclone.errors import EXIT_QUALITY, UsageError, VoiceError
from voxclone.readers import require_local

SHOWN = 8  # names of unusable voices


def verify(
    path: Annotated[Path, typer.Argument(help="Folder or file that the runtime gets.")],
    runtime: Runtime,
    model: Annotated[
        str | None, typer.Option(help="Release that speaks; by default PATH itself.")
    ] = None,
    voice: Annotated[str | None, typer.Option(help="Check only this voice in PATH.")] = None,
    like: Annotated[
        str | None,
        typer.Option(help="Stored voice, voice file or preset that it must equal bit for bit."),
    ] = None,
    voices: Voices = None,
    as_json: Json = False,
) -> None:
    """Show what a program would load of a voice, and every problem. Exit code 3: it has one."""
    import json

    from voxclone.release.release import Release
    from voxclone.runtimes.table import find_runtime
    from voxclone.runtimes.verify import sentences
    from voxclone.runtimes.verify import verify as read_all

    target = find_runtime(runtime)
    require_local(path, VoiceError)
    if not os.path.exists(path):
        raise VoiceError(f"There is no {path}: name the file or folder that {target.name} gets.")
    if model is None and not os.path.exists(path / "params.json"):
        raise UsageError(f"{path} is no release: name the one that speaks with --model.")
    release = Release.open(model if model is not None else path)
    console = open_console(as_json)
    expected = None if like is None else choose_voice(like, release, voices, console)
    readings = read_all(target, path, release, name=voice, like=expected)
    unusable = [reading.name for reading in readings if not reading.usable]
    if as_json:
        fields = ("name", "source", "frames", "positions", "problems", "notes", "usable")
        values = [{field: getattr(reading, field) for field in fields} for reading in readings]
        print(json.dumps({"runtime": target.name, "voices": values}, indent=1))
    print_line(console, "Runtime", f"{target.name} reads {target.reads}.")
    width = max(10, *(len(reading.name) for reading in readings))
    for reading in readings:
        for number, sentence in enumerate(sentences(reading)):
            print_line(console, f"{'' if number else reading.name:<{width}}", sentence)
    names = f"; not: {', '.join(unusable[:SHOWN])}" if unusable else ""
    usable = f"{len(readings) - len(unusable)} of {len(readings)} voices would speak as intended"
    more = " ..." if len(unusable) > SHOWN else ""
    print_line(console, "Verdict", f"{usable}{names}{more}.")
    if unusable:
        raise typer.Exit(EXIT_QUALITY)
