"""`voxclone speak`: speak with a voice that is there."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxclone.cli.common import (
    Device,
    Model,
    Quiet,
    Voices,
    check_output,
    choose_voice,
    open_console,
    print_line,
    progress_bar,
)
from voxclone.errors import AudioError, VoxcloneError
from voxclone.spec import FRAME_RATE

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from voxclone.audio.reference import Reference
    from voxclone.tts.speech import SpokenPart
    from voxclone.tts.tts import TTS

Text = Annotated[str, typer.Argument(help="Text to speak; - reads standard input.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Sound file to write (.wav, .flac, ...).")]
Seed = Annotated[int | None, typer.Option(help="Seed of the random numbers; random by default.")]
Cfg = Annotated[float, typer.Option(help="Guidance: 1.2 for clean voices, more for noisy ones.")]


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
    """Speak a text with a stored voice, a preset or a voice file."""
    from voxclone.device import pick_device
    from voxclone.release.release import Release
    from voxclone.tts.tts import TTS

    check_output(out)
    words, console, found_device = read_text(text), open_console(quiet), pick_device(device)
    release = Release.open(model)
    voice_ND = choose_voice(voice, release, voices, console).embedding_ND
    tts = TTS.load(release, device=found_device)
    speak_to_file(tts, words, voice_ND, out, seed, cfg, console, None)


def read_text(text: str) -> str:
    """The text, or standard input for `-`. Raises UsageError for a text that cannot be spoken."""
    from voxclone.tts.text import check_text

    return check_text(sys.stdin.read() if text == "-" else text)


def speak_to_file(
    tts: "TTS",
    text: str,
    voice_ND: "Tensor",
    out: Path,
    seed: int | None,
    cfg: float,
    console: "Console",
    reference: "Reference | None",
) -> None:
    """Speak, write the sound file, and print how it went; with a `reference`, also how similar the
    speech is to it. Raises VoxcloneError if the model speaks nothing."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    from voxclone.tts.cleaning import markup_warnings
    from voxclone.tts.speech import MAX_DRAWS

    for warning in markup_warnings(text):
        print_line(console, "Text", warning, warning=True)
    seconds = TextColumn("{task.fields[seconds]:.1f} s")
    columns = (TextColumn("Speaking"), BarColumn(), seconds, TimeElapsedColumn())
    with progress_bar(console, *columns, seconds=0.0) as update:
        speech = tts.speak(
            text, voice_ND, seed=seed, cfg=cfg,
            progress=lambda done, of: update(
                completed=done, total=max(of, done), seconds=done / FRAME_RATE
            ),
        )  # fmt: skip
    if speech.silent:
        raise VoxcloneError(
            f"The model spoke nothing in {MAX_DRAWS} draws (from seed {speech.seed} on): try "
            "another seed, or a longer text."
        )
    clipped = speech.save(out)
    ratio = speech.seconds / speech.duration
    print_line(
        console, "Speech",
        f"{speech.duration:.1f} s in {speech.seconds:.1f} s ({ratio:.2f} x real time), "
        f"seed {speech.seed}, cfg {speech.cfg:g}.",
    )  # fmt: skip
    if clipped:
        print_line(console, "Clipped", f"{clipped} samples exceed full scale.", warning=True)
    for part in speech.parts:
        _print_part(part, console)
    if reference is not None:
        _print_similarity(speech.wave_S, reference, console)
    print_line(console, "Wrote", out)


def _print_part(part: "SpokenPart", console: "Console") -> None:
    """Print what was not as it should be in a part of the text."""
    if part.rejected:
        seeds = ", ".join(map(str, part.rejected))
        sentence = f"Silent or without an end with the seed {seeds}; drawn with {part.seed}: "
        print_line(console, "Redrawn", f"{sentence}{part.text!r}.")
    if part.silent:
        print_line(console, "Silent", f"The model spoke nothing: {part.text!r}.", warning=True)
    elif part.truncated:
        sentence = f"The model did not end by itself: {part.text!r}."
        print_line(console, "Truncated", sentence, warning=True)


def _print_similarity(wave_S: "Tensor", reference: "Reference", console: "Console") -> None:
    import torch

    from voxclone.audio.loudness import normalize_loudness
    from voxclone.models.speaker_encoder import Ge2eEmbedder, speaker_similarity

    embedder = Ge2eEmbedder.load()
    reference_S = normalize_loudness(torch.from_numpy(reference.wave_S))
    try:
        value = speaker_similarity(embedder, normalize_loudness(wave_S), reference_S)
    except AudioError as error:
        print_line(console, "Similarity", f"not measured: {error}", warning=True)
        return
    print_line(
        console, "Similarity",
        f"{value:.2f} to the reference ({embedder.name}: one speaker's own recordings are near "
        "0.75, other speakers' near 0.5).",
    )  # fmt: skip
