"""How measuring commands print, and the files that they read and write."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxclone.errors import UsageError
from voxclone.release.shards import replacing

if TYPE_CHECKING:
    from rich.console import Console

    from voxclone.codec.model import Codec
    from voxclone.evaluate.page import Heard
    from voxclone.evaluate.speechset import SpeechSet

SHOWN_CLIPS = 4
SHOWN_SECONDS = 6


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
    from voxclone.evaluate.page import page

    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.json": json.dumps(report, indent=1, allow_nan=False),
        "report.html": page(report, clips, before),
    }
    for name, text in texts.items():
        with replacing(folder / name) as file:
            file.write(text.encode())


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


def finish(report: Mapping[str, Any], path: Path | None, console: "Console") -> None:
    """Print every figure with its path, and write all to a file if one is named."""
    for name, text in flatten(report):
        console.print(f"{name:<44} {text}", highlight=False, soft_wrap=True)
    if path is not None:
        with replacing(path) as file:
            file.write(json.dumps(report, indent=1, allow_nan=False).encode())
        console.print(f"Wrote {path}")


def flatten(report: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Dotted names and texts of the figures of a report; an interval is one figure."""
    from voxclone.evaluate.page import show

    if isinstance(report, Mapping) and {"mean", "low", "high"} <= set(report):
        return [(prefix, show(report, "{:.3f}"))]
    if isinstance(report, Mapping):
        inner = [
            (f"{prefix}.{key}" if prefix else str(key), value) for key, value in report.items()
        ]
    elif isinstance(report, list):
        inner = [(f"{prefix}.{index}", value) for index, value in enumerate(report)]
    else:
        value = "not measured" if report is None else report
        return [(prefix, f"{value:.3f}" if isinstance(value, float) else str(value))]
    return [row for name, value in inner for row in flatten(value, name)]
