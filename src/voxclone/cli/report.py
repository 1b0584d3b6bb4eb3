"""How measuring commands print, and the files that they read and write."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxclone.errors import UsageError
from voxclone.io import atomic_file

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from voxclone.evaluate.report.page import Heard
    from voxclone.evaluate.report.tables import Table
    from voxclone.evaluate.speechset import SpeechSet

SHOWN_CLIPS = 4
SHOWN_SECONDS = 6


def present(
    report: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    clips: "Callable[[], list[Heard]]",
    out: Path | None,
    console: "Console",
) -> None:
    """Print a report, beside an earlier one if there is one, and write report.json and report.html
    to `out`, each complete or not at all. `clips` are made only for the page."""
    from voxclone.evaluate.report.contents import summary_of, tables_of
    from voxclone.evaluate.report.page import page

    earlier = None if before is None else tables_of(before)
    for table in tables_of(report):
        _print_table(table, earlier, console)
    for kind, name in (("unreadable", "Left out"), ("missing", "Missing")):
        for what, why in report.get(kind, {}).items():
            console.print(f"{name:<10} {what}: {why}", highlight=False, soft_wrap=True)
    for finding in report.get("verdict", {}).get("findings", ()):
        console.print(
            f"[bold]{finding['name']}[/bold]: {finding['sentence']} ({finding['figure']}.) "
            f"{finding['remedy']}",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"Verdict    {summary_of(report)[0]}", highlight=False, soft_wrap=True)
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.json": json.dumps(report, indent=1, allow_nan=False),
        "report.html": page(report, clips(), before),
    }
    for name, text in texts.items():
        with atomic_file(out / name) as file:
            file.write(text.encode())
    console.print(f"Wrote      {out / 'report.html'} and {out / 'report.json'}")


def read_report(path: Path | None, schema: str) -> dict[str, Any] | None:
    """A report to compare with. Raises UsageError for anything but one of `schema`."""
    if path is None:
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"The report {path} cannot be read: {error}.") from None
    found = report.get("schema") if isinstance(report, dict) else None
    if found != schema:
        raise UsageError(
            f"{path} is of schema {found!r}; here only {schema!r} can be compared with: "
            "measure again."
        )
    assert isinstance(report, dict)
    return report


def side_by_side(
    reconstruct: "Callable[[Tensor], Tensor]", speech: "SpeechSet", rate: int
) -> "list[Heard]":
    """The first clip of some speakers, and what `reconstruct` makes of it."""
    from voxclone.evaluate.report.page import Heard

    shown = []
    for name, own in list(speech.by_speaker().items())[:SHOWN_CLIPS]:
        wave_S = own[0].wave_S[: SHOWN_SECONDS * rate]
        shown.append(Heard(name, {"recording": wave_S, "decoded": reconstruct(wave_S)}))
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


def _print_table(table: "Table", earlier: "list[Table] | None", console: "Console") -> None:
    from rich.table import Table as RichTable

    from voxclone.evaluate.report.tables import compared

    marks = None
    if earlier is not None:
        table, marks = compared(table, earlier)
    shown = RichTable(box=None, padding=(0, 2, 0, 0), title_justify="left")
    shown.add_column(f"[bold]{table.title}[/bold]", no_wrap=True)
    width = max(len(row.cells) for row in table.rows) if table.rows else 0
    for column in range(width):
        shown.add_column(table.headings[column] if table.headings else "")
    shown.add_column("")
    for number, row in enumerate(table.rows):
        cells = [
            f"[bold red]{cell.text}[/bold red]" if marks and marks[number][column] else cell.text
            for column, cell in enumerate(row.cells)
        ]
        shown.add_row(f"  {row.label}", *cells, f"[dim]{row.note}[/dim]")
    console.print(shown, soft_wrap=False)
