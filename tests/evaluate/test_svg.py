"""Positions of what is drawn."""

import re

import numpy as np
import pytest
import torch

from voxclone.evaluate.report.svg import Axis, Panel, intervals, lines, spectrogram


def test_a_panel_places_values_by_its_axes() -> None:
    panel = Panel(10, 20, 200, 100, Axis(0, 1000), Axis(-1, 1, [(0, "none")]))
    assert [panel.px(x) for x in (0, 10, 1000)] == pytest.approx([10, 12, 210])
    assert [panel.py(y) for y in (1, 0, -1)] == pytest.approx([20, 70, 120])
    assert panel.curve([(0, -1), (1000, 1)], "red") == (
        '<polyline points="10.0,120.0 210.0,20.0" fill="none" stroke="red" stroke-width="1.4"/>'
    )
    frame = panel.frame()
    assert 'y1="70.0"' in frame and ">none</text>" in frame


def test_curves_and_intervals_use_the_colors_of_the_page() -> None:
    curve = lines([("var(--encoder)", [0.0, 2.0, 1.0]), ("var(--preset)", [1.0])])
    assert re.findall(r'stroke="(var\(--\w+\))"', curve) == ["var(--encoder)", "var(--preset)"]
    assert 'points="34.0,182.0 335.0,8.0 636.0,95.0"' in curve
    drawn = intervals([("var(--encoder)", [(5.0, 0.5, 0.4, 0.6), (8.0, 0.7, None, None)])])
    assert drawn.count("<circle") == 2 and drawn.count('stroke-width="1.4"') == 2
    assert ">5 s</text>" in drawn and ">0.40</text>" in drawn and ">0.70</text>" in drawn


def test_the_spectrogram_of_a_tone_peaks_at_its_frequency() -> None:
    wave_S = torch.sin(torch.arange(24000) * (2 * torch.pi * 2000 / 24000))
    values_FT = spectrogram(wave_S)
    rows = values_FT[:, 20:80].mean(axis=1)
    assert values_FT.shape == (171, 101)
    assert int(np.argmax(rows)) == pytest.approx(2000 / 8000 * 171, abs=1)
    assert rows.max() > 0.95 and rows[150] == 0
