"""The drawings of a report, by its schema (see `drawing` for what they are made of)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from voxclone.evaluate.report import drawing

LEGEND = '<p class="note"><b class="own">this encoder</b> <b class="genuine">genuine</b></p>'


def drawings_of(report: Mapping[str, Any]) -> str:
    """HTML of the drawings; empty for a report that is all tables."""
    kind = report["schema"].split("/")[0]
    if kind == "voxclone.diagnosis":
        return _diagnosis(report)
    if kind == "voxclone.voices" and len(report["scores"]) > 1:
        return _voices(report)
    return ""


def _diagnosis(report: Mapping[str, Any]) -> str:
    book, levels, rows = report["book"], report["levels"], report["rows"]
    order = np.argsort(book["prior"])[::-1]
    share = np.array(book["counts"]) / max(1, sum(book["counts"]))
    shown = order[: max(64, int((np.array(book["prior"]) > 0).sum()))]
    smooth = max(1, len(shown) // 128)
    curves = [
        np.convolve(np.asarray(values)[shown], np.ones(smooth) / smooth, "same").tolist()
        for values in (share, np.array(book["prior"]))
    ]
    points = [(each["name"], each["x"], each["y"], each["preset"]) for each in rows["map"]]
    return (
        f"<h2>Use of the semantic codes</h2>{LEGEND}"
        + drawing.lines([("var(--own)", curves[0]), ("var(--genuine)", curves[1])])
        + '<p class="note">Codes in the order of the prior, the commonest first.</p>'
        + f"<h2>Levels of the acoustic channels</h2>{LEGEND}"
        + drawing.histograms(levels["own"]["histogram"], levels["genuine"]["histogram"])
        + f"<h2>Mean rows of voices</h2>{LEGEND}"
        + drawing.scatter(points)
        + '<p class="note">First two principal directions of the presets\' rows.</p>'
        + "<h2>Cosines of mean rows</h2>"
        + drawing.matrix(rows["names"], rows["cosines"])
    )


def _voices(report: Mapping[str, Any]) -> str:
    parts = []
    for name in report["scores"][0]["likeness"]:
        curves = [
            (
                colour,
                [
                    (
                        each["seconds"],
                        *(each["likeness"][name][kind][k] for k in ("mean", "low", "high")),
                    )
                    for each in report["scores"]
                ],
            )
            for colour, kind in (("var(--own)", "matched"), ("var(--genuine)", "shuffled"))
        ]
        parts.append(
            f"<h2>Likeness against seconds of reference, {name}</h2>"
            '<p class="note"><b class="own">to the own reference</b> '
            '<b class="genuine">to other speakers\'</b>; bars are intervals over speakers</p>'
            + drawing.intervals(curves)
        )
    return "".join(parts)
