"""Tables and summary of the report on a speech manifest (`data validate`)."""

from collections.abc import Mapping
from typing import Any

from voxclone.evaluate.report.tables import Cell, Row, Table


def manifest_tables(report: Mapping[str, Any]) -> list[Table]:
    """Amounts, composition and faults."""
    each = report["clips_per_speaker"]
    amounts = (
        Row("clips", (Cell(report["clips"], "{:,}"),)),
        Row("hours", (Cell(report["hours"], "{:.2f}"),)),
        Row("speakers", (Cell(report["speakers"], "{:,}"),)),
        Row("clips per speaker", (Cell(each["median"], "{:g}"),), _range(each)),
        Row("speakers with one clip", (Cell(report["speakers_with_one_clip"], "{:,}"),)),
        Row("clips without text", (Cell(report["without_text"], "{:,}"),)),
    )
    splits = tuple(
        Row(name, tuple(Cell(s[k], f) for k, f in SPLIT.items()))
        for name, s in report["splits"].items()
    )
    shares = [
        *_rows("language", report["hours_by_language"], "{:.2f}", "h"),
        *_rows("license", report["hours_by_license"], "{:.2f}", "h"),
        *_rows("rate", report["rates"], "{:,}", "clips"),
        *_rows("band ends", report["bands"], "{:,}", "clips"),
    ]
    faults = tuple(
        Row(kind, (Cell(fault["clips"], "{:,}"),), f"such as {fault['examples'][0]}")
        for kind, fault in report["faults"].items()
    )
    tables = [
        Table("Speech", (), amounts),
        Table("Splits", tuple(SPLIT), splits),
        Table("Composition", (), tuple(shares)),
    ]
    return [*tables, Table("Faults", (), faults)] if faults else tables


def manifest_summary(report: Mapping[str, Any]) -> list[str]:
    """Whether one can train on it, and the amount of speech."""
    amount = (
        f"{report['clips']:,} clips of {report['speakers']:,} speakers, {report['hours']:.2f} h "
        f"({report['manifest']})."
    )
    blocking = [each["name"] for each in report["checks"]["failed"] if each["blocking"]]
    if blocking:
        return [f"Not usable for training: {', '.join(blocking)}.", amount]
    return ["Usable for training.", amount]


SPLIT = {"clips": "{:,}", "hours": "{:.2f}", "speakers": "{:,}"}


def _rows(what: str, values: Mapping[str, Any], form: str, unit: str) -> list[Row]:
    return [Row(f"{what}: {name}", (Cell(value, form),), unit) for name, value in values.items()]


def _range(each: Mapping[str, Any]) -> str:
    return f"median; {each['least']:,} to {each['most']:,}"
