"""Which encoder of a run is kept as the best.

No single cheap figure foretells how good cloned speech will be (docs/LOG.md, 2026-11-26): likeness
follows the levels, words and endings the semantic codes, and whoever goes by one of them alone
chooses an encoder that is bad in the other. So an encoder replaces the one that was kept only if

- *neither* figure is worse than the best of that figure among all that were kept, by more than a
  slack for its noise (so many small losses cannot add up), and
- both together, each in units of its slack, are better than those of the one that is kept.

The figure of levels is the held-out presets' share within one. The semantic figure is the language
model's NLL where it is measured and the model has not taught the encoder (the weight `told`), else
the presets' semantic agreement.
"""

from collections.abc import Mapping
from typing import Any

LEVELS = "preset/within_one"
SEMANTIC = "preset/semantic"
NLL = "real/semantic_nll"
SLACK = {LEVELS: 0.01, SEMANTIC: 0.01, NLL: 0.05}


def scores_of(figures: Mapping[str, float], *, told: bool) -> dict[str, float]:
    """The two figures that choose, turned so that more is better."""
    if NLL in figures and not told:
        return {LEVELS: figures[LEVELS], NLL: -figures[NLL]}
    return {LEVELS: figures[LEVELS], SEMANTIC: figures[SEMANTIC]}


def choose(
    best: Mapping[str, Any] | None, scores: Mapping[str, float], step: int
) -> dict[str, Any]:
    """What is known of the best encoder (JSON values) after one with these scores: `step` tells
    which it is, `scores` are its own, `tops` the highest of each figure that was ever kept."""
    if best is None or set(best["scores"]) != set(scores):
        return {"step": step, "scores": dict(scores), "tops": dict(scores)}
    no_worse = all(scores[name] >= best["tops"][name] - SLACK[name] for name in scores)
    gain = sum((scores[name] - best["scores"][name]) / SLACK[name] for name in scores)
    if not no_worse or gain <= 0:
        return dict(best)
    tops = {name: max(scores[name], best["tops"][name]) for name in scores}
    return {"step": step, "scores": dict(scores), "tops": tops}
