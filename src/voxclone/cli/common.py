"""What the commands share: options by the same name everywhere, outputs checked before any work."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from voxclone.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from voxclone.release.release import Release
    from voxclone.voice.resolve import ResolvedVoice

Model = Annotated[str, typer.Option("--model", help="Directory, Hub id, or mini.")]
Encoder = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--encoder", help="Encoder file, where the release has none."),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, or auto: CUDA if it is there.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Voices = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--voices", help="Folder of stored voices; a folder of the user if not given."),
]


def check_output(path: Path) -> None:
    """Refuse before any work is done: a folder that is not there, a file that cannot be written."""
    import os

    folder = path.resolve().parent
    if path.is_dir():
        raise UsageError(f"{path} is a directory: name the file to write.")
    if not folder.is_dir():
        raise UsageError(f"{path} cannot be written: there is no directory {folder}.")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{path} cannot be written: the directory {folder} is read-only.")


def open_console(quiet: bool) -> "Console":
    from rich.console import Console

    return Console(quiet=quiet)


def choose_voice(
    voice: str, release: "Release", voices: Path | None, console: "Console"
) -> "ResolvedVoice":
    """What a user calls a voice: a stored one, a voice file or a preset."""
    from voxclone.voice.resolve import resolve_file, resolve_preset
    from voxclone.voice.store import default_folder, find_voice

    path = find_voice(voice, release, voices if voices is not None else default_folder())
    if path is None:
        return resolve_preset(voice, release)
    resolved = resolve_file(path, release)
    if resolved.reembedded:
        console.print("Voice      Made for another embedding table: embedded again from its codes.")
    return resolved
