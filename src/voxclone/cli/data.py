"""Commands for speech to train on. As in `cli`, what is heavy is imported inside them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from voxclone.cli.common import Device, Quiet, open_console
from voxclone.errors import EXIT_QUALITY, UsageError
from voxclone.spec import FRAME_SIZE

if TYPE_CHECKING:
    from rich.console import Console

data_app = typer.Typer(no_args_is_help=True, help="Speech and pairs to train on.")

Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="Override a value of the rules, such as least_snr_db=15."),
]


@data_app.command("prepare")
def prepare(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE... OUT",
            help="Folders of sound files, lhotse's manifests, or manifests of ours; then the "
            "folder to make or to go on with.",
        ),
    ],
    corpus: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="libritts-r, librispeech, commonvoice or vctk, as it was unpacked."),
    ] = None,
    speaker: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Regular expression whose group is the speaker in the path of a sound file; "
            "without it the speaker is its folder."
        ),
    ] = None,
    licence: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Licence of the speech, such as CC-BY-4.0; kept with each clip."),
    ] = None,
    jobs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Processes at a time; one for each core if not given."),
    ] = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Make clean clips at 24 kHz and a manifest of them; goes on where it stopped."""
    import os

    from voxclone.config import load_settings
    from voxclone.data import prepare as work
    from voxclone.data.clean import CleanSettings
    from voxclone.data.recipes import recipe_source
    from voxclone.data.sources import joined, open_source

    if len(places) < 2:
        raise UsageError("Name a source and the folder to make: voxclone data prepare SOURCE OUT.")
    if corpus is not None and speaker is not None:
        raise UsageError("--speaker is for folders; --corpus knows its speakers.")
    *given, out = places
    settings, console = load_settings(CleanSettings, None, overrides or []), open_console(quiet)
    if corpus is None:
        sources = [open_source(path, speaker) for path in given]
    asked = {
        "sources": [str(path.resolve()) for path in given],
        "corpus": corpus,
        "speaker": speaker,
        "licence": licence,
        "settings": settings.model_dump(mode="json"),
    }
    work.begin(out, asked)
    if corpus is not None:
        kept = [out / "lhotse" / str(number) for number, _ in enumerate(given)]
        sources = [recipe_source(corpus, p, k) for p, k in zip(given, kept, strict=True)]
    items = joined(sources)
    total = sum(1 for _ in items())
    with _bar(console, "preparing", total) as progress:
        report = work.prepare(
            items(),
            out,
            settings,
            licence=licence,
            jobs=jobs or os.cpu_count() or 1,
            progress=progress,
        )
    _tell_prepared(report, console)
    console.print(f"Wrote      {out / work.MANIFEST}", soft_wrap=True)


@data_app.command("validate")
def validate(
    manifest: Annotated[Path, typer.Argument(help="Manifest (JSON lines).")],
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Directory, Hub id, or mini: whose frames clips must be as long as."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look for files, without reading their headers.")
    ] = False,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-o", "--out", help="Folder for report.html and report.json."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Is this speech fit to train on? Ends with 3 if it is not."""
    from voxclone.cli.report import present
    from voxclone.data import validate as work
    from voxclone.release.release import Release

    console = open_console(quiet)
    frame_size = FRAME_SIZE
    if model is not None:
        audio = Release.open(model).params.audio
        frame_size = round(audio.sampling_rate / audio.frame_rate)

    def track(rows: Iterable[Any]) -> Iterator[Any]:
        with _bar(console, "validating", None) as progress:
            for row in rows:
                yield row
                progress(1)

    report = work.validate(manifest, frame_size=frame_size, headers=not quick, track=track)
    present(report, None, list, out, console)
    if not report["verdict"]["healthy"]:
        raise typer.Exit(EXIT_QUALITY)


@data_app.command("pairs")
def pairs(
    model: Annotated[str, typer.Argument(help="Directory, Hub id, or mini.")],
    out: Annotated[Path, typer.Argument(help="Folder to make or to go on with.")],
    minutes: Annotated[float, typer.Option(help="How much speech there is to be in the end.")],
    texts: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="What to say, a sentence a line; packaged English ones if not given."),
    ] = None,
    part: Annotated[
        str, typer.Option(help="This process makes file K of every N: K/N, from 0/1.")
    ] = "0/1",
    device: Device = "auto",
    overrides: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Let a release speak with its presets, and store the codes; goes on where it stopped."""

    from voxclone.config import load_settings
    from voxclone.data.pairs import TEXTS, PairSettings, PairShare, read_texts, speak_pairs
    from voxclone.device import pick_device
    from voxclone.release.release import Release
    from voxclone.tts.tts import TTS

    console = open_console(quiet)
    share = PairShare(*_part(part))
    settings = load_settings(PairSettings, None, [*(overrides or []), f"minutes={minutes}"])
    said, release, chosen = read_texts(texts or TEXTS), Release.open(model), pick_device(device)
    speaker = TTS.load(release, device=chosen)
    wanted = minutes / share.of
    with _bar(console, "speaking", wanted, "{task.completed:.1f} of {task.total:.1f} min") as add:
        before = 0.0

        def progress(done: float) -> None:
            nonlocal before
            add(done - before)
            before = done

        made = speak_pairs(release, speaker, said, settings, out, share=share, progress=progress)
    frames = sum(codes.shape[1] for codes in made)
    console.print(
        f"Pairs      {len(made)} utterances, {frames / release.params.audio.frame_rate / 60:.1f} "
        f"min of codes in {out}: train with --set pairs.folder={out}",
        soft_wrap=True,
    )


def _part(text: str) -> tuple[int, int]:
    number, separator, of = text.partition("/")
    if not (separator and number.isdigit() and of.isdigit() and int(number) < int(of)):
        raise UsageError(f"--part takes K/N with K below N, such as 0/4, not {text!r}.")
    return int(number), int(of)


def _tell_prepared(report: dict[str, Any], console: "Console") -> None:
    console.print(
        f"Kept       {report['clips']:,} clips of {report['speakers']:,} speakers, "
        f"{report['hours']:.2f} h."
    )
    narrow = report["narrow"]
    if narrow["clips"]:
        console.print(
            f"[yellow]Narrow     {narrow['clips']:,} of them ({narrow['hours']:.2f} h) end below "
            "11 kHz: flagged `narrow`.[/yellow]"
        )
    for rule, entry in report["dropped"].items():
        console.print(
            f"Dropped    {entry['clips']:,} {rule}, such as: {entry['first'][0]}",
            highlight=False,
            soft_wrap=True,
        )


@contextmanager
def _bar(
    console: "Console",
    what: str,
    total: float | None,
    form: str = "{task.completed:,.0f} clips",
) -> Iterator[Callable[[float], None]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), TextColumn(form), TimeRemainingColumn())
    shown = console.is_terminal and not console.quiet
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.advance(task, done)
