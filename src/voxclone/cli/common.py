"""Shared by the commands: options, checks of outputs, consoles and progress bars."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxclone.errors import UsageError, VoiceError, printable, shorten

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from rich.progress import ProgressColumn

    from voxclone.release.release import Release
    from voxclone.tts.adapter_file import AdapterFolder
    from voxclone.tts.limits import Weights
    from voxclone.voice.resolve import ResolvedVoice

Model = Annotated[str, typer.Option("--model", help="Release: a directory, a Hub id, or mini.")]
Encoder = Annotated[
    Path | None, typer.Option("--encoder", help="Encoder file, for a release without an encoder.")
]
UseAdapter = Annotated[
    Path | None, typer.Option("--adapter", help="Folder of an adapter of `voxclone train adapter`.")
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, or auto: CUDA if available.")]
UseWeights = Annotated[
    str | None,
    typer.Option("--weights", help="int8 or int4: weights of 8 or 4 bits, for speed on a CPU."),
]
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


def open_console(quiet: bool, *, stderr: bool = False) -> "Console":
    """A console that prints what it is given: without markup, highlights and line breaks; to
    standard output, or to standard error."""
    from rich.console import Console

    return Console(
        stderr=stderr, quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False
    )


def print_line(console: "Console", label: str, text: object, *, warning: bool = False) -> None:
    """Print a label and a sentence, on one printable line."""
    line = printable(f"{label:<10} {text}")
    console.print(line, style="yellow" if warning else None)


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


def print_encoder_notes(encoder: Path | None, release: "Release", console: "Console") -> None:
    """Print how the tensors of an encoder file were found, if not as `train encoder` writes
    them."""
    from voxclone.release.encoder_layouts import read_encoder_tensors

    if encoder is not None:
        for note in read_encoder_tensors(encoder, release.params).notes:
            print_line(console, "Encoder", note)


def print_adapter_notes(
    found: "AdapterFolder | None", encoder_hash: str | None, console: "Console"
) -> None:
    """Warn of an adapter that failed its gate, and of a voice that another encoder made."""
    if found is None:
        return
    if found.warning is not None:
        print_line(console, "Adapter", found.warning, warning=True)
    if encoder_hash not in (None, found.card.encoder_hash):
        sentence = "The voice was made by another encoder than the adapter was trained for."
        print_line(console, "Adapter", sentence, warning=True)


def open_release(model: str) -> "Release":
    """Open the release that a command computes with, by as many threads as its size is worth."""
    from voxclone.device import limit_threads
    from voxclone.release.release import Release

    release = Release.open(model)
    limit_threads(release.parameters)
    return release


def chosen_weights(weights: str | None, device: "torch.device") -> "Weights | None":
    """What `--weights` asks for. Raises UsageError for a kind that there is not, and ConfigError
    for a device that cannot compute with it."""
    from voxclone.tts.limits import check_weights
    from voxclone.tts.quantized import require_kernels

    chosen = check_weights(weights)
    if chosen is not None:
        require_kernels(device)
    return chosen


def voices_folder(voices: Path | None) -> Path:
    """The folder of stored voices: the one that is named, or the default one. Raises VoiceError for
    an address."""
    from voxclone.readers import require_local
    from voxclone.voice.store import default_folder

    if voices is None:
        return default_folder()
    require_local(voices, VoiceError, "folder")
    return voices


def stored_file(voice: str, voices: Path | None) -> Path:
    """Where a stored voice of this name would lie."""
    from voxclone.voice.file import SUFFIX

    return voices_folder(voices) / f"{voice}{SUFFIX}"


def print_leftovers(out: Path, console: "Console") -> None:
    """Warn of what interrupted runs left beside an output."""
    from voxclone.io import leftovers

    for path in leftovers(out):
        sentence = f"{path} is of an interrupted run: remove it."
        print_line(console, "Left over", sentence, warning=True)


def choose_voice(
    voice: str, release: "Release", voices: Path | None, console: "Console"
) -> "ResolvedVoice":
    """A voice by its name or path: a stored one, a voice file or a preset."""
    from voxclone.audio.kinds import SOUND_SUFFIXES
    from voxclone.readers import require_local
    from voxclone.voice.resolve import resolve_file, resolve_preset
    from voxclone.voice.store import find_voice

    require_local(voice, VoiceError)
    if voice.lower().endswith(SOUND_SUFFIXES):
        raise UsageError(
            f"{shorten(voice)} is the name of a recording: speak with `voxclone clone "
            f"{shorten(voice)} TEXT -o OUT`, or make a voice of it with `voxclone enroll`."
        )
    path = find_voice(voice, release, voices_folder(voices))
    if path is None:
        return resolve_preset(voice, release)
    found = resolve_file(path, release)
    if found.reembedded:
        sentence = "Made for another embedding table: embedded again from its codes."
        print_line(console, "Voice", sentence)
    return found
