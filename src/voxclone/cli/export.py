"""The command that writes voices for other programs that run the model."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from voxclone.cli.common import Quiet, Voices, choose_voice

To = Annotated[
    str,
    typer.Option(
        "--to",
        help="vllm-omni, mlx-audio, mlx-voxtral-swift, voxtral-tts.c, voxtral_tts_rs, "
        "faster-voxtral, executorch, comfyui or codes.",
    ),
]


def export(
    voice: Annotated[str, typer.Argument(help="Stored voice, voice file, or preset.")],
    model: Annotated[str, typer.Argument(help="Directory, Hub id, or mini.")],
    out: Annotated[Path, typer.Argument(help="Folder or file to write, by the runtime.")],
    to: To,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Name of the voice there, if not its own."),
    ] = None,
    replace_preset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Put it in the place of this preset, in the new folder."),
    ] = None,
    voices: Voices = None,
    quiet: Quiet = False,
) -> None:
    """Write a voice as another program reads it; MODEL itself is never written."""
    from rich.console import Console

    from voxclone.io import leftovers
    from voxclone.release.release import Release
    from voxclone.runtimes.export import export_voice
    from voxclone.runtimes.table import find_runtime

    runtime = find_runtime(to)
    release = Release.open(model)
    console = Console(quiet=quiet, highlight=False, soft_wrap=True)
    chosen = choose_voice(voice, release, voices, console)
    for path in leftovers(out):
        console.print(f"[yellow]Left over  {path} is of an interrupted run: remove it.[/yellow]")
    reading = export_voice(chosen, runtime, release, out, name=name, replace_preset=replace_preset)
    console.print(f"Voice      {reading.name}: {reading.rows} rows, bit for bit those of {voice}.")
    for note in reading.notes:
        console.print(f"Note       {note}")
    console.print(f"Reads      {runtime.name} reads {runtime.reads}.")
    console.print(f"Wrote      {out}")
    console.print(f"Use        {runtime.use.format(out=out, name=reading.name)}")
