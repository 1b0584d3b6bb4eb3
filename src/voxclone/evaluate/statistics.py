"""Means with confidence intervals.

Utterances of one speaker are correlated, so the bootstrap resamples speakers and not utterances.

Shapes: G groups, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, and the numbers of values and groups. The interval is None for
    a single group, which shows nothing of other groups."""

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


def bootstrap(values: Sequence[float], groups: Sequence[str]) -> Interval:
    """Mean of the groups' means, with its percentile interval under resampling of groups.

    Raises ValueError without values.
    """
    if not values or len(values) != len(groups):
        raise ValueError(f"expected as many groups as values, got {len(groups)} and {len(values)}")
    by_group: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        by_group.setdefault(group, []).append(value)
    means_G = np.array([float(np.mean(each)) for each in by_group.values()])
    mean = float(means_G.mean())
    if len(means_G) < 2:
        return Interval(mean, None, None, len(values), len(means_G))
    generator = np.random.default_rng(0)
    drawn_RG = generator.integers(len(means_G), size=(RESAMPLES, len(means_G)))
    low, high = np.quantile(means_G[drawn_RG].mean(axis=1), (0.025, 0.975))
    return Interval(mean, float(low), float(high), len(values), len(means_G))


def bootstrap_known(values: Sequence[float | None], groups: Sequence[str]) -> Interval | None:
    """As `bootstrap`, of the values that are not None; None if all are."""
    known = [
        (value, group) for value, group in zip(values, groups, strict=True) if value is not None
    ]
    return bootstrap(*map(list, zip(*known, strict=True))) if known else None
