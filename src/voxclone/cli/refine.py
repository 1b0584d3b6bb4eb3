"""`voxclone refine`: optimize the codes of a recording through the frozen decoder."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxclone.cli.common import (
    Device,
    Encoder,
    Model,
    Overrides,
    Quiet,
    Voices,
    choose_voice,
    open_console,
    open_release,
    print_line,
    progress_bar,
    voices_folder,
)
from voxclone.cli.enroll import (
    ConsentKind,
    MaxSeconds,
    Recordings,
    Replace,
    ReportFile,
    Statement,
    VoiceFile,
    Without,
    check_options,
    print_voice,
    voice_path,
    write_report,
)
from voxclone.errors import UsageError, os_errors
from voxclone.outputs import check_folder
from voxclone.tts.limits import MAX_SEED

if TYPE_CHECKING:
    from rich.console import Console

    from voxclone.cloning.refine.settings import RefineSettings
    from voxclone.codec.model import Codec
    from voxclone.release.release import Release
    from voxclone.voice.resolve import ResolvedVoice


def refine(
    recordings: Recordings,
    name: Annotated[
        str | None, typer.Option(help="Name of the voice; by default that of the file of -o.")
    ] = None,
    consent: ConsentKind = None,
    statement: Statement = None,
    out: VoiceFile = None,
    init: Annotated[
        str,
        typer.Option(help="Initial codes: encoder, nothing, or a stored voice, preset or file."),
    ] = "encoder",
    steps: Annotated[int, typer.Option(min=0, help="Largest number of steps.")] = 100,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the random numbers.")] = 0,
    select_by: Annotated[
        str | None,
        typer.Option(
            help="Metric of the codes to keep: gain by the model (needs an encoder, and is the "
            "default with one), or similarity."
        ),
    ] = None,
    overrides: Overrides = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints; by default none are written.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest checkpoint in that folder.")
    ] = False,
    voices: Voices = None,
    replace: Replace = False,
    model: Model = "mini",
    encoder: Encoder = None,
    without: Without = None,
    max_seconds: MaxSeconds = None,
    device: Device = "auto",
    report: ReportFile = None,
    quiet: Quiet = False,
) -> None:
    """Optimize the codes of a recording through the decoder, and keep the best ones."""
    from voxclone.cloning.options import read_for
    from voxclone.cloning.refine.pipeline import default_metric
    from voxclone.cloning.refine.pipeline import refine as make
    from voxclone.device import pick_device
    from voxclone.voice.file import SUFFIX

    if name is None:
        if out is None:
            raise UsageError("Give the voice a --name, or a file to write with -o.")
        name = out.name.removesuffix(SUFFIX)
    values = {"without": without or [], "seconds": max_seconds}
    given, options = check_options(recordings, name, consent, statement, values)
    _settings(steps, seed, select_by or "gain", overrides or [])  # before anything is opened
    if resume and checkpoints is None:
        raise UsageError("--resume needs the folder of the checkpoints: add --checkpoints.")
    release, console = open_release(model), open_console(quiet)
    folder = voices_folder(voices)
    start_file = Path(init) if os.path.isfile(init) else None
    inputs = [*recordings, encoder, start_file, release.path]
    path = voice_path(out, folder, name, release, report, inputs)
    if out is None and path.exists() and not replace:
        raise UsageError(
            f"There is a voice {name!r} in {folder} already: choose another name, or --replace it."
        )
    if checkpoints is not None:
        _make_folder(checkpoints)
    start: ResolvedVoice | str = init
    if init not in ("encoder", "nothing"):
        start = choose_voice(init, release, voices, console)
    codec = _codec(release, encoder, init)
    settings = _settings(steps, seed, select_by or default_metric(codec), overrides or [])
    read = [read_for(recording, options) for recording in recordings]
    with _progress(console, settings.steps) as progress:
        made = make(
            read, release, codec.to(pick_device(device)), name=name, consent=given, init=start,
            settings=settings, options=options, folder=checkpoints, resume=resume,
            progress=progress,
        )  # fmt: skip
    made.voice.save(path, new=out is None and not replace)
    for complaint in made.result.passed_over:
        print_line(console, "Skipped", complaint, warning=True)
    for each in made.result.evaluations:
        gain = "" if each.gain is None else f"gain {each.gain:.3f} nats a frame, "
        kept = ", kept" if each is made.result.kept else ""
        sentence = f"after {each.step} steps: {gain}similarity {each.similarity:.3f}{kept}."
        print_line(console, "Evaluated", sentence)
    print_voice(made.voice.metadata, None, console)
    if report is not None:
        write_report(report, made.voice.metadata, path, None)
    print_line(console, "Wrote", path)


def _make_folder(folder: Path) -> None:
    """Make the folder for checkpoints, before any work. Raises UsageError."""
    try:
        check_folder(folder)
    except UsageError as error:
        raise UsageError(f"--checkpoints: {error}") from None
    with os_errors(f"{folder} cannot be the folder of --checkpoints", UsageError):
        folder.mkdir(parents=True, exist_ok=True)


def _settings(steps: int, seed: int, select_by: str, overrides: list[str]) -> "RefineSettings":
    """The settings of the options. Raises UsageError."""
    from voxclone.cloning.refine.settings import RefineSettings
    from voxclone.config import load_settings
    from voxclone.errors import ConfigError

    listed = [f"steps={steps}", f"seed={seed}", f"select_by={select_by}", *overrides]
    try:
        return load_settings(RefineSettings, None, listed)
    except ConfigError as error:
        raise UsageError(str(error)) from None


def _codec(release: "Release", encoder: Path | None, init: str) -> "Codec":
    """The codec, with an encoder if there is one. Raises ReleaseError for a bad encoder, and if
    codes are to start from one and there is none."""
    from voxclone.release.encoder_file import open_codec, packaged_encoder
    from voxclone.release.release import load_codec

    needed = init == "encoder" or encoder is not None or release.report.encoder != "withheld"
    if not needed and packaged_encoder(release) is None:
        return load_codec(release)
    return open_codec(release, encoder)


@contextmanager
def _progress(
    console: "Console", steps: int
) -> "Iterator[Callable[[int, dict[str, float]], None]]":
    """A progress bar with the remaining time and the losses."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Refining"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    losses_column = TextColumn("{task.fields[losses]}", markup=False)
    with progress_bar(console, *columns, losses_column, total=steps, losses="") as update:

        def progress(step: int, losses: dict[str, float]) -> None:
            text = " ".join(f"{name} {value:.3g}" for name, value in losses.items())
            update(completed=step, losses=text)

        yield progress
