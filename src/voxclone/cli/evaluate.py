"""`voxclone evaluate`. Heavy modules are imported inside the commands."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxclone.cli.common import (
    Device,
    Encoder,
    Model,
    Quiet,
    UseAdapter,
    open_console,
    print_adapter_notes,
)
from voxclone.cli.report import (
    check_report_folder,
    present,
    progress,
    read_baseline,
)
from voxclone.cli.speak import Cfg
from voxclone.cli.tools import (
    Baseline,
    Out,
    Speech,
    SpeechSeconds,
    Split,
    open_encoder,
)

if TYPE_CHECKING:
    from torch import Tensor

    from voxclone.codec.model import Codec
    from voxclone.evaluate.protocols import Sentence
    from voxclone.evaluate.report.page import AudioComparison
    from voxclone.evaluate.synthesis import Synthesis
    from voxclone.release.release import Release
    from voxclone.tts.tts import TTS

evaluate_app = typer.Typer(no_args_is_help=True, help="Measure a codec, an encoder, or voices.")

UseDnsmos = Annotated[bool, typer.Option("--dnsmos", help="Predict opinion scores by DNSMOS.")]
Seeds = Annotated[int, typer.Option(min=1, max=1000, help="Seeds of each sentence.")]
Embedders = Annotated[
    list[str] | None,
    typer.Option("--embedder", help="ge2e (packaged), ecapa or wavlm. May be repeated."),
]
Transcribers = Annotated[
    list[str] | None,
    typer.Option("--transcriber", help="mini (packaged), pocketsphinx or whisper. Likewise."),
]


@evaluate_app.command("codec")
def evaluate_codec(
    speech: Speech,
    model: Model = "mini",
    encoder: Encoder = None,
    mimi: Annotated[
        int | None,
        typer.Option("--mimi", min=1, max=32, help="Measure Mimi with so many codebooks instead."),
    ] = None,
    split: Split = None,
    speech_seconds: SpeechSeconds = 300,
    embedder: Embedders = None,
    transcriber: Transcribers = None,
    dnsmos: UseDnsmos = False,
    device: Device = "auto",
    out: Out = None,
    baseline: Baseline = None,
    quiet: Quiet = False,
) -> None:
    """Measure how well a codec reconstructs speech (Table 2 of the paper)."""
    from voxclone.device import pick_device
    from voxclone.evaluate import reconstruction
    from voxclone.evaluate.networks import make_models
    from voxclone.evaluate.report.files import reconstructions
    from voxclone.evaluate.speechset import open_speech
    from voxclone.spec import SAMPLING_RATE

    console, torch_device = open_console(quiet), pick_device(device)
    check_report_folder(out, [speech, encoder, baseline, model], reconstruction.SCHEMA)
    before = read_baseline(baseline, reconstruction.SCHEMA)
    track = progress(console)
    models = make_models(embedder, transcriber, dnsmos)
    found = open_speech(speech, split, speech_seconds, track)
    codec: reconstruction.Reconstructor
    if mimi is not None:
        codec = reconstruction.MimiReconstructor(codebooks=mimi, device=torch_device)
    else:
        own = open_encoder(model, encoder)[1].to(torch_device)
        codec = reconstruction.VoxtralReconstructor(own, model)
    scores = reconstruction.evaluate_codec(codec, found, models, track=track)
    clips = partial(reconstructions, codec.reconstruct, found, SAMPLING_RATE)
    present(scores.to_json(), before, clips, out, console)


@evaluate_app.command("encoder")
def evaluate_encoder(
    speech: Speech,
    model: Model = "mini",
    encoder: Encoder = None,
    oracle: Annotated[
        Path | None,
        typer.Option("--oracle", help="File of the true encoder, where it was kept."),
    ] = None,
    split: Split = None,
    speech_seconds: SpeechSeconds = 300,
    device: Device = "auto",
    out: Out = None,
    baseline: Baseline = None,
    quiet: Quiet = False,
) -> None:
    """Compare an encoder's codes with those of presets and of the oracle, if there is one."""
    from voxclone.device import pick_device
    from voxclone.evaluate import encoder as encoders
    from voxclone.evaluate.speechset import open_speech
    from voxclone.release.encoder_file import open_codec

    console, torch_device = open_console(quiet), pick_device(device)
    check_report_folder(out, [speech, encoder, oracle, baseline, model], encoders.SCHEMA)
    before = read_baseline(baseline, encoders.SCHEMA)
    track = progress(console)
    release, codec, name = open_encoder(model, encoder)
    codec = codec.to(torch_device)
    true = None if oracle is None else open_codec(release, oracle).to(torch_device)
    found = open_speech(speech, split, speech_seconds, track)
    report = encoders.evaluate_encoder(release, codec, found, true, name=name, track=track)
    present(report.to_json(), before, list, out, console)


@evaluate_app.command("voices")
def evaluate_voices(
    speech: Speech,
    model: Model = "mini",
    encoder: Encoder = None,
    adapter: UseAdapter = None,
    split: Split = None,
    speech_seconds: SpeechSeconds = 600,
    length: Annotated[
        list[float] | None,
        typer.Option(
            "--length",
            min=1,
            max=60,
            help="Seconds of reference. May be repeated (3, 5, 10, 16, 25).",
        ),
    ] = None,
    sentences: Annotated[
        int, typer.Option(min=1, help="Sentences of each speaker and length.")
    ] = 2,
    seeds: Seeds = 3,
    cfg: Cfg = 1.2,
    device: Device = "auto",
    embedder: Embedders = None,
    transcriber: Transcribers = None,
    dnsmos: UseDnsmos = False,
    out: Out = None,
    baseline: Baseline = None,
    quiet: Quiet = False,
) -> None:
    """Clone every speaker; measure similarity, error rates, pace and level."""
    from voxclone.device import pick_device
    from voxclone.evaluate import cloning
    from voxclone.evaluate.networks import make_models
    from voxclone.evaluate.report.files import SHOWN_CLIPS
    from voxclone.evaluate.report.page import AudioComparison
    from voxclone.evaluate.speechset import open_speech
    from voxclone.tts.tts import TTS

    console, torch_device = open_console(quiet), pick_device(device)
    check_report_folder(out, [speech, encoder, baseline, model], cloning.SCHEMA)
    before = read_baseline(baseline, cloning.SCHEMA)
    track = progress(console)
    models = make_models(embedder, transcriber, dnsmos)
    release, codec, name = open_encoder(model, encoder)
    lengths = tuple(length) if length else cloning.CloningPlan.lengths
    plan = cloning.CloningPlan(lengths, sentences, tuple(range(seeds)), cfg)
    found = open_speech(speech, split, speech_seconds, track)
    tts = TTS.load(release, device=torch_device, adapter=adapter)
    tts.require_encoder(codec.encoder_hash())
    print_adapter_notes(tts.adapter, None, console)
    report = cloning.evaluate_cloning(
        release, codec, tts, found, models, plan, name=name, track=track
    )
    clips = [
        AudioComparison(
            f"{each.speaker}, {each.seconds:g} s of reference: {each.text}",
            {"reference": each.reference_S, "cloned": each.cloned_S},
        )
        for each in report.examples[:SHOWN_CLIPS]
    ]
    present(report.to_json(), before, lambda: clips, out, console)


@evaluate_app.command("speech")
def evaluate_speech(
    test_list: Annotated[
        Path, typer.Argument(help="meta.lst of seed-tts-eval, or folder of MiniMax's test set.")
    ],
    model: Model = "mini",
    encoder: Encoder = None,
    adapter: UseAdapter = None,
    language: Annotated[str, typer.Option(help="Language of MiniMax's set.")] = "english",
    generated: Annotated[
        Path | None,
        typer.Option("--generated", help="Score ID.wav of another program in this folder."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Use only so many sentences, from the top."),
    ] = None,
    seeds: Seeds = 1,
    device: Device = "auto",
    embedder: Embedders = None,
    transcriber: Transcribers = None,
    dnsmos: UseDnsmos = False,
    out: Out = None,
    baseline: Baseline = None,
    quiet: Quiet = False,
) -> None:
    """Score a published test list: similarity to each prompt and error rates."""
    from voxclone.device import pick_device
    from voxclone.evaluate import protocols
    from voxclone.evaluate.networks import make_models
    from voxclone.tts.tts import TTS

    console, torch_device = open_console(quiet), pick_device(device)
    check_report_folder(out, [test_list, generated, encoder, baseline, model], protocols.SCHEMA)
    before = read_baseline(baseline, protocols.SCHEMA)
    track = progress(console)
    models = make_models(embedder, transcriber, dnsmos)
    if os.path.isdir(test_list):
        sentences = protocols.read_minimax(test_list, language)[:limit]
    else:
        sentences = protocols.read_seed_tts(test_list)[:limit]
    if generated is not None:
        syntheses = protocols.read_syntheses(sentences, generated)
    else:
        release, codec, _ = open_encoder(model, encoder)
        tts = TTS.load(release, device=torch_device, adapter=adapter)
        tts.require_encoder(codec.encoder_hash())
        print_adapter_notes(tts.adapter, None, console)
        syntheses = protocols.synthesize_list(
            tts,
            sentences,
            partial(_enroll_prompt, release, codec, tts),
            seeds=range(seeds),
            track=track,
        )
    scores = protocols.score_list(sentences, syntheses, models, track)
    clips = partial(_prompts_and_speech, sentences, syntheses)
    present(scores.to_json(), before, clips, out, console)


def _enroll_prompt(release: "Release", codec: "Codec", tts: "TTS", prompt: Path) -> "Tensor":
    """The voice [N, D] of a prompt, which is not stored."""
    from voxclone.audio.files import read_recording
    from voxclone.cloning.enroll import enroll
    from voxclone.voice.metadata import Consent

    consent = Consent(kind="unstated", statement="used at once by `voxclone evaluate`")
    recording = read_recording(prompt)
    voice: Any = enroll(recording, release, codec, name="prompt", consent=consent).voice
    return tts.adapted(voice.embedding_ND, voice.codes_KT)


def _prompts_and_speech(
    sentences: "Sequence[Sentence]", syntheses: "Sequence[Synthesis]"
) -> "list[AudioComparison]":
    """Some prompts beside their speech with the first seed."""
    import torch

    from voxclone.audio.files import read_wave
    from voxclone.evaluate.report.files import SHOWN_CLIPS
    from voxclone.evaluate.report.page import AudioComparison

    first = zip(sentences, syntheses[: len(sentences)], strict=True)
    audible = [(each, made) for each, made in first if len(made.wave_S)]
    return [
        AudioComparison(
            f"{each.id}: {each.text}",
            {"prompt": torch.from_numpy(read_wave(each.prompt)), "generated": made.wave_S},
        )
        for each, made in audible[:SHOWN_CLIPS]
    ]
