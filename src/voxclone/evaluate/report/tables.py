"""Reports as tables: what a terminal and a page show of the JSON, and how two reports compare.

A cell is a figure of the report with the form to print it in; figures with intervals print them,
and two such figures *differ* where their intervals do not meet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Cell:
    """A figure of a report and its form, such as "{:.2f}"."""

    value: Any
    form: str = "{:.3f}"

    @property
    def text(self) -> str:
        """The figure, with its interval if it has one."""
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
    """A line of a table; `note` says what the figure is."""

    label: str
    cells: tuple[Cell, ...]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under headings, one for each cell of a row (none needed for a single one)."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[Row, ...]


def differs(value: Any, before: Any) -> bool:
    """Whether two figures with intervals are apart beyond them; False for figures without."""
    if not (isinstance(value, Mapping) and isinstance(before, Mapping)):
        return False
    if value["low"] is None or before["low"] is None:
        return False
    return bool(value["low"] > before["high"] or value["high"] < before["low"])


def compared(table: Table, before: Sequence[Table]) -> tuple[Table, list[list[bool]]]:
    """`table` with a column `before` behind each of its own, and which of those cells differ."""
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
            marked += [False, differs(cell.value, old.value)]
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
