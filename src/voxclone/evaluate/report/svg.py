"""Plots as SVG, and gray images as PNG, for reports and documents.

Colors are CSS colors. The plots of a page use its CSS variables (`--ink`, `--faint`, `--encoder`,
`--preset`), so that they fit its light and its dark mode.

Shapes: S samples, F frequency bins, T frames.
"""

import base64
import html
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from voxclone.audio.spectrum import magnitudes

MARGIN, FONT = 34, 9.0


@dataclass(frozen=True)
class Axis:
    """The range of an axis and its ticks (value and label)."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]] = ()

    def fraction(self, value: float) -> float:
        """The position of a value, 0 at the low end and 1 at the high one."""
        return (value - self.low) / max(1e-9, self.high - self.low)


@dataclass(frozen=True)
class Panel:
    """A rectangle of pixels with the corner (`left`, `top`) and two axes."""

    left: float
    top: float
    width: float
    height: float
    x: Axis
    y: Axis

    def px(self, x: float) -> float:
        """Pixels from the left edge of the picture."""
        return self.left + self.width * self.x.fraction(x)

    def py(self, y: float) -> float:
        """Pixels from the upper edge of the picture."""
        return self.top + self.height * (1 - self.y.fraction(y))

    def frame(self) -> str:
        """Horizontal lines at the ticks of `y`, and the labels of all ticks."""
        base, right = self.top + self.height, self.left + self.width
        parts = [
            tag("line", x1=self.left, x2=right, y1=self.py(y), y2=self.py(y), class_="faint")
            + text(self.left - 4, self.py(y) + FONT / 3, label, anchor="end")
            for y, label in self.y.ticks
        ]
        parts += [
            text(self.px(x), base + 1.6 * FONT, label, anchor="middle") for x, label in self.x.ticks
        ]
        return "".join(parts)

    def curve(
        self,
        points: Sequence[tuple[float, float]],
        color: str,
        *,
        dx: float = 0.0,
        width: float = 1.4,
    ) -> str:
        """A line through points, shifted by `dx` pixels."""
        line = " ".join(f"{self.px(x) + dx:.1f},{self.py(y):.1f}" for x, y in points)
        return tag("polyline", points=line, fill="none", stroke=color, stroke_width=width)

    def dot(self, x: float, y: float, color: str, *, dx: float = 0.0, size: float = 3.0) -> str:
        """A disc."""
        return tag("circle", cx=self.px(x) + dx, cy=self.py(y), r=size, fill=color)


def tag(element: str, inner: str = "", **attributes: str | float | None) -> str:
    """An element of SVG. Numbers are rounded to a tenth, and attributes of None are left out; `_`
    within the name of an attribute stands for a hyphen."""
    given = ""
    for name, value in attributes.items():
        if value is not None:
            shown = value if isinstance(value, str) else round(value, 1)
            given += f' {name.rstrip("_").replace("_", "-")}="{shown}"'
    return f"<{element}{given}>{inner}</{element}>" if inner else f"<{element}{given}/>"


def text(x: float, y: float, label: str, *, anchor: str | None = None) -> str:
    """A label at pixels."""
    return tag("text", html.escape(label), x=x, y=y, text_anchor=anchor)


def lines(series: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Curves over the same positions; each is (color, nonnegative values)."""
    width, height = 640, 200
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
) -> str:
    """Curves with error bars; each is (color, points (x, mean, low, high)), x in seconds."""
    width, height = 640, 240
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
                parts.append(panel.curve([(x, least), (x, most)], color, dx=dx))
    return _svg(width, height, "".join(parts))


def histograms(encoder: Sequence[Sequence[float]], presets: Sequence[Sequence[float]]) -> str:
    """One small histogram for each channel: bars are the encoder's, the outline is the presets'."""
    cell, tall, columns = 104, 66, 6
    parts = []
    for index, (bars, outline) in enumerate(zip(encoder, presets, strict=True)):
        x0, y0 = (index % columns) * cell + 4, (index // columns) * tall + 12
        top = max(*bars, *outline) or 1.0
        panel = Panel(x0, y0, cell - 10, tall - 18, Axis(0, len(bars)), Axis(0, top))
        width = panel.width / len(bars) - 0.6
        for i, share in enumerate(bars):
            x, y = panel.px(i), panel.py(share)
            height = panel.py(0) - y
            parts.append(tag("rect", x=x, y=y, width=width, height=height, fill="var(--encoder)"))
        steps = [(i + end, share) for i, share in enumerate(outline) for end in (0, 1)]
        parts.append(panel.curve(steps, "var(--preset)", width=1.0))
        parts.append(text(x0, y0 - 2, str(index + 1)))
    return _svg(columns * cell, -(-len(encoder) // columns) * tall + 6, "".join(parts))


def scatter(points: Sequence[tuple[str, float, float, bool]]) -> str:
    """Named points: presets (True) as squares, others as discs."""
    size = 420
    xs, ys = [p[1] for p in points], [p[2] for p in points]
    span = max(max(xs) - min(xs), max(ys) - min(ys), 1e-9)
    across, up = (
        Axis((max(each) + min(each) - span) / 2, (max(each) + min(each) + span) / 2)
        for each in (xs, ys)
    )
    panel = Panel(45, 30, size - 90, size - 60, across, up)
    parts = []
    for name, x, y, preset in points:
        left, top = panel.px(x), panel.py(y)
        square = tag("rect", x=left - 3, y=top - 3, width=6, height=6, fill="var(--preset)")
        parts.append(square if preset else panel.dot(x, y, "var(--encoder)", size=3.6))
        parts.append(text(left + 6, top + 3, name))
    return _svg(size + 90, size, "".join(parts))


def matrix(names: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """A matrix of cosines, darker where greater, with the names of its rows."""
    cell, left = 12, 110
    low, high = min(map(min, values)), max(map(max, values))
    parts = []
    for i, (name, row) in enumerate(zip(names, values, strict=True)):
        parts.append(text(left - 4, i * cell + 9, name, anchor="end"))
        for j, (other, value) in enumerate(zip(names, row, strict=True)):
            title = tag("title", html.escape(f"{name} / {other}: {value:.3f}"))
            strength = f"{(value - low) / max(high - low, 1e-9):.2f}"
            look = {"fill": "var(--encoder)", "fill_opacity": strength}
            box = {"x": left + j * cell, "y": i * cell, "width": cell, "height": cell}
            parts.append(tag("rect", title, **box, **look))
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
    levels = np.clip(values_FT[::-1] * 255, 0, 255).astype(np.uint8)
    height, width = levels.shape
    raw = b"".join(b"\0" + row.tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    uri = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<img alt="{html.escape(alternative)}" src="{uri}">'


def _svg(width: int, height: int, inner: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img">{inner}</svg>'
