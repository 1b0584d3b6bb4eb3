"""Means with intervals.

Utterances of one speaker are alike, so the bootstrap draws speakers and not utterances.

Shapes: N values, G groups, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean, its 95 % interval, and how many values of how many groups it is of. Without a second
    group nothing is known of other groups: the interval is then None."""

    mean: float
    low: float | None
    high: float | None
    values: int
    groups: int

    def above(self, bound: float) -> bool:
        """Whether the whole interval lies above `bound`."""
        return self.low is not None and self.low > bound

    def below(self, bound: float) -> bool:
        """Whether the whole interval lies below `bound`."""
        return self.high is not None and self.high < bound


def bootstrap(values: Sequence[float], groups: Sequence[str], *, seed: int = 0) -> Interval:
    """Mean over groups of the groups' means, with its percentile interval under resampling of the
    groups. Raises ValueError without values."""
    if not values or len(values) != len(groups):
        raise ValueError(f"expected as many groups as values, got {len(groups)} and {len(values)}")
    by_group: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        by_group.setdefault(group, []).append(value)
    means_G = np.array([float(np.mean(each)) for each in by_group.values()])
    mean = float(means_G.mean())
    if len(means_G) < 2:
        return Interval(mean, None, None, len(values), len(means_G))
    generator = np.random.default_rng(seed)
    drawn_RG = generator.integers(len(means_G), size=(RESAMPLES, len(means_G)))
    low, high = np.quantile(means_G[drawn_RG].mean(axis=1), (0.025, 0.975))
    return Interval(mean, float(low), float(high), len(values), len(means_G))


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's correlation of two rows of figures; ties share their mean rank."""
    if len(a) != len(b) or len(a) < 3:
        raise ValueError(f"expected two rows of at least three values, got {len(a)} and {len(b)}")
    ranks = [_ranks(np.asarray(row, dtype=float)) for row in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(row_N: np.ndarray) -> np.ndarray:
    below = (row_N[:, None] > row_N).sum(axis=1)
    same = (row_N[:, None] == row_N).sum(axis=1)
    ranks: np.ndarray = below + (same - 1) / 2
    return ranks
