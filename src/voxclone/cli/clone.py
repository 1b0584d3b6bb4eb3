"""`voxclone clone`: speak with the voice of a recording."""

from pathlib import Path
from typing import Annotated

import typer

from voxclone.cli.common import (
    Device,
    Encoder,
    Model,
    Quiet,
    UseAdapter,
    UseWeights,
    chosen_weights,
    open_release,
    print_adapter_notes,
    print_encoder_notes,
    print_line,
)
from voxclone.cli.sound import check_sound, sound_console
from voxclone.cli.speak import Cfg, Out, Seed, print_similarity, speak_text
from voxclone.cli.text import Text, TextFile, spoken_text, text_source
from voxclone.errors import AudioError, UsageError, is_address, not_fetched, shorten


def clone(
    reference: Annotated[Path, typer.Argument(help="Recording of one speaker, 2 to 30 s long.")],
    out: Out,
    text: Text = None,
    text_file: TextFile = None,
    model: Model = "mini",
    encoder: Encoder = None,
    adapter: UseAdapter = None,
    seed: Seed = None,
    cfg: Cfg = 1.2,
    device: Device = "auto",
    weights: UseWeights = None,
    quiet: Quiet = False,
) -> None:
    """Speak a text with the voice of a recording."""
    import voxclone.cloning.enroll as cloning
    from voxclone.audio.files import read_recording
    from voxclone.device import pick_device
    from voxclone.release.encoder_file import find_encoder
    from voxclone.release.release import load_codec
    from voxclone.tts.tts import TTS
    from voxclone.voice.metadata import Consent

    if is_address(str(reference)):
        raise AudioError(not_fetched(str(reference)))
    if reference.suffix in (".safetensors", ".pt", ".gguf"):
        raise UsageError(
            f"{shorten(reference)} is no recording: if it is a voice, speak with it by `voxclone "
            f"speak TEXT --voice {shorten(reference)} -o OUT`."
        )
    source = text_source(text, text_file)
    if str(reference) == str(source) == "-":
        raise UsageError("Standard input cannot be both the recording and the text: name a file.")
    check_sound(out, [reference, source, model, encoder, adapter])
    words, console = spoken_text(text, text_file), sound_console(out, quiet)
    found_device = pick_device(device)
    packed = chosen_weights(weights, found_device)
    release = open_release(model)
    used = find_encoder(release, encoder)
    check_sound(out, [release.path, used])
    codec = load_codec(release, used)
    print_encoder_notes(encoder, release, console)
    consent = Consent(kind="unstated", statement="made and used at once by `voxclone clone`")
    recording = read_recording(reference)
    enrolled = cloning.enroll(recording, release, codec, name="clone", consent=consent)
    for sentence in enrolled.reference.report.sentences():
        print_line(console, "Reference", sentence)
    voice = enrolled.voice
    frames, seconds = voice.codes_KT.shape[1], voice.metadata.reference_seconds
    print_line(console, "Voice", f"{frames} frames of codes from {seconds:.1f} s.")
    tts = TTS.load(release, codec=codec, device=found_device, adapter=adapter, weights=packed)
    tts.require_encoder(voice.metadata.encoder_hash)
    print_adapter_notes(tts.adapter, None, console)
    voice_ND = tts.adapted(voice.embedding_ND, voice.codes_KT)
    speech = speak_text(tts, words, voice_ND, out, seed, cfg, console)
    print_similarity(speech.wave_S, enrolled.reference, console)
    print_line(console, "Wrote", out)
