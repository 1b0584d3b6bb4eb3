"""The command that says a text in the voice of a recording. What is heavy is imported inside."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxclone.cli.common import (
    Device,
    Encoder,
    Model,
    Quiet,
    check_output,
    open_console,
)
from voxclone.cli.speak import Cfg, Out, Seed, Text, say, text_of

if TYPE_CHECKING:
    from rich.console import Console

    from voxclone.cloning.enroll import Enrolled
    from voxclone.release.release import Release


def clone(
    reference: Annotated[Path, typer.Argument(help="A recording of 2 to 30 s of one speaker.")],
    text: Text,
    out: Out,
    model: Model = "mini",
    encoder: Encoder = None,
    seed: Seed = None,
    cfg: Cfg = 1.2,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Say a text in the voice of a recording."""
    from voxclone.device import pick_device
    from voxclone.release.encoder_file import open_codec
    from voxclone.release.release import Release
    from voxclone.tts.tts import TTS
    from voxclone.voice.file import Consent

    check_output(out)
    said, console, chosen = text_of(text), open_console(quiet), pick_device(device)
    release = Release.open(model)
    codec = open_codec(release, encoder)
    consent = Consent(kind="unstated", statement="made and used at once by `voxclone clone`")
    enrolled = _enroll(reference, release, codec, "clone", consent, console)
    speaker = TTS.load(release, codec=codec, device=chosen)
    say(speaker, said, enrolled.voice.rows_ND, out, seed, cfg, console, enrolled.reference)


def _enroll(
    path: Path, release: "Release", codec: Any, name: str, consent: Any, console: "Console"
) -> "Enrolled":
    import voxclone.cloning.enroll as cloning
    from voxclone.audio.files import read_recording

    recording = read_recording(path)
    enrolled = cloning.enroll(recording, release, codec, name=name, consent=consent)
    for sentence in enrolled.reference.report.sentences():
        console.print(f"Reference  {sentence}", highlight=False, soft_wrap=True)
    frames = enrolled.voice.codes_KT.shape[1]
    seconds = enrolled.voice.facts.reference_seconds
    console.print(f"Voice      {frames} frames of codes from {seconds:.1f} s.")
    return enrolled
