"""`voxclone data`: make and check what an encoder is trained on."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxclone.cli.common import (
    Device,
    Model,
    Overrides,
    Quiet,
    open_console,
    print_line,
    progress_bar,
)
from voxclone.cli.tools import Out
from voxclone.errors import EXIT_QUALITY, UsageError
from voxclone.outputs import check_folder, refuse_inputs

if TYPE_CHECKING:
    from rich.console import Console

data_app = typer.Typer(no_args_is_help=True, help="Prepare and check speech and pairs to train on.")

ShardOption = Annotated[
    str,
    typer.Option(
        "--shard", metavar="I/N",
        help="Machine I of N (0 first) that fill one folder; `data merge` ends it.",
    ),
]  # fmt: skip
Folder = Annotated[Path, typer.Option("-o", "--out", help="Folder to make, or to continue.")]


@data_app.command("prepare")
def prepare(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Folders of sound files, lhotse's manifests, or our manifests."),
    ],
    out: Folder,
    corpus: Annotated[
        str | None,
        typer.Option(help="libritts-r, librispeech, commonvoice or vctk, as it was unpacked."),
    ] = None,
    speaker_pattern: Annotated[
        str | None,
        typer.Option(
            help="Regular expression whose group is the speaker in a sound file's path. "
            "By default, the speaker is its folder."
        ),
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="License of the speech, such as CC-BY-4.0.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of processes; by default one for each core.")
    ] = None,
    shard: ShardOption = "0/1",
    overrides: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Make clean clips at 24 kHz and a manifest of them; continue after an interruption."""
    import os

    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    from voxclone.config import load_settings
    from voxclone.data import prepare as preparation
    from voxclone.data.clean import CleanSettings
    from voxclone.data.prepare_report import MANIFEST
    from voxclone.data.shards import parse_shard
    from voxclone.data.sources import unread_files

    if corpus is not None and speaker_pattern is not None:
        raise UsageError("--speaker-pattern is for folders; --corpus knows its speakers.")
    check_folder(out)
    refuse_inputs(out, sources)
    own = parse_shard(shard)
    settings, console = load_settings(CleanSettings, None, overrides or []), open_console(quiet)
    columns = (TextColumn("Preparing"), BarColumn(), TextColumn("{task.completed:,.0f} clips"))
    with progress_bar(console, *columns, TimeRemainingColumn()) as update:
        report = preparation.prepare_sources(
            preparation.Sources(tuple(sources), corpus, speaker_pattern, license),
            out,
            settings,
            jobs=jobs or os.cpu_count() or 1,
            shard=own if own.count > 1 else None,
            progress=lambda done, total: update(advance=done, total=total),
        )
    if report is None:
        print_line(console, "Ended", f"shard {shard}: when all have, `voxclone data merge {out}`.")
        return
    _print_prepared(report, console)
    if corpus is None:
        _print_unread(sum(map(unread_files, sources), Counter()), console)
    print_line(console, "Wrote", out / MANIFEST)


@data_app.command("validate")
def validate(
    manifest: Annotated[Path, typer.Argument(help="Manifest (JSON lines).")],
    model: Annotated[
        str | None, typer.Option(help="Release that sets the shortest clip: one of its frames.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look for files, without reading their headers.")
    ] = False,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Check whether speech is fit to train on. Exit code 3: it is not."""
    from rich.progress import BarColumn, TextColumn

    from voxclone.cli.report import check_report_folder, present
    from voxclone.data import validate as validation
    from voxclone.release.release import Release
    from voxclone.spec import FRAME_SIZE

    console, frame_size = open_console(quiet), FRAME_SIZE
    check_report_folder(out, [manifest, model], validation.SCHEMA)
    if model is not None:
        audio = Release.open(model).params.audio
        frame_size = round(audio.sampling_rate / audio.frame_rate)
    columns = (TextColumn("Validating"), BarColumn(), TextColumn("{task.completed:,.0f} clips"))

    def track(rows: Iterable[Any]) -> Iterator[Any]:
        with progress_bar(console, *columns) as update:
            for row in rows:
                yield row
                update(advance=1)

    report = validation.validate(manifest, frame_size=frame_size, headers=not quick, track=track)
    present(report, None, list, out, console)
    if not report["checks"]["passed"]:
        raise typer.Exit(EXIT_QUALITY)


@data_app.command("pairs")
def pairs(
    out: Folder,
    minutes: Annotated[
        float, typer.Option(min=0.01, max=1e6, help="Minutes of speech in the folder at the end.")
    ],
    model: Model = "mini",
    texts: Annotated[
        Path | None,
        typer.Option(help="Sentences to speak, one a line; by default packaged English ones."),
    ] = None,
    shard: ShardOption = "0/1",
    device: Device = "auto",
    overrides: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Generate speech with the presets of a release, and store its codes; continue after an
    interruption."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    from voxclone.config import load_settings
    from voxclone.data.pairs import TEXTS, PairSettings, read_texts, speak_pairs
    from voxclone.data.shards import parse_shard
    from voxclone.device import pick_device
    from voxclone.release.release import Release
    from voxclone.tts.tts import TTS

    check_folder(out, [texts, model])
    console, own = open_console(quiet), parse_shard(shard)
    settings = load_settings(PairSettings, None, overrides or [])
    sentences, release = read_texts(texts or TEXTS), Release.open(model)
    tts = TTS.load(release, device=pick_device(device))
    amount = TextColumn("{task.completed:.1f} of {task.total:.1f} min")
    columns = (TextColumn("Speaking"), BarColumn(), amount, TimeRemainingColumn())
    with progress_bar(console, *columns, total=minutes / own.count) as update:
        made = speak_pairs(
            release, tts, sentences, settings, minutes, out,
            shard=own, progress=lambda done: update(completed=done),
        )  # fmt: skip
    frames = sum(codes.shape[1] for codes in made)
    found = frames / release.params.audio.frame_rate / 60
    print_line(
        console, "Pairs",
        f"{len(made)} utterances, {found:.1f} min of codes in {out}: train with "
        f"--set pairs.folder={out}",
    )  # fmt: skip


@data_app.command("merge")
def merge(
    folder: Annotated[Path, typer.Argument(help="Folder that shards of prepare or pairs filled.")],
    quiet: Quiet = False,
) -> None:
    """Join the results of all shards, when all have ended."""
    from voxclone.data import prepare as preparation
    from voxclone.data.pairs import FACTS, merge_pairs
    from voxclone.data.prepare_report import MANIFEST

    console = open_console(quiet)
    if (folder / FACTS).exists():
        files, frames = merge_pairs(folder)
        made = f"{files} files, {frames:,} frames of codes in {folder}."
        print_line(console, "Pairs", made)
        return
    _print_prepared(preparation.merge(folder), console)
    print_line(console, "Wrote", folder / MANIFEST)


def _print_unread(unread: "Counter[str]", console: "Console") -> None:
    if unread:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in unread.most_common(8))
        sentence = f"{unread.total():,} files, not named as sounds: {kinds}."
        print_line(console, "Not read", sentence, warning=True)


def _print_prepared(report: dict[str, Any], console: "Console") -> None:
    amount = f"{report['clips']:,} clips of {report['speakers']:,} speakers"
    print_line(console, "Kept", f"{amount}, {report['hours']:.2f} h.")
    clips, hours = report["narrow"]["clips"], report["narrow"]["hours"]
    if clips:
        sentence = f"{clips:,} of them ({hours:.2f} h) end below 11 kHz: flagged `narrow`."
        print_line(console, "Narrow", sentence, warning=True)
    for rule, entry in report["dropped"].items():
        sentence = f"{entry['clips']:,} {rule}, such as: {entry['examples'][0]}"
        print_line(console, "Dropped", sentence)
