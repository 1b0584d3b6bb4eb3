"""The plots of a report, by its schema."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from voxclone.evaluate.report import svg

LEGEND = '<p class="note"><b class="encoder">this encoder</b> <b class="preset">presets</b></p>'


def plots_of(report: Mapping[str, Any]) -> str:
    """HTML of the plots; empty for a report without."""
    kind = report["schema"].split("/")[0]
    if kind == "voxclone.diagnosis":
        return _diagnosis(report)
    if kind == "voxclone.voices" and len(report["scores"]) > 1:
        return _cloning(report)
    return ""


def _diagnosis(report: Mapping[str, Any]) -> str:
    levels, voices = report["levels"], report["voice_embeddings"]
    counts, prior = (np.array(report["semantic_codes"][key]) for key in ("counts", "prior"))
    shown = np.argsort(prior)[::-1][: max(64, int((prior > 0).sum()))]
    smooth = max(1, len(shown) // 128)
    curves = [
        np.convolve(share[shown], np.ones(smooth) / smooth, "same").tolist()
        for share in (counts / max(1, counts.sum()), prior)
    ]
    points = [(each["name"], each["x"], each["y"], each["preset"]) for each in voices["map"]]
    return (
        f"<h2>Use of the semantic codes</h2>{LEGEND.replace('presets', 'prior')}"
        + svg.lines([("var(--encoder)", curves[0]), ("var(--preset)", curves[1])])
        + '<p class="note">Codes in the order of the prior, the most frequent first.</p>'
        + f"<h2>Levels of the acoustic channels</h2>{LEGEND}"
        + svg.histograms(levels["encoder"]["histogram"], levels["presets"]["histogram"])
        + f"<h2>Mean voice embeddings</h2>{LEGEND}"
        + svg.scatter(points)
        + '<p class="note">First two principal directions of the presets.</p>'
        + "<h2>Cosines of mean voice embeddings</h2>"
        + svg.matrix(voices["names"], voices["cosines"])
    )


def _cloning(report: Mapping[str, Any]) -> str:
    scores = report["scores"]
    parts = []
    for name in scores[0]["similarity"]:
        curves = []
        for color, kind in (("var(--encoder)", "same_speaker"), ("var(--preset)", "cross_speaker")):
            values = [each["similarity"][name][kind] for each in scores]
            points = [
                (each["seconds"], value["mean"], value["low"], value["high"])
                for each, value in zip(scores, values, strict=True)
            ]
            curves.append((color, points))
        parts.append(
            f"<h2>Speaker similarity against seconds of reference, {name}</h2>"
            '<p class="note"><b class="encoder">same speaker</b> '
            '<b class="preset">cross-speaker</b>; bars are intervals over speakers</p>'
            + svg.intervals(curves)
        )
    return "".join(parts)
