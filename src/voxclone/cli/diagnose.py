"""The command that says whether an encoder is healthy. What is heavy is imported inside."""

from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

from voxclone.cli.common import Device, Encoder, Quiet, open_console
from voxclone.cli.report import present, progress, read_report, side_by_side
from voxclone.cli.tools import Baseline, Model, Out, Seconds, Split, load_listed, opened
from voxclone.errors import EXIT_QUALITY, UsageError


def diagnose(
    model: Model = "mini",
    speech: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Manifest (JSON lines), or a folder with a folder for each speaker."),
    ] = None,
    encoder: Encoder = None,
    split: Split = None,
    seconds: Seconds = 300,
    out: Out = None,
    baseline: Baseline = None,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Leave the language model out (quicker).")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Is an encoder healthy, and if not, of which known illness? Ends with 3 if it is ill."""
    from voxclone.device import pick_device
    from voxclone.evaluate import reconstruction
    from voxclone.evaluate.checks import verdict
    from voxclone.evaluate.diagnosis import SCHEMA
    from voxclone.evaluate.diagnosis import diagnose as measure
    from voxclone.tts.tts import TTS

    if speech is None:
        raise UsageError("Name speech to diagnose on: --speech MANIFEST or --speech FOLDER.")
    before, chosen = read_report(baseline, SCHEMA), pick_device(device)
    console = open_console(quiet)
    release, codec, name = opened(model, encoder)
    track = progress(console)
    found = load_listed(speech, split, seconds, track)
    # The codec is measured on the CPU; what is long is the language model's.
    speaker = None if no_model else TTS.load(release, device=chosen)
    result = measure(release, codec, found, encoder=name, model=speaker, track=track)
    judged = verdict(result)
    report = result.to_json() | {"release": model, "verdict": judged.to_json()}
    heard = reconstruction.VoxtralReconstructor(codec, model).reconstruct
    clips = partial(side_by_side, heard, found, codec.sampling_rate)
    present(report, before, clips, out, console)
    if not judged.healthy:
        raise typer.Exit(EXIT_QUALITY)
