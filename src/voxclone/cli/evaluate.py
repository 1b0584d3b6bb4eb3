"""Commands that measure. As in `cli`, what is heavy is imported inside them."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from voxclone.cli.common import Device, Encoder, open_console
from voxclone.cli.report import SHOWN_CLIPS, present, progress, read_report, side_by_side
from voxclone.cli.tools import (
    Baseline,
    Model,
    Out,
    Seconds,
    Split,
    load_listed,
    make_embedders,
    make_mos_predictor,
    make_transcribers,
    opened,
)

evaluate_app = typer.Typer(no_args_is_help=True, help="Measure codec, encoder and voices.")

Speech = Annotated[
    Path,
    typer.Option(help="Manifest (JSON lines), or a folder with a sub-folder for each speaker."),
]
Opinion = Annotated[bool, typer.Option("--dnsmos", help="Rate the sound by DNSMOS, too.")]
Embedders = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--embedder", help="ge2e (packaged), ecapa or wavlm; may be repeated."),
]
Transcribers = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--transcriber", help="mini (packaged), pocketsphinx or whisper."),
]


@evaluate_app.command("codec")
def evaluate_codec(
    speech: Speech,
    model: Model = "mini",
    encoder: Encoder = None,
    mimi: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Measure Mimi with so many code books instead, to calibrate."),
    ] = None,
    split: Split = None,
    seconds: Seconds = 300,
    embedder: Embedders = None,
    transcriber: Transcribers = None,
    dnsmos: Opinion = False,
    out: Out = None,
    baseline: Baseline = None,
) -> None:
    """How well a codec gives speech back (Table 2 of the paper)."""
    from voxclone.evaluate import reconstruction
    from voxclone.spec import SAMPLING_RATE

    console = open_console(False)
    before = read_report(baseline, reconstruction.SCHEMA)
    track = progress(console)
    found = load_listed(speech, split, seconds, track)
    codec: reconstruction.Reconstructor
    if mimi is not None:
        codec = reconstruction.MimiReconstructor(books=mimi)
    else:
        codec = reconstruction.VoxtralReconstructor(opened(model, encoder)[1], model)
    scores = reconstruction.evaluate_codec(
        codec,
        found,
        make_embedders(embedder),
        make_transcribers(transcriber),
        listener=make_mos_predictor(dnsmos),
        track=track,
    )
    clips = partial(side_by_side, codec.reconstruct, found, SAMPLING_RATE)
    present(scores.to_json(), before, clips, out, console)


@evaluate_app.command("encoder")
def evaluate_encoder(
    speech: Speech,
    model: Model = "mini",
    encoder: Encoder = None,
    oracle: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="File of the true encoder, where it was kept."),
    ] = None,
    split: Split = None,
    seconds: Seconds = 300,
    out: Out = None,
    baseline: Baseline = None,
) -> None:
    """Codes of an encoder against those of presets and, where there is one, of the oracle."""
    from voxclone.evaluate import encoder as encoders
    from voxclone.release.encoder_file import open_codec

    console = open_console(False)
    before = read_report(baseline, encoders.SCHEMA)
    track = progress(console)
    release, codec, name = opened(model, encoder)
    report = encoders.evaluate_encoder(
        release,
        codec,
        load_listed(speech, split, seconds, track),
        None if oracle is None else open_codec(release, oracle),
        name=name,
        track=lambda items: track(items, "encoding"),
    )
    present(report.to_json(), before, list, out, console)


@evaluate_app.command("voices")
def evaluate_voices(
    speech: Speech,
    model: Model = "mini",
    encoder: Encoder = None,
    split: Split = None,
    seconds: Seconds = 600,
    length: Annotated[
        Optional[list[float]],  # noqa: UP045
        typer.Option(help="Seconds of reference; may be repeated (3, 5, 10, 16 and 25)."),
    ] = None,
    sentences: Annotated[int, typer.Option(help="Sentences of each speaker and length.")] = 2,
    seeds: Annotated[int, typer.Option(help="Seeds of each sentence.")] = 3,
    cfg: Annotated[float, typer.Option(help="Guidance.")] = 1.2,
    device: Device = "auto",
    embedder: Embedders = None,
    transcriber: Transcribers = None,
    dnsmos: Opinion = False,
    out: Out = None,
    baseline: Baseline = None,
) -> None:
    """Clone every speaker and measure likeness, errors, pace and level."""
    from voxclone.device import pick_device
    from voxclone.evaluate import cloning
    from voxclone.evaluate.report.page import Heard
    from voxclone.tts.tts import TTS

    console, chosen = open_console(False), pick_device(device)
    before = read_report(baseline, cloning.SCHEMA)
    track = progress(console)
    release, codec, name = opened(model, encoder)
    plan = cloning.VoicePlan(sentences=sentences, seeds=tuple(range(seeds)), cfg=cfg)
    if length:
        plan = cloning.VoicePlan(tuple(length), sentences, tuple(range(seeds)), cfg)
    report = cloning.evaluate_voices(
        release,
        codec,
        TTS.load(release, device=chosen),
        load_listed(speech, split, seconds, track),
        make_embedders(embedder),
        make_transcribers(transcriber),
        plan,
        name=name,
        listener=make_mos_predictor(dnsmos),
        track=track,
    )
    clips = [
        Heard(
            f"{each.speaker}, {each.seconds:g} s of reference: {each.text}",
            {"reference": each.reference_S, "cloned": each.spoken_S},
        )
        for each in report.examples[:SHOWN_CLIPS]
    ]
    present(report.to_json(), before, lambda: clips, out, console)


@evaluate_app.command("speech")
def evaluate_speech(
    listed: Annotated[
        Path, typer.Argument(help="meta.lst of seed-tts-eval, or the folder of MiniMax's test set.")
    ],
    model: Annotated[str, typer.Option("--model", help="Directory, Hub id, or mini.")] = "mini",
    encoder: Encoder = None,
    language: Annotated[str, typer.Option(help="Language of MiniMax's set.")] = "english",
    spoken: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder with ID.wav of another program, to be scored instead."),
    ] = None,
    most: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--most", help="Only so many sentences, from the top."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of each sentence.")] = 1,
    device: Device = "auto",
    embedder: Embedders = None,
    transcriber: Transcribers = None,
    dnsmos: Opinion = False,
    out: Out = None,
    baseline: Baseline = None,
) -> None:
    """Run a published list: clone each prompt, say each text, score likeness and word errors."""
    import torch

    from voxclone.audio.files import read_wave
    from voxclone.evaluate import protocols
    from voxclone.evaluate.report.page import Heard

    console = open_console(False)
    before = read_report(baseline, protocols.SCHEMA)
    track = progress(console)
    read = protocols.read_seed_tts
    sentences = protocols.read_minimax(listed, language) if listed.is_dir() else read(listed)
    sentences = sentences[:most]
    if spoken is not None:
        said = protocols.read_spoken(sentences, spoken)
    else:
        said = _say_list(sentences, model, encoder, seeds, device, track)
    scores = protocols.score_spoken(
        sentences,
        said,
        make_embedders(embedder),
        make_transcribers(transcriber),
        make_mos_predictor(dnsmos),
        track,
    )

    def clips() -> list[Heard]:
        loud = [pair for pair in zip(sentences, said) if pair[0].id not in scores.silent]  # noqa: B905 - the first seed of several
        return [
            Heard(
                f"{each.id}: {each.text}",
                {"prompt": torch.from_numpy(read_wave(each.prompt)), "spoken": made.wave_S},
            )
            for each, made in loud[:SHOWN_CLIPS]
        ]

    present(scores.to_json(), before, clips, out, console)


def _say_list(
    sentences: Any, model: str, encoder: Path | None, seeds: int, device: str, track: Any
) -> list[Any]:
    from voxclone.audio.files import read_recording
    from voxclone.cloning.enroll import enroll
    from voxclone.device import pick_device
    from voxclone.evaluate import protocols
    from voxclone.tts.tts import TTS
    from voxclone.voice.file import Consent

    chosen = pick_device(device)
    release, codec, _ = opened(model, encoder)
    consent = Consent(kind="unstated", statement="made and used at once by `voxclone evaluate`")

    def voice_of(prompt: Path) -> Any:
        recording = read_recording(prompt)
        return enroll(recording, release, codec, name="prompt", consent=consent).voice.rows_ND

    speaker = TTS.load(release, device=chosen)
    return protocols.say_all(
        speaker,
        sentences,
        voice_of,
        seeds=range(seeds),
        track=lambda items: track(items, "speaking"),
    )
