"""How measuring commands print, and their report files."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxclone.cli.common import print_line
from voxclone.errors import UsageError, os_errors, printable, shorten
from voxclone.io import atomic_file
from voxclone.outputs import check_folder

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from voxclone.evaluate.progress import Track
    from voxclone.evaluate.report.page import AudioComparison
    from voxclone.evaluate.report.tables import Table
    from voxclone.evaluate.speechset import SpeechSet

REPORT_FILES = ("report.json", "report.html")
SHOWN_CLIPS = 4
SHOWN_SECONDS = 6


def present(
    report: Mapping[str, Any],
    baseline: Mapping[str, Any] | None,
    clips: "Callable[[], list[AudioComparison]]",
    out: Path | None,
    console: "Console",
) -> None:
    """Print a report, beside a baseline if there is one, and write report.json and report.html to
    the folder `out`, each complete or not at all. `clips` are computed only for the page."""
    from voxclone.evaluate.report.contents import tables_of
    from voxclone.evaluate.report.page import page
    from voxclone.evaluate.report.summaries import summary_of

    earlier = None if baseline is None else tables_of(baseline)
    for table in tables_of(report):
        _print_table(table, earlier, console)
    for kind in ("unreadable", "missing"):
        for name, reason in report.get(kind, {}).items():
            print_line(console, kind.title(), f"{name}: {reason}")
    for check in report.get("checks", {}).get("failed", ()):
        print_failed_check(check, console)
    print_line(console, "Summary", summary_of(report)[0])
    if out is None:
        return
    with os_errors(f"{out} cannot be made"):
        out.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.json": json.dumps(report, indent=1, allow_nan=False),
        "report.html": page(report, clips(), baseline),
    }
    for name, text in texts.items():
        with atomic_file(out / name) as file:
            file.write(text.encode())
    print_line(console, "Wrote", f"{out / 'report.html'} and {out / 'report.json'}")


def check_report_folder(out: Path | None, inputs: "Iterable[Path | str | None]") -> None:
    """Raise UsageError for a folder in which `present` cannot write its files."""
    if out is not None:
        check_folder(out, inputs, REPORT_FILES)


def print_failed_check(check: Mapping[str, Any], console: "Console") -> None:
    """One failed check of a report: name, meaning, measurement and remedy."""
    from rich.text import Text

    words = f": {check['meaning']} ({check['measured']}.) {check['remedy']}"
    console.print(Text.assemble((printable(check["name"]), "bold"), printable(words)))


def read_baseline(path: Path | None, schema: str) -> dict[str, Any] | None:
    """An earlier report of the same schema. Raises UsageError for anything else."""
    from voxclone.readers import read_json

    if path is None:
        return None
    report = read_json(path, UsageError, "The report")
    found = report.get("schema") if isinstance(report, dict) else None
    if found != schema:
        raise UsageError(
            f"{path} has the schema {shorten(repr(found), 60)}, and this command compares only "
            f"{schema!r}: measure the baseline again with this version."
        )
    assert isinstance(report, dict)
    require_values(report, path)
    return report


def require_values(report: Mapping[str, Any], path: Path) -> None:
    """Raise UsageError for a report that lacks values which its tables show."""
    from voxclone.evaluate.report.contents import tables_of
    from voxclone.evaluate.report.summaries import summary_of
    from voxclone.evaluate.report.tables import markdown

    try:
        for table in tables_of(report):
            markdown(table)
        summary_of(report)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UsageError(
            f"The report {path} lacks values ({shorten(repr(error), 100)}): measure again."
        ) from None


def reconstructions(
    reconstruct: "Callable[[Tensor], Tensor]", speech: "SpeechSet", rate: int
) -> "list[AudioComparison]":
    """The first clip of some speakers beside its reconstruction."""
    from voxclone.evaluate.report.page import AudioComparison

    shown = []
    for name, own in list(speech.by_speaker().items())[:SHOWN_CLIPS]:
        wave_S = own[0].wave_S[: SHOWN_SECONDS * rate]
        waves = {"recording": wave_S, "decoded": reconstruct(wave_S)}
        shown.append(AudioComparison(name, waves))
    return shown


def progress(console: "Console") -> "Track":
    """Progress bars on a terminal."""
    from rich.progress import track

    def show(items: Iterable[Any], label: str, /) -> Iterable[Any]:
        return track(
            list(items),
            description=label,
            console=console,
            transient=True,
            disable=console.quiet or not console.is_terminal,
        )

    return show


def _print_table(table: "Table", earlier: "list[Table] | None", console: "Console") -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    from voxclone.evaluate.report.tables import compare

    marks = None
    if earlier is not None:
        table, marks = compare(table, earlier)
    shown = RichTable(box=None, padding=(0, 2, 0, 0), title_justify="left")
    shown.add_column(Text(table.title, "bold"), no_wrap=True)
    width = max(len(row.cells) for row in table.rows) if table.rows else 0
    for column in range(width):
        shown.add_column(table.headings[column] if table.headings else "")
    shown.add_column("")
    for number, row in enumerate(table.rows):
        cells = [
            Text(printable(cell.text), "bold red" if marks and marks[number][column] else "")
            for column, cell in enumerate(row.cells)
        ]
        label, note = Text(f"  {printable(row.label)}"), Text(printable(row.note), "dim")
        shown.add_row(label, *cells, note)
    console.print(shown, soft_wrap=False)
