"""Tables of a report, as a terminal and a page show them, and comparison with an earlier report.

Two values with intervals *differ* if their intervals do not overlap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Cell:
    """A value of a report and its format, such as "{:.2f}"."""

    value: Any
    form: str = "{:.3f}"

    @property
    def text(self) -> str:
        """The value, with its interval if it has one."""
        if self.value is None:
            return NOT_MEASURED
        if isinstance(self.value, Mapping):
            mean = self.form.format(self.value["mean"])
            if self.value["low"] is None:
                return mean
            low, high = (self.form.format(self.value[key]) for key in ("low", "high"))
            return f"{mean} ({low} to {high})"
        return self.form.format(self.value)


@dataclass(frozen=True)
class Row:
    """A row of a table; `note` explains the value."""

    label: str
    cells: tuple[Cell, ...]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under headings, one for each cell of a row (none for a single column)."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[Row, ...]


def _differ(value: Any, before: Any) -> bool:
    """Whether two values have intervals that do not overlap."""
    if not (isinstance(value, Mapping) and isinstance(before, Mapping)):
        return False
    if value["low"] is None or before["low"] is None:
        return False
    return bool(value["low"] > before["high"] or value["high"] < before["low"])


def compare(table: Table, before: Sequence[Table]) -> tuple[Table, list[list[bool]]]:
    """`table` with a column `before` after each of its own, and which of those cells differ."""
    known = {
        (each.title, row.label, column): cell
        for each in before
        for row in each.rows
        for column, cell in enumerate(row.cells)
    }
    rows, marks = [], []
    for row in table.rows:
        cells: list[Cell] = []
        marked: list[bool] = []
        for column, cell in enumerate(row.cells):
            old = known.get((table.title, row.label, column), Cell(None, cell.form))
            cells += [cell, old]
            marked += [False, _differ(cell.value, old.value)]
        rows.append(Row(row.label, tuple(cells), row.note))
        marks.append(marked)
    headings = tuple(name for each in (table.headings or ("now",)) for name in (each, "before"))
    return Table(table.title, headings, tuple(rows)), marks


def markdown(table: Table) -> str:
    """A table as Markdown, its title above it."""
    width = max((len(row.cells) for row in table.rows), default=0)
    headings = list(table.headings) or [""] * width
    lines = [["", *headings, ""], ["---"] * (width + 2)]
    for row in table.rows:
        cells = [cell.text for cell in row.cells] + [""] * (width - len(row.cells))
        lines.append([row.label, *cells, row.note])
    shown = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([f"**{table.title}**", "", *shown])


def look_up(report: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, or None where it was not measured."""
    value: Any = report
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
