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
    stored_place,
    tell_voice,
    write_report,
)
from voxclone.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from voxclone.cloning.options import EnrolOptions
    from voxclone.cloning.refine.settings import RefineSettings
    from voxclone.codec.model import Codec
    from voxclone.release.release import Release
    from voxclone.voice.facts import Consent
    from voxclone.voice.resolve import Chosen


def refine(
    recordings: Recordings,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Name of the voice; that of the file of -o if not given."),
    ] = None,
    consent: Consenting = None,
    statement: Statement = None,
    out: VoiceFile = None,
    origin: Annotated[
        str,
        typer.Option(
            "--from", help="Where codes start: encoder, nothing, or a stored voice, preset or file."
        ),
    ] = "encoder",
    steps: Annotated[int, typer.Option(help="At most so many.")] = 100,
    seed: Annotated[int, typer.Option(help="Same seed, same voice.")] = 0,
    judge: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="What is kept is better by this: gain (by the model; needs an encoder, and is "
            "usual where there is one) or likeness."
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
    from voxclone.cloning.refine.make import usual_judge
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
    _settings(steps, seed, judge or "gain", overrides or [])  # before anything is opened
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
    start: Chosen | str = origin
    if origin not in ("encoder", "nothing"):
        start = choose_voice(origin, release, voices, console)
    codec = _codec(release, encoder, origin)
    settings = _settings(steps, seed, judge or usual_judge(codec), overrides or [])
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


def _settings(steps: int, seed: int, judge: str, overrides: list[str]) -> "RefineSettings":
    """What was given on the command line. Raises UsageError."""
    from voxclone.cloning.refine.settings import RefineSettings
    from voxclone.config import load_settings
    from voxclone.errors import ConfigError

    listed = [f"steps={steps}", f"seed={seed}", f"judge={judge}", *overrides]
    try:
        return load_settings(RefineSettings, None, listed)
    except ConfigError as error:
        raise UsageError(str(error)) from None


def _codec(release: "Release", encoder: Path | None, origin: str) -> "Codec":
    """The codec, with the encoder that there is. Raises ReleaseError for one that cannot be used,
    and if codes are to start from one and there is none."""
    from voxclone.release.encoder_file import open_codec, packaged_encoder
    from voxclone.release.release import load_codec

    needed = origin == "encoder" or encoder is not None or release.report.encoder != "withheld"
    if not needed and packaged_encoder(release) is None:
        return load_codec(release)
    return open_codec(release, encoder)


def _refine(
    recordings: list[Path],
    release: "Release",
    codec: "Codec",
    settings: "RefineSettings",
    start: "Chosen | str",
    name: str,
    consent: "Consent",
    options: "EnrolOptions",
    path: Path,
    run: Path | None,
    resume: bool,
    device: str,
    report: Path | None,
    console: "Console",
) -> None:
    from voxclone.cloning.options import read_for
    from voxclone.cloning.refine.make import refine as make
    from voxclone.device import pick_device
    from voxclone.voice.file import save_voice

    read = [read_for(recording, options) for recording in recordings]
    with _shown(console, settings.steps) as progress:
        made = make(
            read, release, codec.to(pick_device(device)), name=name, consent=consent, origin=start,
            settings=settings, options=options, folder=run, resume=resume, progress=progress,
        )  # fmt: skip
    save_voice(made.voice, path)
    for complaint in made.refined.passed_over:
        console.print(f"[yellow]{complaint} Passed over.[/yellow]")
    for each in made.refined.judged:
        gain = "" if each.gain is None else f"gain {each.gain:.3f} nats a frame, "
        mark = ", kept" if each is made.refined.kept else ""
        console.print(
            f"Judged     after {each.step} steps: {gain}likeness {each.likeness:.3f}{mark}.",
            highlight=False,
        )
    tell_voice(made.voice.facts, None, console)
    if report is not None:
        write_report(report, made.voice.facts, path, None)
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
    figures = TextColumn("{task.fields[figures]}")
    with Progress(*columns, figures, console=console, disable=not shown) as bar:
        task = bar.add_task("", total=steps, figures="")

        def progress(step: int, told: dict[str, float]) -> None:
            figures = " ".join(f"{name} {value:.3g}" for name, value in told.items())
            bar.update(task, completed=step, figures=figures)

        yield progress
