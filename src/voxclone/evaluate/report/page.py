"""A report as one HTML page: summary, failed checks, tables, plots and audio clips.

The page is self-contained (no script, no network), for phones too, in light and dark mode.

Shapes: S samples.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
from torch import Tensor

from voxclone.evaluate.report import svg
from voxclone.evaluate.report.contents import tables_of
from voxclone.evaluate.report.plots import plots_of
from voxclone.evaluate.report.summaries import summary_of
from voxclone.evaluate.report.tables import Table, compare
from voxclone.spec import SAMPLING_RATE

TITLES = {
    "voxclone.diagnosis": "Diagnosis of an encoder",
    "voxclone.reconstruction": "Reconstruction by a codec",
    "voxclone.encoder": "Codes of an encoder",
    "voxclone.voices": "Cloned voices",
    "voxclone.protocol": "A published test list",
    "voxclone.validation": "Speech to train on",
}


@dataclass(frozen=True)
class AudioComparison:
    """Clips [S] side by side, by label."""

    name: str
    waves: Mapping[str, Tensor]


def page(
    report: Mapping[str, Any],
    clips: Sequence[AudioComparison] = (),
    baseline: Mapping[str, Any] | None = None,
) -> str:
    """The whole page of a report of any schema; `baseline` is an earlier one of the same."""
    title = TITLES[report["schema"].split("/")[0]]
    checks = report.get("checks", {})
    state = {None: "", True: "passed", False: "failed"}[checks.get("passed")]
    summary = [html.escape(sentence) for sentence in summary_of(report)]
    body = (
        f'<header class="{state}"><p>{title}</p><h1>{summary[0]}</h1>'
        + "".join(f"<p>{sentence}</p>" for sentence in summary[1:])
        + "</header>"
        + "".join(_failed_check(each) for each in checks.get("failed", ()))
        + _tables(report, baseline)
        + plots_of(report)
        + "".join(clips_html(each) for each in clips)
        + _listed("Not measured", report.get("missing", {}))
        + _listed("Unreadable clips", report.get("unreadable", {}))
    )
    return document(title, body)


def document(title: str, body: str) -> str:
    """A self-contained page in the style of reports."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style><main>{body}</main></html>\n"
    )


def _failed_check(check: Mapping[str, str]) -> str:
    return (
        f'<section class="check"><h2>{html.escape(check["name"])}</h2>'
        f"<p>{html.escape(check['meaning'])}</p>"
        f"<p><b>{html.escape(check['measured'])}.</b></p>"
        f"<p>{html.escape(check['remedy'])}</p></section>"
    )


def _tables(report: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> str:
    before = None if baseline is None else tables_of(baseline)
    parts = []
    for table in tables_of(report):
        marks: Sequence[Sequence[bool]] | None = None
        if before is not None:
            table, marks = compare(table, before)
        parts.append(table_html(table, marks))
    if before is not None:
        parts.append('<p class="note">Marked: intervals that do not overlap.</p>')
    return "".join(parts)


def table_html(table: Table, marks: Sequence[Sequence[bool]] | None = None) -> str:
    """A table under its title; marked cells stand out."""
    noted = any(row.note for row in table.rows)
    head = "".join(f"<td>{html.escape(name)}</td>" for name in table.headings)
    lines = [f"<tr><th></th>{head}{'<td></td>' if noted else ''}</tr>"] if head else []
    for number, row in enumerate(table.rows):
        cells = ""
        for column, cell in enumerate(row.cells):
            marked = marks is not None and marks[number][column]
            cells += f"<td{CHANGED if marked else ''}>{html.escape(cell.text)}</td>"
        note = f'<td class="note">{html.escape(row.note)}</td>' if noted else ""
        lines.append(f"<tr><th>{html.escape(row.label)}</th>{cells}{note}</tr>")
    wide = ' class="wide"' if len(table.headings) > 2 else ""
    return f"<h2>{html.escape(table.title)}</h2><div{wide}><table>{''.join(lines)}</table></div>"


def _listed(title: str, reasons: Mapping[str, str]) -> str:
    items = "".join(
        f"<li>{html.escape(name)}: {html.escape(why)}</li>" for name, why in reasons.items()
    )
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""


def clips_html(clip: AudioComparison) -> str:
    """Players of clips side by side, each with its spectrogram."""
    cells = "".join(
        f"<figure><figcaption>{html.escape(label)}</figcaption>{_player(wave_S)}"
        f"{svg.gray_image(svg.spectrogram(wave_S), f'{label}: spectrogram')}</figure>"
        for label, wave_S in clip.waves.items()
    )
    return f'<h2>{html.escape(clip.name)}</h2><div class="pair">{cells}</div>'


def _player(wave_S: Tensor) -> str:
    buffer = io.BytesIO()
    samples = np.clip(wave_S.numpy(), -1, 1)
    soundfile.write(buffer, samples, SAMPLING_RATE, format="OGG", subtype="OPUS")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/ogg;base64,{data}"></audio>'


CHANGED = ' class="changed"'

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--faint:#c9ced6;--card:#f3f5f8;
--encoder:#1f6feb;--preset:#d9822b;--passed:#1a7f37;--failed:#b42318}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ee;--paper:#12161c;--faint:#3a424d;
--card:#1b212a;--encoder:#6aa6ff;--preset:#f0a95c;--passed:#4cc26b;--failed:#ff8a7a}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:760px;margin:auto;padding:0 16px 48px}
header{border-left:6px solid var(--faint);padding:4px 16px;margin:24px 0;overflow-wrap:anywhere}
header.failed{border-color:var(--failed)}header.passed{border-color:var(--passed)}
h1{font-size:1.5rem;line-height:1.25;margin:.2em 0}h2{font-size:1.1rem;margin:2em 0 .4em}
.check{background:var(--card);border-radius:8px;padding:2px 16px;margin:12px 0}
.check h2{margin-top:.6em;color:var(--failed)}
table{border-collapse:collapse;width:100%;table-layout:fixed}
th,td{text-align:left;font-weight:normal;padding:4px 10px 4px 0;vertical-align:top;
border-bottom:1px solid var(--faint)}
td:not(.note){font-variant-numeric:tabular-nums}
td.note{width:34%}
.wide{overflow-x:auto}.wide table{min-width:620px}
.note{opacity:.7;font-size:.85rem}.changed{font-weight:bold;color:var(--failed)}
b.encoder{color:var(--encoder)}b.preset{color:var(--preset)}
svg{width:100%;height:auto}svg .faint{stroke:var(--faint)}
svg text{font:9px system-ui,sans-serif;fill:var(--ink)}
.pair{display:flex;gap:16px;flex-wrap:wrap}figure{margin:0;flex:1 1 300px}
figure img{width:100%;height:140px;border-radius:4px;margin-top:6px}audio{width:100%}
@media(prefers-color-scheme:light){figure img{filter:invert(1)}}
"""
