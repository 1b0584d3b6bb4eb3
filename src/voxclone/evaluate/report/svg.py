"""Plots as SVG, and gray images as PNG, for reports and documents.

Colors are CSS colors. The plots of a page use its CSS variables (`--ink`, `--faint`, `--encoder`,
`--preset`), so that they fit its light and its dark mode.

Shapes: S samples, F frequency bins, T frames.
"""

import base64
import html
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from voxclone.audio.spectrum import magnitudes

MARGIN = 34


@dataclass(frozen=True)
class Axis:
    """The range of an axis, its ticks (value and label) and its name with the unit."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]] = ()
    name: str = ""
    log: bool = False

    def fraction(self, value: float) -> float:
        """The position of a value, 0 at the low end and 1 at the high one."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / max(1e-9, high - low)


@dataclass(frozen=True)
class Panel:
    """A rectangle of pixels with the corner (`left`, `top`) and two axes; `font` is the size of its
    labels."""

    left: float
    top: float
    width: float
    height: float
    x: Axis
    y: Axis
    font: float = 9.0

    def px(self, x: float) -> float:
        """Pixels from the left edge of the picture."""
        return self.left + self.width * self.x.fraction(x)

    def py(self, y: float) -> float:
        """Pixels from the upper edge of the picture."""
        return self.top + self.height * (1 - self.y.fraction(y))

    def frame(self) -> str:
        """Horizontal lines at the ticks of `y`, the labels of the ticks, and the names of the axes:
        that of `y` above the panel, that of `x` below it."""
        base = self.top + self.height
        parts = [
            f'<line x1="{self.left:g}" x2="{self.left + self.width:g}" y1="{self.py(y):.1f}" '
            f'y2="{self.py(y):.1f}" class="faint"/>'
            + text(self.left - 4, self.py(y) + self.font / 3, label, anchor="end")
            for y, label in self.y.ticks
        ]
        parts += [
            text(self.px(x), base + 1.6 * self.font, label, anchor="middle")
            for x, label in self.x.ticks
        ]
        if self.x.name:
            middle = self.left + self.width / 2
            parts.append(text(middle, base + 3.1 * self.font, self.x.name, anchor="middle"))
        if self.y.name:
            parts.append(text(self.left, self.top - 0.8 * self.font, self.y.name))
        return "".join(parts)

    def curve(
        self,
        points: Sequence[tuple[float, float]],
        color: str,
        *,
        dx: float = 0.0,
        width: float = 1.4,
        dashes: str = "",
    ) -> str:
        """A line through points, shifted by `dx` pixels."""
        line = " ".join(f"{self.px(x) + dx:.1f},{self.py(y):.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        return (
            f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="{width:g}"'
            f"{dashed}/>"
        )

    def dot(self, x: float, y: float, color: str, *, dx: float = 0.0, size: float = 3.0) -> str:
        """A disc."""
        return (
            f'<circle cx="{self.px(x) + dx:.1f}" cy="{self.py(y):.1f}" r="{size:g}" '
            f'fill="{color}"/>'
        )

    def segment(
        self, start: tuple[float, float], end: tuple[float, float], color: str, dx: float = 0.0
    ) -> str:
        """A straight line."""
        return (
            f'<line x1="{self.px(start[0]) + dx:.1f}" y1="{self.py(start[1]):.1f}" '
            f'x2="{self.px(end[0]) + dx:.1f}" y2="{self.py(end[1]):.1f}" '
            f'stroke="{color}" stroke-width="1.4"/>'
        )


def text(
    x: float, y: float, label: str, *, anchor: str = "start", kind: str = "", color: str = ""
) -> str:
    """A label at pixels; `kind` is a class of the page."""
    given = f' class="{kind}"' if kind else ""
    given += f' style="fill:{color}"' if color else ""
    given += f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{given}>{html.escape(label)}</text>'


def lines(
    series: Sequence[tuple[str, Sequence[float]]], *, width: int = 640, height: int = 200
) -> str:
    """Curves over the same positions; each is (color, nonnegative values)."""
    top = max((max(values) for _, values in series if len(values)), default=1.0) or 1.0
    ticks = ((0.0, "0"), (top, f"{top:.2g}"))
    panel = Panel(MARGIN, 8, width - MARGIN - 4, height - 26, Axis(0, 1), Axis(0, top, ticks))
    parts = [panel.frame()]
    for color, values in series:
        count = max(1, len(values) - 1)
        parts.append(panel.curve([(i / count, value) for i, value in enumerate(values)], color))
    return _svg(width, height, "".join(parts))


def intervals(
    series: Sequence[tuple[str, Sequence[tuple[float, float, float | None, float | None]]]],
    *,
    width: int = 640,
    height: int = 240,
) -> str:
    """Curves with error bars; each is (color, points (x, mean, low, high)), x in seconds."""
    points = [point for _, curve in series for point in curve]
    ends = [value for _, *values in points for value in values if value is not None]
    low, high = min(ends), max(max(ends), min(ends) + 1e-6)
    first, last = min(p[0] for p in points), max(max(p[0] for p in points), 1e-6)
    seconds = [(x, f"{x:g} s") for x in sorted({point[0] for point in points})]
    levels = [(y, f"{y:.2f}") for y in (low, (low + high) / 2, high)]
    left = MARGIN + 8
    across, up = Axis(first, last, seconds), Axis(low, high, levels)
    panel = Panel(left, 12, width - 16 - left, height - 34, across, up)
    parts = [panel.frame()]
    for number, (color, curve) in enumerate(series):
        dx = 3.0 * number  # so that the bars of two curves do not hide each other
        parts.append(panel.curve([(x, mean) for x, mean, _, _ in curve], color, dx=dx))
        for x, mean, least, most in curve:
            parts.append(panel.dot(x, mean, color, dx=dx))
            if least is not None and most is not None:
                parts.append(panel.segment((x, least), (x, most), color, dx))
    return _svg(width, height, "".join(parts))


def histograms(
    encoder: Sequence[Sequence[float]], presets: Sequence[Sequence[float]], *, columns: int = 6
) -> str:
    """One small histogram for each channel: bars are the encoder's, the outline is the presets'."""
    cell, tall = 104, 66
    rows = -(-len(encoder) // columns)
    parts = []
    for index, (bars, outline) in enumerate(zip(encoder, presets, strict=True)):
        x0, y0 = (index % columns) * cell + 4, (index // columns) * tall + 12
        top = max(*bars, *outline) or 1.0
        step, room = (cell - 10) / len(bars), tall - 18
        for i, share in enumerate(bars):
            size = room * share / top
            parts.append(
                f'<rect x="{x0 + i * step:.1f}" y="{y0 + room - size:.1f}" '
                f'width="{step - 0.6:.1f}" height="{size:.1f}" fill="var(--encoder)"/>'
            )
        points = " ".join(
            f"{x0 + i * step + at:.1f},{y0 + room - room * share / top:.1f}"
            for i, share in enumerate(outline)
            for at in (0, step)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="var(--preset)"/>')
        parts.append(f'<text x="{x0}" y="{y0 - 2}">{index + 1}</text>')
    return _svg(columns * cell, rows * tall + 6, "".join(parts))


def scatter(points: Sequence[tuple[str, float, float, bool]], *, size: int = 420) -> str:
    """Named points: presets (True) as squares, others as discs."""
    xs, ys = [p[1] for p in points], [p[2] for p in points]
    span = max(max(xs) - min(xs), max(ys) - min(ys), 1e-9)
    middle = ((max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2)
    parts = []
    for name, x, y, preset in points:
        px = size / 2 + (x - middle[0]) / span * (size - 90)
        py = size / 2 - (y - middle[1]) / span * (size - 60)
        mark = (
            f'<rect x="{px - 3:.1f}" y="{py - 3:.1f}" width="6" height="6" fill="var(--preset)"/>'
            if preset
            else f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.6" fill="var(--encoder)"/>'
        )
        parts.append(f'{mark}<text x="{px + 6:.1f}" y="{py + 3:.1f}">{html.escape(name)}</text>')
    return _svg(size + 90, size, "".join(parts))


def matrix(names: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """A matrix of cosines, darker where greater, with the names of its rows."""
    cell, left = 12, 110
    flat = [value for row in values for value in row]
    low, high = min(flat), max(max(flat), min(flat) + 1e-9)
    parts = []
    for i, (name, row) in enumerate(zip(names, values, strict=True)):
        y = i * cell
        parts.append(
            f'<text x="{left - 4}" y="{y + 9}" text-anchor="end">{html.escape(name)}</text>'
        )
        for j, value in enumerate(row):
            strength = (value - low) / (high - low)
            parts.append(
                f'<rect x="{left + j * cell}" y="{y}" width="{cell}" height="{cell}" '
                f'fill="var(--encoder)" fill-opacity="{strength:.2f}"><title>{html.escape(name)} / '
                f"{html.escape(names[j])}: {value:.3f}</title></rect>"
            )
    return _svg(left + cell * len(names), cell * len(names), "".join(parts))


def spectrogram(wave_S: Tensor) -> np.ndarray:
    """Values [F, T] of samples [S] at 24 kHz, from 0 to 1 for the loudest: 0 to 8 kHz, 10 ms a
    column, a range of 60 dB."""
    magnitude_FT = magnitudes(wave_S[None], 1024, 240)[0][:342:2]
    decibels = 20 * magnitude_FT.clamp(min=1e-5).log10()
    shown: np.ndarray = ((decibels - decibels.max() + 60) / 60).clamp(0, 1).numpy()
    return shown


def gray_image(values_FT: np.ndarray, alternative: str) -> str:
    """An <img> of values 0 (black) to 1 (white), first row at the bottom."""
    return f'<img alt="{html.escape(alternative)}" src="{gray_uri(values_FT)}">'


def gray_uri(values_FT: np.ndarray) -> str:
    """Values 0 (black) to 1 (white), first row at the bottom, as a data URI of a PNG."""
    levels = np.clip(values_FT[::-1] * 255, 0, 255).astype(np.uint8)
    height, width = levels.shape
    raw = b"".join(b"\0" + row.tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _svg(width: int, height: int, inner: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img">{inner}</svg>'
