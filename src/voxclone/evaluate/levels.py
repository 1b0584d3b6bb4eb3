"""The acoustic levels of an encoder against those of genuine codes.

Genuine codes (the presets, inverted) fix how the levels of each channel lie, and how they go
together: *strangeness* is the Mahalanobis distance of two neighbouring frames, all channels of
both, in a Gaussian of genuine frames. Codes may have every channel's histogram right and still be
of a kind that the model never saw.

Shapes: K code books, C acoustic channels, T frames, N pairs of frames, Q levels, P = 2C.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

SHRINKAGE = 0.05
LEAST_PAIRS = 4  # of frames for each channel: fewer fix no covariance


@dataclass(frozen=True)
class LevelFigures:
    """Levels of some codes. `histogram` is [C][Q], shares; `extreme` the share at either end;
    `outer` that beyond what one tanh too many could reach (2..18 of 0..20)."""

    frames: int
    mean: list[float]
    spread: list[float]
    histogram: list[list[float]]
    extreme: float
    outer: float


@dataclass(frozen=True)
class LevelHealth:
    """Levels of an encoder and of genuine codes. `moved` is, for each channel, the difference of
    means in genuine spreads; `widened` the ratio of spreads; `apart` the mean over channels of the
    distance between the two histograms (Wasserstein-1, levels). `strangeness` is per channel, 1 for
    genuine codes; `strangest_genuine` that of the strangest preset, judged by the others."""

    own: LevelFigures
    genuine: LevelFigures
    moved: list[float]
    widened: list[float]
    apart: float
    strangeness: float | None
    strangest_genuine: float | None


def level_figures(codes: Sequence[Tensor], levels: int) -> LevelFigures:
    """Figures of codes [K, T] of several clips."""
    levels_CN = np.concatenate([each[1:].numpy() for each in codes], axis=1)
    histogram_CQ = np.stack(
        [np.bincount(row, minlength=levels) / levels_CN.shape[1] for row in levels_CN]
    )
    half = (levels - 1) / 2
    reach = round(half + half * np.tanh(1.0))
    top = levels - 1
    return LevelFigures(
        frames=levels_CN.shape[1],
        mean=levels_CN.mean(axis=1).tolist(),
        spread=levels_CN.std(axis=1).tolist(),
        histogram=histogram_CQ.tolist(),
        extreme=float(((levels_CN == 0) | (levels_CN == top)).mean()),
        outer=float(((levels_CN > reach) | (levels_CN < top - reach)).mean()),
    )


def level_health(codes: Sequence[Tensor], genuine: Sequence[Tensor], levels: int) -> LevelHealth:
    """Compare codes [K, T] of clips with genuine codes, one [K, T] for each preset."""
    own, true = level_figures(codes, levels), level_figures(genuine, levels)
    spread_C = np.maximum(np.array(true.spread), 0.5)
    own_CQ, true_CQ = np.array(own.histogram), np.array(true.histogram)
    apart_C = np.abs(own_CQ.cumsum(axis=1) - true_CQ.cumsum(axis=1)).sum(axis=1)
    strangeness, strangest = _strangeness(codes, genuine)
    return LevelHealth(
        own=own,
        genuine=true,
        moved=((np.array(own.mean) - np.array(true.mean)) / spread_C).tolist(),
        widened=(np.maximum(np.array(own.spread), 1e-3) / spread_C).tolist(),
        apart=float(apart_C.mean()),
        strangeness=strangeness,
        strangest_genuine=strangest,
    )


def _strangeness(
    codes: Sequence[Tensor], genuine: Sequence[Tensor]
) -> tuple[float | None, float | None]:
    """Mean squared Mahalanobis distance per dimension of `codes`, and of the strangest genuine
    clip by the Gaussian of the others, both over the mean of the genuine clips so judged."""
    pairs = [_pairs(each) for each in genuine if each.shape[1] > 1]
    if len(pairs) < 3 or sum(map(len, pairs)) < LEAST_PAIRS * pairs[0].shape[1]:
        return None, None
    left_out = []
    for index, pairs_NP in enumerate(pairs):
        others_NP = np.concatenate(pairs[:index] + pairs[index + 1 :])
        left_out.append(_distance(pairs_NP, others_NP))
    usual = float(np.mean(left_out))
    own_NP = np.concatenate([_pairs(each) for each in codes if each.shape[1] > 1])
    return _distance(own_NP, np.concatenate(pairs)) / usual, max(left_out) / usual


def _pairs(codes_KT: Tensor) -> np.ndarray:
    levels_TC = codes_KT[1:].numpy().T.astype(np.float64)
    return np.concatenate([levels_TC[:-1], levels_TC[1:]], axis=1)


def _distance(pairs_NP: np.ndarray, genuine_NP: np.ndarray) -> float:
    mean_P = genuine_NP.mean(axis=0)
    covariance_PP = np.cov(genuine_NP, rowvar=False)
    # Levels are rounded: no direction is narrower than the rounding itself.
    covariance_PP = (1 - SHRINKAGE) * covariance_PP + SHRINKAGE * np.diag(np.diag(covariance_PP))
    covariance_PP += np.eye(len(mean_P)) / 12
    away_NP = pairs_NP - mean_P
    solved_PN = np.linalg.solve(covariance_PP, away_NP.T)
    return float((away_NP * solved_PN.T).sum(axis=1).mean() / len(mean_P))
