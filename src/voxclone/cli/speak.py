"""`voxclone speak`: speak with a voice that is there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxclone.cli.common import (
    Device,
    Model,
    Quiet,
    Voices,
    choose_voice,
    open_console,
    print_line,
    progress_bar,
)
from voxclone.cli.text import Text, TextFile, spoken_text
from voxclone.errors import AudioError, VoxcloneError
from voxclone.outputs import SOUND, check_output
from voxclone.spec import FRAME_RATE
from voxclone.tts.limits import MAX_CFG, MAX_SEED

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from voxclone.audio.reference import Reference
    from voxclone.tts.speech import SpokenPart
    from voxclone.tts.tts import TTS

Out = Annotated[Path, typer.Option("-o", "--out", help="Sound file to write (.wav, .flac, ...).")]
Seed = Annotated[
    int | None,
    typer.Option(min=0, max=MAX_SEED, help="Seed of the random numbers; random by default."),
]
Cfg = Annotated[
    float,
    typer.Option(min=0, max=MAX_CFG, help="Guidance: 1.2 for clean voices, more for noisy ones."),
]


def speak(
    voice: Annotated[str, typer.Option(help="Stored voice, preset, or voice file.")],
    out: Out,
    text: Text = None,
    text_file: TextFile = None,
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

    check_output(out, SOUND, [voice, text_file, model])
    words, console = spoken_text(text, text_file), open_console(quiet)
    found_device = pick_device(device)
    release = Release.open(model)
    voice_ND = choose_voice(voice, release, voices, console).embedding_ND
    tts = TTS.load(release, device=found_device)
    speak_to_file(tts, words, voice_ND, out, seed, cfg, console, None)


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

    from voxclone.models.speaker_encoder import (
        OTHER_SPEAKERS,
        SAME_SPEAKER,
        Ge2eEmbedder,
        clip_similarity,
    )

    try:
        value = clip_similarity(wave_S, torch.from_numpy(reference.wave_S))
    except AudioError as error:
        print_line(console, "Similarity", f"not measured: {error}", warning=True)
        return
    print_line(
        console, "Similarity",
        f"{value:.2f} to the reference ({Ge2eEmbedder.name}: one speaker's own recordings are near "
        f"{SAME_SPEAKER:g}, other speakers' near {OTHER_SPEAKERS:g}).",
    )  # fmt: skip
