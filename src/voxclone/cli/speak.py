"""The command that says a text with a voice. What is heavy is imported inside."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from voxclone.cli.common import (
    Device,
    Model,
    Quiet,
    Voices,
    check_output,
    choose_voice,
    open_console,
)
from voxclone.errors import AudioError, VoxcloneError
from voxclone.spec import FRAME_RATE

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from voxclone.audio.reference import Reference
    from voxclone.tts.tts import TTS, Speech

Text = Annotated[str, typer.Argument(help="What to say; - reads standard input.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Sound file to write (.wav, .flac, ...).")]
Seed = Annotated[Optional[int], typer.Option(help="Same seed, same speech.")]  # noqa: UP045
Cfg = Annotated[float, typer.Option(help="Guidance: 1.2 suits clean voices, more noisy ones.")]


def speak(
    text: Text,
    voice: Annotated[str, typer.Option(help="Stored voice, preset, or voice file.")],
    out: Out,
    model: Model = "mini",
    voices: Voices = None,
    seed: Seed = None,
    cfg: Cfg = 1.2,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Say a text with a stored voice, a preset or a voice file."""
    from voxclone.device import pick_device
    from voxclone.release.release import Release
    from voxclone.tts.tts import TTS

    check_output(out)
    said, console, chosen = text_of(text), open_console(quiet), pick_device(device)
    release = Release.open(model)
    rows_ND = choose_voice(voice, release, voices, console).rows_ND
    speaker = TTS.load(release, device=chosen)
    say(speaker, said, rows_ND, out, seed, cfg, console, None)


def say(
    speaker: "TTS",
    text: str,
    rows_ND: "Tensor",
    out: Path,
    seed: int | None,
    cfg: float,
    console: "Console",
    reference: "Reference | None",
) -> None:
    from voxclone.audio.files import write_wave

    with _speaking(console) as progress:
        speech = speaker.speak(text, rows_ND, seed=seed, cfg=cfg, progress=progress)
    if not len(speech.wave_S):
        raise VoxcloneError(
            f"The model ended before it said anything (seed {speech.seed}): try another seed."
        )
    clipped = write_wave(out, speech.wave_S.numpy(), speech.sampling_rate)
    ratio = speech.seconds / speech.duration
    console.print(
        f"Speech     {speech.duration:.1f} s in {speech.seconds:.1f} s ({ratio:.2f} x real time), "
        f"seed {speech.seed}, cfg {speech.cfg:g}."
    )
    if clipped:
        console.print(f"[yellow]Clipped    {clipped} samples were beyond full scale.[/yellow]")
    for part in speech.truncated:
        console.print(f"[yellow]Truncated  The model did not end by itself: {part!r}.[/yellow]")
    if reference is not None:
        _print_likeness(speech, reference, console)
    console.print(f"Wrote      {out}")


def _print_likeness(speech: "Speech", reference: "Reference", console: "Console") -> None:
    import torch

    from voxclone.audio.loudness import normalize_loudness
    from voxclone.models.speaker_encoder import Ge2eEmbedder, speaker_similarity

    embedder = Ge2eEmbedder.load()
    reference_S = torch.from_numpy(reference.wave_S)
    try:
        value = speaker_similarity(
            embedder, normalize_loudness(speech.wave_S), normalize_loudness(reference_S)
        )
    except AudioError as error:
        console.print(f"[yellow]Likeness   not measured: {error}[/yellow]")
        return
    console.print(
        f"Likeness   {value:.2f} to the reference ({embedder.name}: one speaker's own recordings "
        "are near 0.75, strangers near 0.5)."
    )


@contextmanager
def _speaking(console: "Console") -> Iterator[Callable[[int, float], None]]:
    """A progress bar of frames, where somebody looks at it."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("Speaking"), BarColumn(), TextColumn("{task.fields[s]:.1f} s"))
    shown = console.is_terminal and not console.quiet
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not shown) as bar:
        task = bar.add_task("", total=None, s=0.0)
        yield lambda done, of: bar.update(
            task, completed=done, total=max(of, done), s=done / FRAME_RATE
        )


def text_of(text: str) -> str:
    from voxclone.tts.text import check_text

    return check_text(sys.stdin.read() if text == "-" else text)
