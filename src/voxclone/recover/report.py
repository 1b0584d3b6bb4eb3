"""RUN/report/index.html: verdict, plots, players, and what to do next, in one file."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from voxclone.audio.files import read_wave
from voxclone.errors import os_errors
from voxclone.evaluate.report.page import AudioComparison, clips_html, document, table_html
from voxclone.evaluate.report.tables import Cell, Row, Table, look_up
from voxclone.io import atomic_file
from voxclone.readers import read_json
from voxclone.recover.measuring import AUDIO
from voxclone.recover.plan import duration
from voxclone.recover.stages import REPORT, Done
from voxclone.recover.verdict import Verdict

FOLDER, PAGE = "report", "index.html"


def write_page(
    run: Path, verdict: Verdict, results: Mapping[str, Done], seconds: Mapping[str, float]
) -> Path:
    """Write the page of a run, complete or not at all; returns its path."""
    path = run / FOLDER / PAGE
    steps = "".join(f"<li>{html.escape(step)}</li>" for step in verdict.steps)
    state = {None: "", True: "passed", False: "failed"}[verdict.passed]
    body = (
        f'<header class="{state}"><p>Recovery of an encoder</p>'
        f"<h1>{html.escape(verdict.headline)}</h1></header>"
        f"<h2>What to do next</h2><ul>{steps}</ul>"
        + "".join(table_html(table) for table in _tables(results, seconds))
        + "".join(clips_html(each) for each in _players(results))
        + _reports(run, results)
    )
    with os_errors(f"{path} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(document("Recovery of an encoder", body).encode())
    return path


def _tables(results: Mapping[str, Done], seconds: Mapping[str, float]) -> list[Table]:
    rows = []
    for stage, done in results.items():
        result = done.result
        note = result.failed or result.skipped or ""
        state = "failed" if result.failed else "nothing to do" if result.skipped else "done"
        rows.append(Row(stage, (Cell(state, "{}"), Cell(duration(seconds[stage]), "{}")), note))
    stages = Table("Stages", ("", "time"), tuple(rows))
    return [stages, *_clones(results), *_codes(results)]


def _clones(results: Mapping[str, Done]) -> list[Table]:
    """Clones of test speakers beside the presets."""
    done = results.get("evaluate")
    if done is None or "scores" not in done.result.values:
        return []
    columns = [done.result.values[name] for name in ("scores", "presets")]
    rows = [
        Row(
            f"{name}, {label}",
            tuple(Cell(look_up(each, f"similarity.{name}.{kind}")) for each in columns),
        )
        for name in columns[0]["similarity"]
        for kind, label in SIMILARITY
    ]
    for label, key in (("CER", "cer"), ("WER", "wer")):
        rows += [
            Row(f"{label}, {name}", tuple(Cell(look_up(each, f"{key}.{name}")) for each in columns))
            for name in columns[0][key]
        ]
    rows += [
        Row(label, tuple(Cell(look_up(each, key), form) for each in columns))
        for label, key, form in SPEECH
    ]
    title = f"Clones after {columns[0]['seconds']:g} s of reference, and the presets"
    return [Table(title, ("clones", "presets"), tuple(rows))]


def _codes(results: Mapping[str, Done]) -> list[Table]:
    """The encoder's codes beside those of the presets."""
    done = results.get("diagnose")
    if done is None or not done.result.files:
        return []
    report = read_json(done.folder / REPORT)
    levels, trip = report["levels"], report["round_trip"]
    rows = [
        Row("semantic codes right on presets", (Cell(trip["presets"]["semantic"], "{:.1%}"),
            Cell(trip["presets_by_chance"]["semantic"], "{:.1%}"))),
        Row("levels within one on presets", (Cell(trip["presets"]["within_one"], "{:.1%}"),
            Cell(trip["presets_by_chance"]["within_one"], "{:.1%}"))),
    ]  # fmt: skip
    ends = Row(
        "levels at either end",
        tuple(Cell(levels[name]["extreme"], "{:.2%}") for name in ("encoder", "presets")),
    )
    return [
        Table("Presets, decoded and encoded again", ("this encoder", "chance"), tuple(rows)),
        Table("Codes of real speech", ("this encoder", "presets"), (ends,)),
    ]


SIMILARITY = (
    ("same_speaker", "same speaker"),
    ("cross_speaker", "cross-speaker"),
    ("difference", "difference"),
)
SPEECH = (
    ("ended by itself", "ended", "{:.1%}"),
    ("pace", "pace", "{:.2f}"),
    ("level, dBFS", "level", "{:.1f}"),
    ("voices", "speakers", "{:.0f}"),
)


def _players(results: Mapping[str, Done]) -> Sequence[AudioComparison]:
    done = results.get("evaluate")
    if done is None or not done.result.files:
        return []
    return [
        AudioComparison(
            row["name"],
            {
                label: torch.from_numpy(read_wave(done.folder / name))
                for label, name in row["files"].items()
            },
        )
        for row in read_json(done.folder / AUDIO)
    ]


def _reports(run: Path, results: Mapping[str, Done]) -> str:
    """Links to the reports of single stages."""
    pages = {
        stage: done.folder / "report.html"
        for stage, done in results.items()
        if (done.folder / "report.html").is_file()
    }
    items = "".join(
        f'<li><a href="../{html.escape(path.relative_to(run).as_posix())}">{stage}</a></li>'
        for stage, path in pages.items()
    )
    return f"<h2>Reports of the stages</h2><ul>{items}</ul>" if items else ""
