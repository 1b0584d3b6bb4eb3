"""Small drawings for reports: SVG that takes its colours from the page, and grey images.

Colours are CSS variables of the page (`--ink`, `--faint`, `--own`, `--genuine`), so that a drawing
is right in light and in dark.
"""

import base64
import html
import struct
import zlib
from collections.abc import Sequence

import numpy as np

MARGIN = 34


def lines(
    series: Sequence[tuple[str, Sequence[float]]], *, width: int = 640, height: int = 200
) -> str:
    """Curves over the same positions; each is (CSS colour variable, values from 0 up)."""
    top = max((max(values) for _, values in series if len(values)), default=1.0) or 1.0
    parts = []
    for colour, values in series:
        count = max(1, len(values) - 1)
        points = " ".join(
            f"{MARGIN + (width - MARGIN - 4) * i / count:.1f},"
            f"{height - 18 - (height - 26) * value / top:.1f}"
            for i, value in enumerate(values)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="var({colour})" stroke-width="1.4"/>'
        )
    axis = (
        f'<line x1="{MARGIN}" x2="{width - 4}" y1="{height - 18}" y2="{height - 18}" '
        'stroke="var(--faint)"/>'
        f'<text x="{MARGIN - 4}" y="14" text-anchor="end">{top:.2g}</text>'
        f'<text x="{MARGIN - 4}" y="{height - 14}" text-anchor="end">0</text>'
    )
    return _svg(width, height, axis + "".join(parts))


def intervals(
    series: Sequence[tuple[str, Sequence[tuple[float, float, float | None, float | None]]]],
    *,
    width: int = 640,
    height: int = 240,
) -> str:
    """Curves with bars; each is (CSS colour variable, points (x, mean, low, high))."""
    points = [point for _, curve in series for point in curve]
    ends = [value for _, *values in points for value in values if value is not None]
    low, high = min(ends), max(max(ends), min(ends) + 1e-6)
    first, last = min(p[0] for p in points), max(max(p[0] for p in points), 1e-6)
    right, base = width - 16, height - 22

    def place(x: float) -> float:
        return MARGIN + 8 + (right - MARGIN - 8) * (x - first) / max(1e-9, last - first)

    def rise(y: float) -> float:
        return base - (base - 12) * (y - low) / (high - low)

    parts = [
        f'<line x1="{MARGIN}" x2="{right}" y1="{rise(y):.1f}" y2="{rise(y):.1f}" '
        f'stroke="var(--faint)"/><text x="{MARGIN - 4}" y="{rise(y) + 3:.1f}" '
        f'text-anchor="end">{y:.2f}</text>'
        for y in (low, (low + high) / 2, high)
    ]
    parts += [
        f'<text x="{place(x):.1f}" y="{height - 6}" text-anchor="middle">{x:g} s</text>'
        for x in sorted({point[0] for point in points})
    ]
    for number, (colour, curve) in enumerate(series):
        aside = 3 * number  # so that bars of two curves do not hide each other
        line = " ".join(f"{place(x) + aside:.1f},{rise(mean):.1f}" for x, mean, _, _ in curve)
        parts.append(f'<polyline points="{line}" fill="none" stroke="var({colour})"/>')
        for x, mean, least, most in curve:
            at = place(x) + aside
            parts.append(
                f'<circle cx="{at:.1f}" cy="{rise(mean):.1f}" r="3" fill="var({colour})"/>'
            )
            if least is not None and most is not None:
                parts.append(
                    f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{rise(least):.1f}" '
                    f'y2="{rise(most):.1f}" stroke="var({colour})" stroke-width="1.4"/>'
                )
    return _svg(width, height, "".join(parts))


def histograms(
    own: Sequence[Sequence[float]], genuine: Sequence[Sequence[float]], *, columns: int = 6
) -> str:
    """One small histogram for each row: bars are `own`, the outline is `genuine`."""
    cell, tall = 104, 66
    rows = -(-len(own) // columns)
    parts = []
    for index, (bars, outline) in enumerate(zip(own, genuine, strict=True)):
        x0, y0 = (index % columns) * cell + 4, (index // columns) * tall + 12
        top = max(*bars, *outline) or 1.0
        step, room = (cell - 10) / len(bars), tall - 18
        for place, share in enumerate(bars):
            size = room * share / top
            parts.append(
                f'<rect x="{x0 + place * step:.1f}" y="{y0 + room - size:.1f}" '
                f'width="{step - 0.6:.1f}" height="{size:.1f}" fill="var(--own)"/>'
            )
        points = " ".join(
            f"{x0 + place * step + at:.1f},{y0 + room - room * share / top:.1f}"
            for place, share in enumerate(outline)
            for at in (0, step)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="var(--genuine)"/>')
        parts.append(f'<text x="{x0}" y="{y0 - 2}">{index + 1}</text>')
    return _svg(columns * cell, rows * tall + 6, "".join(parts))


def scatter(points: Sequence[tuple[str, float, float, bool]], *, size: int = 420) -> str:
    """Named points; True ones in `--genuine` (squares), the others in `--own` (discs)."""
    xs, ys = [p[1] for p in points], [p[2] for p in points]
    span = max(max(xs) - min(xs), max(ys) - min(ys), 1e-9)
    middle = ((max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2)
    parts = []
    for name, x, y, genuine in points:
        px = size / 2 + (x - middle[0]) / span * (size - 90)
        py = size / 2 - (y - middle[1]) / span * (size - 60)
        mark = (
            f'<rect x="{px - 3:.1f}" y="{py - 3:.1f}" width="6" height="6" fill="var(--genuine)"/>'
            if genuine
            else f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.6" fill="var(--own)"/>'
        )
        parts.append(f'{mark}<text x="{px + 6:.1f}" y="{py + 3:.1f}">{html.escape(name)}</text>')
    return _svg(size + 90, size, "".join(parts))


def matrix(names: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """A square of cosines, darker where greater, with names down the side."""
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
                f'fill="var(--own)" fill-opacity="{strength:.2f}"><title>{html.escape(name)} / '
                f"{html.escape(names[j])}: {value:.3f}</title></rect>"
            )
    return _svg(left + cell * len(names), cell * len(names), "".join(parts))


def grey_image(values_FT: np.ndarray, alternative: str) -> str:
    """An <img> of values 0..1, first row at the bottom, as PNG in a data URI."""
    levels = np.clip(values_FT[::-1] * 255, 0, 255).astype(np.uint8)
    height, width = levels.shape
    raw = b"".join(b"\0" + row.tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    data = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(alternative)}" src="data:image/png;base64,{data}">'


def _svg(width: int, height: int, inner: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img">{inner}</svg>'
