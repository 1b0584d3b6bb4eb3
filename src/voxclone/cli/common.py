"""Shared by the commands: options, checks of outputs, consoles and progress bars."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxclone.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn

    from voxclone.release.release import Release
    from voxclone.voice.resolve import ResolvedVoice

Model = Annotated[str, typer.Option("--model", help="Release: a directory, a Hub id, or mini.")]
Encoder = Annotated[
    Path | None, typer.Option("--encoder", help="Encoder file, for a release without an encoder.")
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, or auto: CUDA if available.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Voices = Annotated[
    Path | None,
    typer.Option("--voices", help="Folder of stored voices; by default in your home directory."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting. May be repeated."),
]


def check_output(path: Path) -> None:
    """Raise UsageError, before any work, for a file that cannot be written."""
    import os

    folder = path.resolve().parent
    if path.is_dir():
        raise UsageError(f"{path} is a directory: name the file to write.")
    if not folder.is_dir():
        raise UsageError(f"{path} cannot be written: there is no directory {folder}.")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{path} cannot be written: the directory {folder} is read-only.")


def open_console(quiet: bool) -> "Console":
    """A console without highlights and line breaks of its own."""
    from rich.console import Console

    return Console(quiet=quiet, highlight=False, soft_wrap=True)


def print_line(console: "Console", label: str, text: object, *, warning: bool = False) -> None:
    """Print a label and a sentence, whose brackets are no markup."""
    console.print(f"{label:<10} {text}", style="yellow" if warning else None, markup=False)


@contextmanager
def progress_bar(
    console: "Console", *columns: "ProgressColumn", total: float | None = None, **fields: Any
) -> Iterator[Callable[..., None]]:
    """A progress bar on a terminal. Yields rich's `Progress.update` for it: call it with `advance`,
    `completed` or `total`."""
    from rich.progress import Progress

    hidden = console.quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        yield partial(bar.update, bar.add_task("", total=total, **fields))


def choose_voice(
    voice: str, release: "Release", voices: Path | None, console: "Console"
) -> "ResolvedVoice":
    """A voice by its name or path: a stored one, a voice file or a preset."""
    from voxclone.voice.resolve import resolve_file, resolve_preset
    from voxclone.voice.store import default_folder, find_voice

    path = find_voice(voice, release, voices if voices is not None else default_folder())
    if path is None:
        return resolve_preset(voice, release)
    found = resolve_file(path, release)
    if found.reembedded:
        sentence = "Made for another embedding table: embedded again from its codes."
        print_line(console, "Voice", sentence)
    return found
