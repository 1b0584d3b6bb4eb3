"""Drawings of the known failures of recovery, from what runs and diagnoses wrote.

Shapes: S samples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from voxclone.evaluate.report.drawing import INK, Axis, Panel, grey_uri, spectrogram, standing, text
from voxclone.evaluate.report.tables import look_up
from voxclone.spec import SAMPLING_RATE

FONT = 13.0
WIDTH = 860
PRIOR_DRAWS = 20
SHADES = 24  # of a spectrogram: as many as the eye tells apart, and small files
# What recipes train on, the first that a log has; they have no unit in common.
LOSSES = ("loss/mel", "loss/stft")


@dataclass(frozen=True)
class Recipe:
    """How a recipe is named and drawn; colours that the colour-blind tell apart (Okabe and Ito)."""

    title: str
    colour: str


RECIPES = {
    "oracle": Recipe("oracle", "#0072b2"),
    "recovered": Recipe("recovered", "#009e73"),
    "ours": Recipe("ours", "#009e73"),
    "community_v3_mended": Recipe("community V3, mended", "#cc79a7"),
    "naive": Recipe("naive", "#d55e00"),
    "paper": Recipe("paper", "#8c6d1f"),
    "community_v3": Recipe("community V3", "#56b4e9"),
}


def together(counts: Sequence[float]) -> list[tuple[float, float]]:
    """(n, per cent of frames that have one of the n commonest codes), up to all in use."""
    ordered = np.sort(np.asarray(counts, dtype=float))[::-1]
    share = 100 * ordered.cumsum() / ordered.sum()
    used = int((ordered > 0).sum())
    shown = np.unique(np.geomspace(1, used, 120).round().astype(int))
    return [(float(n), float(share[n - 1])) for n in shown]


def of_prior(prior: Sequence[float], frames: int) -> list[float]:
    """Counts, the greatest first, of as many frames drawn from the release's own: a histogram of
    few frames looks narrower than what it was drawn from."""
    generator = np.random.default_rng(0)
    chances = np.asarray(prior) / np.sum(prior)
    drawn = [np.sort(generator.multinomial(frames, chances))[::-1] for _ in range(PRIOR_DRAWS)]
    mean: list[float] = np.mean(drawn, axis=0).tolist()
    return mean


def collapse(books: Mapping[str, Sequence[Mapping[str, Any]]], minutes: Sequence[float]) -> str:
    """Use of the semantic codes by recipes, a curve for each seed; `books` are the diagnoses', and
    `minutes` those of a core that each training had."""
    first = next(iter(books.values()))[0]
    frames, many = first["frames"], len(first["prior"])
    ticks = [(n, f"{n:g}") for n in (1, 3, 10, 30, 100, 300, 1000) if n <= many]
    across = Axis(1, many, ticks, "number of commonest semantic codes (log scale)", True)
    shares = [(y, f"{y:g}") for y in (0, 25, 50, 75, 100)]
    up = Axis(0, 100, shares, "share of frames that have one of them, %")
    panel = Panel(60, 84, 372, 310, across, up, FONT)
    prior = of_prior(first["prior"], frames)
    curves = [panel.frame(), panel.curve(together(prior), INK, dashes="5 4")]
    in_use = float(sum(1 - (1 - share) ** frames for share in first["prior"]))
    seldom = (span([first["expected_perplexity"]]), span([in_use]), span([100 * prior[0] / frames]))
    table = [_row(0, "release's own counts", INK, seldom)]
    for number, (name, found) in enumerate(books.items(), 1):
        recipe = RECIPES[name]
        curves += [panel.curve(together(b["counts"]), recipe.colour, wide=2) for b in found]
        cells = [[b[key] for b in found] for key in ("perplexity", "codes_in_use")]
        cells.append([100 * b["largest_share"] for b in found])
        row = (span(values) for values in cells)
        table.append(_row(number, recipe.title, recipe.colour, tuple(row)))
    heads = (("", "perplexity"), ("codes", "in use"), ("commonest", "code, %"))
    for x, words in zip(COLUMNS, heads, strict=True):
        table += [
            text(x, 80 + 16 * line, word, anchor="end", kind="note")
            for line, word in enumerate(words)
        ]
    notes = (
        f"Trained for {span([round(m) for m in minutes])} minutes of one core; a curve for",
        "each seed. The release's own counts: as many frames",
        "drawn from how often its training used the codes.",
    )
    table += [text(452, 364 + 18 * n, note, kind="note") for n, note in enumerate(notes)]
    title = f"Collapse: how many semantic codes {frames} frames of test speech have"
    return standing(WIDTH, 456, title, "".join(curves + table))


COLUMNS = (710, 770, 845)


def _row(number: int, title: str, colour: str, cells: Sequence[str]) -> str:
    """A line of the legend, with its figures; the first one is dashed."""
    y = 128 + 34 * number
    dashes = "" if number else ' stroke-dasharray="5 4"'
    return (
        f'<line x1="452" x2="476" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="2.4"'
        f"{dashes}/>"
        + text(482, y, title)
        + "".join(text(x, y, cell, anchor="end") for x, cell in zip(COLUMNS, cells, strict=True))
    )


def span(values: Sequence[float], form: str = "") -> str:
    """The least and the greatest, or the only one."""
    whole = max(values) >= 100 or all(value == int(value) for value in values)
    form = form or ("{:.0f}" if whole else "{:.1f}")
    ends = [form.format(end) for end in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]}–{ends[1]}"


def known(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, figure) of a log, where it has that figure: null stands for what was not finite."""
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None]


def falling(rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """(step, the loss that compares sound with sound, over its first value) of a log."""
    found = next(filter(None, (known(rows, key) for key in LOSSES)))
    return [(step, value / found[0][1]) for step, value in found]


def saturation(logs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> str:
    """Over the steps of each recipe (columns; a curve for each seed): the loss that it trains on,
    the mel distance of what its codes decode to, and the levels at the ends."""
    every = [row for runs in logs.values() for rows in runs for row in rows]
    mels, extremes = (
        [value for _, value in known(every, key)] for key in ("real/mel", "real/extreme")
    )
    least, most = math.floor(5 * min(mels)), math.ceil(5 * max(mels))
    top = 10 * max(1, math.ceil(10 * max(extremes)))
    kinds = (
        (
            "training: loss on sound (paper: STFT, others: mel), over its first value",
            Axis(0, 1.1, [(y, f"{y:g}") for y in (0, 0.5, 1)]),
        ),
        (
            "validation: mel distance of what the codes decode to, log10",
            Axis(least / 5, most / 5, [(n / 5, f"{n / 5:.1f}") for n in range(least, most + 1)]),
        ),
        (
            "validation: levels at either end, %",
            Axis(0, top, [(y, f"{y:g}") for y in (0, top / 2, top)]),
        ),
    )
    gap, left, tall, apart = 26, 56, 110, 62
    wide = (WIDTH - left - 20 - gap * (len(logs) - 1)) / len(logs)
    parts = []
    for column, (name, runs) in enumerate(logs.items()):
        recipe = RECIPES[name]
        x0 = left + column * (wide + gap)
        last = max(row["step"] for rows in runs for row in rows)
        parts.append(text(x0, 62, recipe.title, kind="name", colour=recipe.colour))
        grain = next(each for each in (50, 100, 200, 500, 1000, 10**9) if 4 * each > last)
        steps = [(float(x), f"{x:g}") for x in range(0, last + 1, grain)]
        for number, (what, up) in enumerate(kinds):
            below = number == len(kinds) - 1
            across = Axis(0, last, steps, "step" if below else "")
            shown = Axis(up.low, up.high, [(y, "" if column else label) for y, label in up.ticks])
            panel = Panel(x0, 106 + number * (tall + apart), wide, tall, across, shown, FONT)
            parts.append(panel.frame())
            if not column:
                parts.append(text(x0, panel.top - 12, what, kind="note"))
            curves = [validated(rows)[number - 1] if number else falling(rows) for rows in runs]
            for points in curves:
                parts.append(panel.curve(points, recipe.colour, wide=2))
                if number:
                    parts += [panel.dot(x, y, recipe.colour) for x, y in points]
            ends = [points[-1][1] for points in curves if points]
            if ends:
                said = span(ends, "{:.1f}" if below else "{:.2f}")
                parts.append(
                    text(x0 + wide, panel.below(max(ends)) - 8, said, anchor="end", kind="over")
                )
    title = "Saturation: levels at the ends, beside the loss on sound"
    return standing(WIDTH, 106 + 3 * (tall + apart) - 4, title, "".join(parts))


def validated(rows: Sequence[Mapping[str, Any]]) -> list[list[tuple[float, float]]]:
    """(step, mel distance) and (step, per cent of levels at the ends) of a log."""
    return [
        [(step, factor * value) for step, value in known(rows, key)]
        for key, factor in (("real/mel", 1), ("real/extreme", 100))
    ]


@dataclass(frozen=True, eq=False)
class Seen:
    """A clip [S] as decoded by an encoder's codes, and what is said of it."""

    title: str
    wave_S: Tensor
    note: str
    colour: str = INK
    figures: Mapping[str, Any] = field(default_factory=dict)


FIGURES = (
    ("mel distance to the recording, log10", "passage.mel", "{:.3f}", 0.01),
    ("language model: nats per frame, semantic codes", "acceptance.semantic", "{:.2f}", 1.0),
)


def guessed(report: Mapping[str, Any]) -> float:
    """Nats per frame of a diagnosis' codes for one who knows only the release's own counts."""
    return math.log(report["book"]["perplexity"]) + float(report["book"]["kl"])


def rejected(seen: Sequence[Seen]) -> str:
    """Mel distance beside the language model's nats, with 95 % intervals, and the clip as each
    decodes it; the one without figures is the recording."""
    judged = [each for each in seen if each.figures]
    wide, tall, top, left = 300, 34 * len(judged), 66, 128
    parts = []
    for column, (name, place, form, grain) in enumerate(FIGURES):
        values = [look_up(each.figures, place) for each in judged]
        guesses = [guessed(each.figures) for each in judged] if column else []
        low = 0.0 if column else grain * math.floor(min(v["low"] for v in values) / grain)
        most = math.ceil(max(*guesses, *(v["high"] for v in values)) / grain)
        digits = 0 if column else 2
        step = 1 if most - low / grain < 7 else 2
        ticks = [
            (n * grain, f"{n * grain:.{digits}f}")
            for n in range(round(low / grain), most + 1, step)
        ]
        across = Axis(low, most * grain, ticks, name)
        rows = Axis(0, len(judged))
        panel = Panel(left + column * (wide + 90), top, wide, tall, across, rows, FONT)
        for x, _ in ticks:
            across_all = f'y1="{top}" y2="{top + tall}" class="faint"/>'
            parts.append(
                f'<line x1="{panel.right_of(x):.1f}" x2="{panel.right_of(x):.1f}" {across_all}'
            )
        parts.append(panel.frame())
        for row, (each, value) in enumerate(zip(judged, values, strict=True)):
            y = len(judged) - row - 0.6
            parts.append(panel.stretch((value["low"], y), (value["high"], y), each.colour))
            parts.append(panel.dot(value["mean"], y, each.colour, size=5))
            over = (panel.right_of(value["mean"]), panel.below(y) - 9)
            parts.append(text(*over, form.format(value["mean"]), anchor="middle", kind="over"))
            if guesses:
                at = f'cx="{panel.right_of(guesses[row]):.1f}" cy="{panel.below(y):.1f}"'
                parts.append(f'<circle {at} r="7" fill="none" stroke="{INK}" stroke-width="1.2"/>')
            else:
                named = (20, panel.below(y) + 4, each.title)
                parts.append(text(*named, kind="name", colour=each.colour))
    note = "bars: 95 % over speakers; rings: what guessing by the release's own counts would cost"
    parts.append(text(left, top + tall + 66, note, kind="note"))
    parts.append(spectrograms(seen, top + tall + 116))
    title = "Clean reconstruction that the language model rejects"
    return standing(WIDTH, top + tall + 484, title, "".join(parts))


def spectrograms(seen: Sequence[Seen], top: float) -> str:
    """Two in a row, loud is dark."""
    wide, tall, left, gap = 364, 128, 62, 44
    seconds = len(seen[0].wave_S) / SAMPLING_RATE
    parts = []
    for number, each in enumerate(seen):
        x0, y0 = left + number % 2 * (wide + gap), top + number // 2 * (tall + 76)
        hertz = () if number % 2 else [(0.0, "0"), (4.0, "4"), (8.0, "8 kHz")]
        marks = [(float(x), f"{x} s") for x in range(math.floor(seconds) + 1)]
        panel = Panel(x0, y0, wide, tall, Axis(0, seconds, marks), Axis(0, 8, hertz), FONT)
        shades = 1 - (SHADES * spectrogram(each.wave_S) ** 0.7).round() / SHADES
        parts.append(
            panel.frame()
            + f'<image x="{x0}" y="{y0}" width="{wide}" height="{tall}" preserveAspectRatio="none" '
            f'href="{grey_uri(shades)}"/>'
            + text(x0, y0 - 24, each.title, kind="name", colour=each.colour)
            + text(x0, y0 - 7, each.note, kind="note")
        )
    return "".join(parts)
