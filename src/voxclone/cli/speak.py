"""`voxclone speak`: speak with a voice that is there."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxclone.cli.common import (
    Device,
    Model,
    Quiet,
    UseAdapter,
    UseWeights,
    Voices,
    choose_voice,
    chosen_weights,
    open_release,
    print_adapter_notes,
    print_line,
    progress_bar,
    stored_file,
)
from voxclone.cli.sound import check_sound, sound_console, write_sound
from voxclone.cli.text import Text, TextFile, spoken_text, text_source
from voxclone.errors import AudioError, UsageError, VoxcloneError, shorten
from voxclone.outputs import SPEECH_REPORT, check_output, refuse_outputs
from voxclone.spec import FRAME_RATE
from voxclone.tts.limits import MAX_CFG, MAX_SEED

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from voxclone.audio.reference import Reference
    from voxclone.release.release import Release
    from voxclone.tts.speech import Speech, SpokenPart
    from voxclone.tts.tts import TTS
    from voxclone.voice.resolve import ResolvedVoice

Out = Annotated[
    Path,
    typer.Option(
        "-o", "--out", help="Sound file to write (.wav, .flac, ...); - is standard output."
    ),
]
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
    adapter: UseAdapter = None,
    voices: Voices = None,
    seed: Seed = None,
    cfg: Cfg = 1.2,
    report: Annotated[
        Path | None,
        typer.Option(help="JSON file to write: each part with its seed, length and similarity."),
    ] = None,
    redo: Annotated[
        str | None,
        typer.Option(help="Parts to speak again, such as 3,7; the others come from the report."),
    ] = None,
    device: Device = "auto",
    weights: UseWeights = None,
    quiet: Quiet = False,
) -> None:
    """Speak a text with a stored voice, a preset or a voice file."""
    from voxclone.device import pick_device
    from voxclone.tts.tts import TTS

    inputs: list[Path | str | None] = [
        voice,
        stored_file(voice, voices),
        text_source(text, text_file),
        model,
        adapter,
    ]
    check_sound(out, inputs)
    if report is not None:
        check_output(report, SPEECH_REPORT, inputs)
        refuse_outputs(report, [out])
    if redo is not None and (report is None or not os.path.isfile(report)):
        raise UsageError("--redo needs the --report that an earlier `speak` wrote: name it.")
    words, console = spoken_text(text, text_file), sound_console(out, quiet)
    found_device = pick_device(device)
    packed = chosen_weights(weights, found_device)
    release = open_release(model)
    check_sound(out, [release.path])
    resolved = choose_voice(voice, release, voices, console)
    tts = TTS.load(release, device=found_device, adapter=adapter, weights=packed)
    source = resolved.source
    made_by = None if source is None else source.metadata.encoder_hash
    print_adapter_notes(tts.adapter, made_by, console)
    kept: dict[int, SpokenPart] = {}
    if redo is not None and report is not None:
        kept = _kept_parts(report, redo, words, resolved.embedding_ND, tts)
    voice_ND = tts.adapted(resolved.embedding_ND, None if source is None else source.codes_KT)
    speech = speak_text(tts, words, voice_ND, out, seed, cfg, console, kept)
    if report is not None:
        _write_report(report, speech, resolved, release, tts)
        print_line(console, "Report", report)
    print_line(console, "Wrote", out)


def speak_text(
    tts: "TTS",
    text: str,
    voice_ND: "Tensor",
    out: Path,
    seed: int | None,
    cfg: float,
    console: "Console",
    kept: "Mapping[int, SpokenPart] | None" = None,
) -> "Speech":
    """Speak all but the parts `kept`, write the sound, and print how it went. Raises VoxcloneError
    if the model speaks nothing."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    from voxclone.tts.cleaning import markup_warnings
    from voxclone.tts.speech import MAX_DRAWS

    for warning in markup_warnings(text):
        print_line(console, "Text", warning, warning=True)
    seconds = TextColumn("{task.fields[seconds]:.1f} s")
    columns = (TextColumn("Speaking"), BarColumn(), seconds, TimeElapsedColumn())
    with progress_bar(console, *columns, seconds=0.0) as update:
        speech = tts.speak(
            text, voice_ND, seed=seed, cfg=cfg, kept=kept or {},
            progress=lambda done, of: update(
                completed=done, total=max(of, done), seconds=done / FRAME_RATE
            ),
        )  # fmt: skip
    if speech.silent:
        raise VoxcloneError(
            f"The model spoke nothing in {MAX_DRAWS} draws (from seed {speech.seed} on): try "
            "another seed, or a longer text."
        )
    clipped = write_sound(speech, out)
    ratio = speech.seconds / speech.duration
    print_line(
        console, "Speech",
        f"{speech.duration:.1f} s in {speech.seconds:.1f} s ({ratio:.2f} x real time), "
        f"seed {speech.seed}, cfg {speech.cfg:g}.",
    )  # fmt: skip
    if clipped:
        print_line(console, "Clipped", f"{clipped} samples exceed full scale.", warning=True)
    for index, part in enumerate(speech.parts):
        if kept is None or index not in kept:
            _print_part(part, console)
    return speech


def _kept_parts(
    report: Path, redo: str, text: str, voice_ND: "Tensor", tts: "TTS"
) -> "dict[int, SpokenPart]":
    """The parts of an earlier run that stay. Raises UsageError if it was of another voice or
    text."""
    from voxclone.io import tensor_hash
    from voxclone.tts.speech_report import kept_parts, parse_redo, read_speech_report

    record = read_speech_report(report)
    if record.voice_sha256 != tensor_hash(voice_ND):
        raise UsageError(
            f"{shorten(report)} is of another voice ({shorten(record.voice, 60)}): give that one, "
            "or leave out --redo."
        )
    texts = [part.text for part in tts.split(text, len(voice_ND))]
    return kept_parts(record, parse_redo(redo, len(record.parts)), texts, tts.codec)


def _write_report(
    path: Path, speech: "Speech", voice: "ResolvedVoice", release: "Release", tts: "TTS"
) -> None:
    import json

    from voxclone.cloning.part_similarity import part_similarities
    from voxclone.io import atomic_file, tensor_hash
    from voxclone.tts.speech_report import speech_report

    values = speech_report(
        speech,
        part_similarities(speech, voice, release, tts.codec),
        model=str(release.path),
        voice=voice.name,
        voice_sha256=tensor_hash(voice.embedding_ND),
    )
    with atomic_file(path) as file:
        file.write(json.dumps(values, indent=1, ensure_ascii=False).encode())


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


def print_similarity(wave_S: "Tensor", reference: "Reference", console: "Console") -> None:
    """Print how similar speech is to the reference of its voice."""
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
