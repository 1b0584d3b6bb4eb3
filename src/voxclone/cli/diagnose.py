"""`voxclone diagnose`. Heavy modules are imported inside the command."""

from functools import partial
from typing import Annotated

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
from voxclone.cli.tools import (
    Baseline,
    Out,
    Speech,
    SpeechSeconds,
    Split,
    open_encoder,
)
from voxclone.errors import EXIT_QUALITY


def diagnose(
    speech: Speech,
    model: Model = "mini",
    encoder: Encoder = None,
    adapter: UseAdapter = None,
    split: Split = None,
    speech_seconds: SpeechSeconds = 300,
    no_lm: Annotated[
        bool, typer.Option("--no-lm", help="Skip the language model (quicker).")
    ] = False,
    out: Out = None,
    baseline: Baseline = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Check an encoder for its known failures. Exit code 3: a check failed."""
    from voxclone.device import pick_device
    from voxclone.evaluate.checks import checked_diagnosis
    from voxclone.evaluate.diagnosis import SCHEMA
    from voxclone.evaluate.reconstruction import VoxtralReconstructor
    from voxclone.evaluate.report.files import reconstructions
    from voxclone.evaluate.speechset import open_speech
    from voxclone.tts.tts import TTS

    check_report_folder(out, [speech, encoder, baseline, model], SCHEMA)
    before, torch_device = read_baseline(baseline, SCHEMA), pick_device(device)
    console = open_console(quiet)
    track = progress(console)
    release, codec, name = open_encoder(model, encoder)
    found = open_speech(speech, split, speech_seconds, track)
    # The codec is measured on the CPU; the language model takes most of the time.
    tts = None if no_lm else TTS.load(release, device=torch_device, adapter=adapter)
    if tts is not None:
        tts.require_encoder(codec.encoder_hash())
        print_adapter_notes(tts.adapter, None, console)
    report = checked_diagnosis(
        release, codec, found, names=(model, name), model=tts, track=track
    )  # fmt: skip
    reconstruct = VoxtralReconstructor(codec, model).reconstruct
    clips = partial(reconstructions, reconstruct, found, codec.sampling_rate)
    present(report, before, clips, out, console)
    if not report["checks"]["passed"]:
        raise typer.Exit(EXIT_QUALITY)
