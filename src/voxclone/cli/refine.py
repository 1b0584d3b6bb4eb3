"""The command that refines the codes of a recording. As in `cli`, what is heavy is imported
inside."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from voxclone.cli.common import (
    Device,
    Encoder,
    Model,
    Quiet,
    Voices,
    check_output,
    choose_voice,
    open_console,
)
from voxclone.cli.enroll import (
    Consenting,
    MostSeconds,
    Recordings,
    ReferenceReport,
    Replace,
    Statement,
    VoiceFile,
    check_options,
    print_voice,
    stored_place,
    write_report,
)
from voxclone.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from voxclone.cloning.options import EnrollOptions
    from voxclone.cloning.refine.settings import RefineSettings
    from voxclone.codec.model import Codec
    from voxclone.release.release import Release
    from voxclone.voice.metadata import Consent
    from voxclone.voice.resolve import ResolvedVoice


def refine(
    recordings: Recordings,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Name of the voice; that of the file of -o if not given."),
    ] = None,
    consent: Consenting = None,
    statement: Statement = None,
    out: VoiceFile = None,
    init: Annotated[
        str,
        typer.Option(help="Start of the codes: encoder, nothing, stored voice, preset or file."),
    ] = "encoder",
    steps: Annotated[int, typer.Option(help="At most so many.")] = 100,
    seed: Annotated[int, typer.Option(help="Same seed, same voice.")] = 0,
    select_by: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Keep the best codes by: gain (by the model; the default if there is an encoder), "
            "or similarity."
        ),
    ] = None,
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="Another setting, such as weights.speaker=0.5."),
    ] = None,
    run: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for checkpoints; none are written if not given."),
    ] = None,
    resume: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="`auto` goes on from the newest checkpoint in the folder of --run."),
    ] = None,
    voices: Voices = None,
    replace: Replace = False,
    model: Model = "mini",
    encoder: Encoder = None,
    without: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Leave out a step of the reference, as in `enroll`. May be repeated."),
    ] = None,
    seconds: MostSeconds = None,
    device: Device = "auto",
    report: ReferenceReport = None,
    quiet: Quiet = False,
) -> None:
    """Optimise the codes of a recording through the decoder, and keep them if they are better."""
    from voxclone.cloning.refine.pipeline import default_metric
    from voxclone.release.release import Release
    from voxclone.voice import store
    from voxclone.voice.file import SUFFIX

    if name is None:
        if out is None:
            raise UsageError("Give the voice a --name, or a file to write with -o.")
        name = out.name.removesuffix(SUFFIX)
    given, options = check_options(
        recordings, name, consent, statement, {"without": without or [], "seconds": seconds}
    )
    _settings(steps, seed, select_by or "gain", overrides or [])  # before anything is opened
    if resume not in (None, "auto"):
        raise UsageError(f"--resume takes `auto`, not {resume!r}.")
    if resume and run is None:
        raise UsageError("--resume needs the folder of the checkpoints: name it with --run.")
    release, console = Release.open(model), open_console(quiet)
    folder = voices if voices is not None else store.default_folder()
    path = out if out is not None else stored_place(folder, name, release)
    for file in [path, *([report] if report else [])]:
        check_output(file)
    if out is None and path.exists() and not replace:
        raise UsageError(
            f"There is a voice {name!r} in {folder} already: choose another name, or --replace it."
        )
    if run is not None:
        _make_folder(run)
    start: ResolvedVoice | str = init
    if init not in ("encoder", "nothing"):
        start = choose_voice(init, release, voices, console)
    codec = _codec(release, encoder, init)
    settings = _settings(steps, seed, select_by or default_metric(codec), overrides or [])
    _refine(
        recordings, release, codec, settings, start, name, given, options, path, run,
        resume == "auto", device, report, console,
    )  # fmt: skip


def _make_folder(run: Path) -> None:
    """Make the folder for checkpoints, before any work is done. Raises UsageError."""
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{run} cannot be the folder for checkpoints ({error.strerror}): name another with "
            "--run."
        ) from None


def _settings(steps: int, seed: int, select_by: str, overrides: list[str]) -> "RefineSettings":
    """What was given on the command line. Raises UsageError."""
    from voxclone.cloning.refine.settings import RefineSettings
    from voxclone.config import load_settings
    from voxclone.errors import ConfigError

    listed = [f"steps={steps}", f"seed={seed}", f"select_by={select_by}", *overrides]
    try:
        return load_settings(RefineSettings, None, listed)
    except ConfigError as error:
        raise UsageError(str(error)) from None


def _codec(release: "Release", encoder: Path | None, init: str) -> "Codec":
    """The codec, with the encoder that there is. Raises ReleaseError for one that cannot be used,
    and if codes are to start from one and there is none."""
    from voxclone.release.encoder_file import open_codec, packaged_encoder
    from voxclone.release.release import load_codec

    needed = init == "encoder" or encoder is not None or release.report.encoder != "withheld"
    if not needed and packaged_encoder(release) is None:
        return load_codec(release)
    return open_codec(release, encoder)


def _refine(
    recordings: list[Path],
    release: "Release",
    codec: "Codec",
    settings: "RefineSettings",
    start: "ResolvedVoice | str",
    name: str,
    consent: "Consent",
    options: "EnrollOptions",
    path: Path,
    run: Path | None,
    resume: bool,
    device: str,
    report: Path | None,
    console: "Console",
) -> None:
    from voxclone.cloning.options import read_for
    from voxclone.cloning.refine.pipeline import refine as make
    from voxclone.device import pick_device

    read = [read_for(recording, options) for recording in recordings]
    with _shown(console, settings.steps) as progress:
        made = make(
            read, release, codec.to(pick_device(device)), name=name, consent=consent, init=start,
            settings=settings, options=options, folder=run, resume=resume, progress=progress,
        )  # fmt: skip
    made.voice.save(path)
    for complaint in made.result.passed_over:
        console.print(f"[yellow]{complaint} Passed over.[/yellow]")
    for each in made.result.evaluations:
        gain = "" if each.gain is None else f"gain {each.gain:.3f} nats a frame, "
        mark = ", kept" if each is made.result.kept else ""
        console.print(
            f"Evaluated  after {each.step} steps: {gain}similarity {each.similarity:.3f}{mark}.",
            highlight=False,
        )
    print_voice(made.voice.metadata, None, console)
    if report is not None:
        write_report(report, made.voice.metadata, path, None)
    console.print(f"{'Wrote':<11}{path}", soft_wrap=True)


@contextmanager
def _shown(console: "Console", steps: int) -> "Iterator[Callable[[int, dict[str, float]], None]]":
    """A progress bar with the time left and the losses, where somebody looks at it."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("Refining"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = console.is_terminal and not console.quiet
    losses = TextColumn("{task.fields[losses]}")
    with Progress(*columns, losses, console=console, disable=not shown) as bar:
        task = bar.add_task("", total=steps, losses="")

        def progress(step: int, values: dict[str, float]) -> None:
            text = " ".join(f"{name} {value:.3g}" for name, value in values.items())
            bar.update(task, completed=step, losses=text)

        yield progress
