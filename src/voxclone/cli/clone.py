"""`voxclone clone`: speak with the voice of a recording."""

from pathlib import Path
from typing import Annotated

import typer

from voxclone.cli.common import (
    Device,
    Encoder,
    Model,
    Quiet,
    check_output,
    open_console,
    print_line,
)
from voxclone.cli.speak import Cfg, Out, Seed, Text, read_text, speak_to_file


def clone(
    reference: Annotated[Path, typer.Argument(help="Recording of one speaker, 2 to 30 s long.")],
    text: Text,
    out: Out,
    model: Model = "mini",
    encoder: Encoder = None,
    seed: Seed = None,
    cfg: Cfg = 1.2,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Speak a text with the voice of a recording."""
    import voxclone.cloning.enroll as cloning
    from voxclone.audio.files import read_recording
    from voxclone.device import pick_device
    from voxclone.release.encoder_file import open_codec
    from voxclone.release.release import Release
    from voxclone.tts.tts import TTS
    from voxclone.voice.metadata import Consent

    check_output(out)
    words, console, found_device = read_text(text), open_console(quiet), pick_device(device)
    release = Release.open(model)
    codec = open_codec(release, encoder)
    consent = Consent(kind="unstated", statement="made and used at once by `voxclone clone`")
    recording = read_recording(reference)
    enrolled = cloning.enroll(recording, release, codec, name="clone", consent=consent)
    for sentence in enrolled.reference.report.sentences():
        print_line(console, "Reference", sentence)
    voice = enrolled.voice
    frames, seconds = voice.codes_KT.shape[1], voice.metadata.reference_seconds
    print_line(console, "Voice", f"{frames} frames of codes from {seconds:.1f} s.")
    tts = TTS.load(release, codec=codec, device=found_device)
    speak_to_file(tts, words, voice.embedding_ND, out, seed, cfg, console, enrolled.reference)
