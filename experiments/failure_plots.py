"""Plots of the known failures of encoder training, from logs and diagnoses.

Shapes: S samples.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from voxclone.evaluate.report.svg import (
    Axis,
    Panel,
    gray_uri,
    spectrogram,
    text,
)
from voxclone.evaluate.report.tables import look_up
from voxclone.spec import SAMPLING_RATE

INK, FAINT = "#1b1f24", "#c9ced6"
STANDALONE_STYLE = (
    f"text{{font:13px Helvetica,Arial,'DejaVu Sans',sans-serif;fill:{INK}}}"
    f".faint{{stroke:{FAINT}}}.title{{font-size:16px;font-weight:bold}}"
    ".name{font-weight:bold}.note{font-size:12px;fill:#57606a}"
    ".over{paint-order:stroke;stroke:#fff;stroke-width:4px}"
)
FONT = 13.0
WIDTH = 860
PRIOR_DRAWS = 20
GRAY_LEVELS = 24  # of a spectrogram: enough for the eye, and small files
COLUMNS = (710, 770, 845)  # of the legend
# Reconstruction losses of recipes, the first that a log has; they share no unit.
LOSSES = ("loss/mel", "loss/stft")


@dataclass(frozen=True)
class Recipe:
    """Title and color of a recipe; the colors are safe for the color-blind (Okabe and Ito)."""

    title: str
    color: str


RECIPES = {
    "oracle": Recipe("oracle", "#0072b2"),
    "recovered": Recipe("recovered", "#009e73"),
    "ours": Recipe("ours", "#009e73"),
    "community": Recipe("community", "#cc79a7"),
    "naive": Recipe("naive", "#d55e00"),
    "paper": Recipe("paper", "#8c6d1f"),
}


def standalone(width: int, height: int, title: str, inner: str) -> str:
    """A complete SVG file with a white background and the title on top."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img"><title>{html.escape(title)}</title>'
        f"<style>{STANDALONE_STYLE}</style>"
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="6" fill="#fff" '
        f'class="faint"/>{text(20, 30, title, kind="title")}{inner}</svg>\n'
    )


def cumulative_shares(counts: Sequence[float]) -> list[tuple[float, float]]:
    """(n, percentage of frames with one of the n most frequent codes), up to all codes in use."""
    ordered = np.sort(np.asarray(counts, dtype=float))[::-1]
    share = 100 * ordered.cumsum() / ordered.sum()
    used = int((ordered > 0).sum())
    shown = np.unique(np.geomspace(1, used, 120).round().astype(int))
    return [(float(n), float(share[n - 1])) for n in shown]


def expected_counts(prior: Sequence[float], frames: int) -> list[float]:
    """Sorted counts of so many frames drawn from the prior: a histogram of few frames looks
    narrower than its distribution."""
    generator = np.random.default_rng(0)
    probabilities = np.asarray(prior) / np.sum(prior)
    drawn = [
        np.sort(generator.multinomial(frames, probabilities))[::-1] for _ in range(PRIOR_DRAWS)
    ]
    mean: list[float] = np.mean(drawn, axis=0).tolist()
    return mean


def plot_collapse(
    codes: Mapping[str, Sequence[Mapping[str, Any]]], minutes: Sequence[float]
) -> str:
    """Use of the semantic codes by recipe, a curve for each seed. `codes` are the `semantic_codes`
    of diagnoses, `minutes` those of a core that each training took."""
    first = next(iter(codes.values()))[0]
    frames, many = first["frames"], len(first["prior"])
    ticks = [(n, f"{n:g}") for n in (1, 3, 10, 30, 100, 300, 1000) if n <= many]
    across = Axis(1, many, ticks, "number of most frequent semantic codes (log scale)", True)
    shares = [(y, f"{y:g}") for y in (0, 25, 50, 75, 100)]
    up = Axis(0, 100, shares, "share of frames with one of them, %")
    panel = Panel(60, 84, 372, 310, across, up, FONT)
    prior = expected_counts(first["prior"], frames)
    curves = [panel.frame(), panel.curve(cumulative_shares(prior), INK, dashes="5 4")]
    in_use = float(sum(1 - (1 - share) ** frames for share in first["prior"]))
    prior_cells = (
        span([first["expected_perplexity"]]),
        span([in_use]),
        span([100 * prior[0] / frames]),
    )
    table = [_row(0, "prior of the release", INK, prior_cells)]
    for number, (name, found) in enumerate(codes.items(), 1):
        recipe = RECIPES[name]
        curves += [
            panel.curve(cumulative_shares(b["counts"]), recipe.color, width=2) for b in found
        ]
        cells = [[b[key] for b in found] for key in ("perplexity", "codes_in_use")]
        cells.append([100 * b["largest_share"] for b in found])
        row = (span(values) for values in cells)
        table.append(_row(number, recipe.title, recipe.color, tuple(row)))
    heads = (("", "perplexity"), ("codes", "in use"), ("top code,", "%"))
    for x, words in zip(COLUMNS, heads, strict=True):
        table += [
            text(x, 80 + 16 * line, word, anchor="end", kind="note")
            for line, word in enumerate(words)
        ]
    notes = (
        f"Trained for {span([round(m) for m in minutes])} minutes of one core; a curve for",
        "each seed. The prior: as many frames drawn from the",
        "release's own code usage.",
    )
    table += [text(452, 364 + 18 * n, note, kind="note") for n, note in enumerate(notes)]
    title = f"Codebook collapse: semantic codes of {frames} frames of test speech"
    return standalone(WIDTH, 456, title, "".join(curves + table))


def _row(number: int, title: str, color: str, cells: Sequence[str]) -> str:
    """A line of the legend with its metrics; the first one is dashed."""
    y = 128 + 34 * number
    dashes = "" if number else ' stroke-dasharray="5 4"'
    return (
        f'<line x1="452" x2="476" y1="{y - 4}" y2="{y - 4}" stroke="{color}" stroke-width="2.4"'
        f"{dashes}/>"
        + text(482, y, title)
        + "".join(text(x, y, cell, anchor="end") for x, cell in zip(COLUMNS, cells, strict=True))
    )


def span(values: Sequence[float], form: str = "") -> str:
    """The smallest and the largest value, or the only one."""
    whole = max(values) >= 100 or all(value == int(value) for value in values)
    form = form or ("{:.0f}" if whole else "{:.1f}")
    ends = [form.format(end) for end in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]}–{ends[1]}"


def finite(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) of a log; null stands for values that were not finite."""
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None]


def relative_loss(rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """(step, reconstruction loss over its first value) of a log."""
    found = next(filter(None, (finite(rows, key) for key in LOSSES)))
    return [(step, value / found[0][1]) for step, value in found]


def plot_saturation(logs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> str:
    """Reconstruction loss, mel distance of decoded speech, and levels at the ends, over the steps
    of each recipe (columns; a curve for each seed)."""
    every = [row for runs in logs.values() for rows in runs for row in rows]
    mels, extremes = (
        [value for _, value in finite(every, key)] for key in ("real/mel", "real/extreme")
    )
    least, most = math.floor(5 * min(mels)), math.ceil(5 * max(mels))
    top = 10 * max(1, math.ceil(10 * max(extremes)))
    kinds = (
        (
            "training: reconstruction loss (paper: STFT, others: mel), over its first value",
            Axis(0, 1.1, [(y, f"{y:g}") for y in (0, 0.5, 1)]),
        ),
        (
            "validation: mel distance of decoded speech, log10",
            Axis(least / 5, most / 5, [(n / 5, f"{n / 5:.1f}") for n in range(least, most + 1)]),
        ),
        (
            "validation: levels at either end, %",
            Axis(0, top, [(y, f"{y:g}") for y in (0, top / 2, top)]),
        ),
    )
    gap, left, tall, below_panel = 26, 56, 110, 62
    wide = (WIDTH - left - 20 - gap * (len(logs) - 1)) / len(logs)
    parts = []
    for column, (name, runs) in enumerate(logs.items()):
        recipe = RECIPES[name]
        x0 = left + column * (wide + gap)
        last = max(row["step"] for rows in runs for row in rows)
        parts.append(text(x0, 62, recipe.title, kind="name", color=recipe.color))
        grain = next(each for each in (50, 100, 200, 500, 1000, 10**9) if 4 * each > last)
        steps = [(float(x), f"{x:g}") for x in range(0, last + 1, grain)]
        for number, (what, up) in enumerate(kinds):
            below = number == len(kinds) - 1
            across = Axis(0, last, steps, "step" if below else "")
            shown = Axis(up.low, up.high, [(y, "" if column else label) for y, label in up.ticks])
            panel = Panel(x0, 106 + number * (tall + below_panel), wide, tall, across, shown, FONT)
            parts.append(panel.frame())
            if not column:
                parts.append(text(x0, panel.top - 12, what, kind="note"))
            curves = [
                validation_curves(rows)[number - 1] if number else relative_loss(rows)
                for rows in runs
            ]
            for points in curves:
                parts.append(panel.curve(points, recipe.color, width=2))
                if number:
                    parts += [panel.dot(x, y, recipe.color) for x, y in points]
            ends = [points[-1][1] for points in curves if points]
            if ends:
                label = span(ends, "{:.1f}" if below else "{:.2f}")
                parts.append(
                    text(x0 + wide, panel.py(max(ends)) - 8, label, anchor="end", kind="over")
                )
    title = "Saturation: levels at the ends, beside the reconstruction loss"
    return standalone(WIDTH, 106 + 3 * (tall + below_panel) - 4, title, "".join(parts))


def validation_curves(rows: Sequence[Mapping[str, Any]]) -> list[list[tuple[float, float]]]:
    """(step, mel distance) and (step, percentage of levels at the ends) of a log."""
    return [
        [(step, factor * value) for step, value in finite(rows, key)]
        for key, factor in (("real/mel", 1), ("real/extreme", 100))
    ]


@dataclass(frozen=True, eq=False)
class DecodedClip:
    """A clip [S] as decoded from an encoder's codes, with a note and the encoder's diagnosis."""

    title: str
    wave_S: Tensor
    note: str
    color: str = INK
    diagnosis: Mapping[str, Any] = field(default_factory=dict)


NLL = "language_model.conditioning_gain.semantic_nll"
METRICS = (
    ("mel distance to the recording, log10", "round_trip.mel_distance", "{:.3f}", 0.01),
    ("language model: nats per frame, semantic codes", NLL, "{:.2f}", 1.0),
)


def prior_nll(report: Mapping[str, Any]) -> float:
    """Nats per frame of a diagnosis' semantic codes under the prior alone: entropy plus KL."""
    codes = report["semantic_codes"]
    return math.log(codes["perplexity"]) + float(codes["kl"])


def plot_rejection(clips: Sequence[DecodedClip]) -> str:
    """Mel distance beside the language model's NLL, with 95 % intervals, and spectrograms of the
    decoded clips; the clip without a diagnosis is the recording."""
    diagnosed = [each for each in clips if each.diagnosis]
    wide, tall, top, left = 300, 34 * len(diagnosed), 66, 128
    parts = []
    for column, (name, path, form, grain) in enumerate(METRICS):
        values = [look_up(each.diagnosis, path) for each in diagnosed]
        bounds = [prior_nll(each.diagnosis) for each in diagnosed] if column else []
        low = 0.0 if column else grain * math.floor(min(v["low"] for v in values) / grain)
        most = math.ceil(max(*bounds, *(v["high"] for v in values)) / grain)
        digits = 0 if column else 2
        step = 1 if most - low / grain < 7 else 2
        ticks = [
            (n * grain, f"{n * grain:.{digits}f}")
            for n in range(round(low / grain), most + 1, step)
        ]
        across = Axis(low, most * grain, ticks, name)
        rows = Axis(0, len(diagnosed))
        panel = Panel(left + column * (wide + 90), top, wide, tall, across, rows, FONT)
        for x, _ in ticks:
            across_all = f'y1="{top}" y2="{top + tall}" class="faint"/>'
            parts.append(f'<line x1="{panel.px(x):.1f}" x2="{panel.px(x):.1f}" {across_all}')
        parts.append(panel.frame())
        for row, (each, value) in enumerate(zip(diagnosed, values, strict=True)):
            y = len(diagnosed) - row - 0.6
            parts.append(panel.curve([(value["low"], y), (value["high"], y)], each.color))
            parts.append(panel.dot(value["mean"], y, each.color, size=5))
            over = (panel.px(value["mean"]), panel.py(y) - 9)
            parts.append(text(*over, form.format(value["mean"]), anchor="middle", kind="over"))
            if bounds:
                at = f'cx="{panel.px(bounds[row]):.1f}" cy="{panel.py(y):.1f}"'
                parts.append(f'<circle {at} r="7" fill="none" stroke="{INK}" stroke-width="1.2"/>')
            else:
                named = (20, panel.py(y) + 4, each.title)
                parts.append(text(*named, kind="name", color=each.color))
    note = "bars: 95 % over speakers; rings: NLL under the prior alone"
    parts.append(text(left, top + tall + 66, note, kind="note"))
    parts.append(spectrograms(clips, top + tall + 116))
    title = "Good reconstruction from codes that the language model rejects"
    return standalone(WIDTH, top + tall + 484, title, "".join(parts))


def spectrograms(clips: Sequence[DecodedClip], top: float) -> str:
    """Two in a row; loud is dark."""
    wide, tall, left, gap = 364, 128, 62, 44
    seconds = len(clips[0].wave_S) / SAMPLING_RATE
    parts = []
    for number, each in enumerate(clips):
        x0, y0 = left + number % 2 * (wide + gap), top + number // 2 * (tall + 76)
        hertz = () if number % 2 else [(0.0, "0"), (4.0, "4"), (8.0, "8 kHz")]
        marks = [(float(x), f"{x} s") for x in range(math.floor(seconds) + 1)]
        panel = Panel(x0, y0, wide, tall, Axis(0, seconds, marks), Axis(0, 8, hertz), FONT)
        gray = 1 - (GRAY_LEVELS * spectrogram(each.wave_S) ** 0.7).round() / GRAY_LEVELS
        parts.append(
            panel.frame()
            + f'<image x="{x0}" y="{y0}" width="{wide}" height="{tall}" preserveAspectRatio="none" '
            f'href="{gray_uri(gray)}"/>'
            + text(x0, y0 - 24, each.title, kind="name", color=each.color)
            + text(x0, y0 - 7, each.note, kind="note")
        )
    return "".join(parts)
