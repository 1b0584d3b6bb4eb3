"""Commands that measure. As in `cli`, what is heavy is imported inside them."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from voxclone.errors import EXIT_QUALITY, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from voxclone.codec.model import Codec
    from voxclone.evaluate.page import Heard
    from voxclone.evaluate.speechset import SpeechSet

SHOWN_CLIPS = 4
SHOWN_SECONDS = 6


def diagnose(
    model: Annotated[str, typer.Argument(help="Directory, Hub id, or mini.")] = "mini",
    speech: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Manifest (JSON lines), or a folder with a sub-folder for each speaker."),
    ] = None,
    encoder: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--encoder", help="Encoder file, where the release has none."),
    ] = None,
    split: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Only clips of this split of the manifest."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="About how much speech, speakers in turn.")] = 300,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-o", "--out", help="Folder for report.html and report.json."),
    ] = None,
    baseline: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="report.json to compare with."),
    ] = None,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Leave the language model out (quicker).")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Is an encoder healthy, and if not, of which known illness? Ends with 3 if it is ill."""
    from rich.console import Console

    from voxclone.evaluate.diagnosis import diagnose as measure
    from voxclone.evaluate.illnesses import verdict
    from voxclone.evaluate.speechset import choose, list_clips, load_speech
    from voxclone.release.archive import Release
    from voxclone.release.encoders import open_codec
    from voxclone.speech.speaker import Speaker

    if speech is None:
        raise UsageError("Name speech to diagnose on: --speech MANIFEST or --speech FOLDER.")
    before = None if baseline is None else read_report(baseline)
    console = Console(quiet=quiet)
    release = Release.open(model)
    codec = open_codec(release, encoder)
    clips = [clip for clip in list_clips(speech) if split in (None, clip.split)]
    if not clips:
        raise UsageError(f"{speech} has no clip of the split {split!r}.")
    track = progress(console)
    found = load_speech(choose(clips, seconds), lambda items: track(items, "reading"))
    speaker = None if no_model else Speaker.load(release, codec=codec)
    name = "the release's own" if encoder is None else str(encoder)
    result = measure(release, codec, found, encoder=name, model=speaker, track=track)
    judged = verdict(result)
    report = result.to_json() | {"verdict": judged.to_json()}
    print_report(report, before, console)
    if out is not None:
        write_report(report, before, heard(codec, found), out)
        console.print(f"Wrote      {out / 'report.html'} and {out / 'report.json'}")
    if not judged.healthy:
        raise typer.Exit(EXIT_QUALITY)


def print_report(
    report: Mapping[str, Any], before: Mapping[str, Any] | None, console: "Console"
) -> None:
    """Verdict, findings and figures on a terminal."""
    from rich.table import Table

    from voxclone.evaluate.page import FIGURES, look_up, show

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "now", *(("before",) if before is not None else ()), ""):
        table.add_column(heading)
    group = ""
    for figure in FIGURES:
        if figure.group != group:
            group = figure.group
            table.add_row(f"[bold]{group}[/bold]")
        values = [report] if before is None else [report, before]
        cells = [show(look_up(each, figure.path), figure.form) for each in values]
        table.add_row(f"  {figure.label}", *cells, f"[dim]{figure.note}[/dim]")
    console.print(table)
    for name, why in report["unreadable"].items():
        console.print(f"Left out   {name}: {why}", highlight=False, soft_wrap=True)
    for name, why in report["missing"].items():
        console.print(f"Missing    {name}: {why}", highlight=False, soft_wrap=True)
    for finding in report["verdict"]["findings"]:
        console.print(
            f"[bold]{finding['name']}[/bold]: {finding['sentence']} ({finding['figure']}.) "
            f"{finding['remedy']}",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"Verdict    {report['verdict']['summary']}", highlight=False, soft_wrap=True)


def read_report(path: Path) -> dict[str, Any]:
    """A report to compare with. Raises UsageError for anything else."""
    from voxclone.evaluate.diagnosis import SCHEMA

    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"The report {path} cannot be read: {error}.") from None
    schema = report.get("schema") if isinstance(report, dict) else None
    if schema != SCHEMA:
        raise UsageError(
            f"{path} is of schema {schema!r}; this version compares {SCHEMA!r}: diagnose again."
        )
    assert isinstance(report, dict)
    return report


def write_report(
    report: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    clips: "list[Heard]",
    folder: Path,
) -> None:
    """report.json and report.html, each complete or not at all."""
    import os

    from voxclone.evaluate.page import page

    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.json": json.dumps(report, indent=1, allow_nan=False),
        "report.html": page(report, clips, before),
    }
    for name, text in texts.items():
        temporary = folder / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, folder / name)


def heard(codec: "Codec", speech: "SpeechSet") -> "list[Heard]":
    """The first clip of some speakers, and what the codec makes of it."""
    import torch

    from voxclone.evaluate.page import Heard

    shown = []
    for name, own in list(speech.by_speaker().items())[:SHOWN_CLIPS]:
        wave_S = own[0].wave_S[: SHOWN_SECONDS * codec.sampling_rate]
        with torch.inference_mode():
            decoded_S = codec.decode(codec.encode(wave_S[None]))[0][: len(wave_S)]
        shown.append(Heard(name, wave_S, decoded_S))
    return shown


def progress(console: "Console") -> Callable[[Iterable[Any], str], Iterable[Any]]:
    """Progress bars, where somebody looks."""
    from rich.progress import track

    def show(items: Iterable[Any], what: str) -> Iterable[Any]:
        return track(
            list(items),
            description=what,
            console=console,
            transient=True,
            disable=console.quiet or not console.is_terminal,
        )

    return show
