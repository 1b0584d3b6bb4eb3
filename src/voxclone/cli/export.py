"""`voxclone export`: write a voice for another program that runs the model."""

import os
from pathlib import Path
from typing import Annotated

import typer

from voxclone.cli.common import (
    Model,
    Quiet,
    Voices,
    choose_voice,
    open_console,
    print_leftovers,
    print_line,
)

Runtime = Annotated[
    str,
    typer.Option(
        help="vllm-omni, mlx-audio, mlx-voxtral-swift, voxtral-tts.c, voxtral_tts_rs, "
        "faster-voxtral, executorch, comfyui, loom.cpp or codes.",
    ),
]


def export(
    voice: Annotated[str, typer.Argument(help="Stored voice, voice file, or preset.")],
    runtime: Runtime,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder or file to write, as the runtime needs it.")
    ],
    model: Model = "mini",
    name: Annotated[
        str | None, typer.Option(help="Name of the voice there; by default its own.")
    ] = None,
    replace_preset: Annotated[
        str | None, typer.Option(help="Preset that it replaces, in the new folder.")
    ] = None,
    voices: Voices = None,
    quiet: Quiet = False,
) -> None:
    """Write a voice in the format of another program. The release itself is never written."""
    from voxclone.release.release import Release
    from voxclone.runtimes.export import export_voice
    from voxclone.runtimes.table import find_runtime

    target = find_runtime(runtime)
    release, console = Release.open(model), open_console(quiet)
    found = choose_voice(voice, release, voices, console)
    print_leftovers(out, console)
    source = Path(voice) if os.path.isfile(voice) else None
    reading = export_voice(
        found, target, release, out, name=name, replace_preset=replace_preset, source=source
    )
    frames = f"{reading.frames} frames, bit for bit those of {voice}."
    print_line(console, "Voice", f"{reading.name}: {frames}")
    for note in reading.notes:
        print_line(console, "Note", note)
    print_line(console, "Reads", f"{target.name} reads {target.reads}.")
    print_line(console, "Wrote", out)
    print_line(console, "Use", target.use.format(out=out, name=reading.name))
