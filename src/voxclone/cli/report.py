"""How measuring commands print, and their report files."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxclone.cli.common import print_line
from voxclone.errors import UsageError, printable, shorten
from voxclone.outputs import PAGE, check_folder, report_of

if TYPE_CHECKING:
    from rich.console import Console

    from voxclone.evaluate.progress import Track
    from voxclone.evaluate.report.page import AudioComparison
    from voxclone.evaluate.report.tables import Table


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
    from voxclone.evaluate.report.files import write_report
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
    write_report(report, clips(), out, baseline)
    print_line(console, "Wrote", f"{out / 'report.html'} and {out / 'report.json'}")


def check_report_folder(
    out: Path | None, inputs: "Iterable[Path | str | None]", schema: str
) -> None:
    """Raise UsageError for a folder in which `present` cannot write a report of this schema, or
    which holds a report of another command."""
    if out is not None:
        kind = report_of(schema.partition("/")[0] + "/")
        check_folder(out, inputs, {"report.json": kind, "report.html": PAGE})


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
