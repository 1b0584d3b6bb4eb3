"""Acoustic levels of an encoder, against those of the presets.

The presets' codes show the distribution of each channel's levels, and their joint distribution.
`mahalanobis` measures the latter: the distance of two neighboring frames, all channels of both, in
a Gaussian of preset frames. Codes with the right histogram in every channel can be far off by it,
and the language model never saw such frames.

Shapes: K codebooks, C acoustic channels, T frames, N pairs of frames, Q levels, P = 2C.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

SHRINKAGE = 0.05
MIN_PAIRS = 4  # of frames for each channel: fewer fix no covariance
MIN_STD = 0.5  # levels


@dataclass(frozen=True)
class LevelStats:
    """Levels of some codes: mean and standard deviation [C], histogram [C][Q] as shares. `extreme`
    is the share at either end, `outer` the share beyond the range of a second tanh (2..18 of
    0..20)."""

    frames: int
    mean: list[float]
    std: list[float]
    histogram: list[list[float]]
    extreme: float
    outer: float


@dataclass(frozen=True)
class LevelComparison:
    """Levels of an encoder and of the presets. By channel [C]: `mean_shift` in preset standard
    deviations, and `std_ratio`. `wasserstein` is the mean Wasserstein-1 distance of the channels'
    histograms, in levels. `mahalanobis` is per dimension, 1 for presets; `mahalanobis_max_preset`
    is that of the most distant preset, each measured against the others."""

    encoder: LevelStats
    presets: LevelStats
    mean_shift: list[float]
    std_ratio: list[float]
    wasserstein: float
    mahalanobis: float | None
    mahalanobis_max_preset: float | None


def level_stats(codes: Sequence[Tensor], levels: int) -> LevelStats:
    """Statistics of the codes [K, T] of several clips."""
    levels_CN = np.concatenate([each[1:].numpy() for each in codes], axis=1)
    histogram_CQ = np.stack(
        [np.bincount(row, minlength=levels) / levels_CN.shape[1] for row in levels_CN]
    )
    top = levels - 1
    reach = round(top / 2 * (1 + np.tanh(1.0)))
    return LevelStats(
        frames=levels_CN.shape[1],
        mean=levels_CN.mean(axis=1).tolist(),
        std=levels_CN.std(axis=1).tolist(),
        histogram=histogram_CQ.tolist(),
        extreme=float(((levels_CN == 0) | (levels_CN == top)).mean()),
        outer=float(((levels_CN > reach) | (levels_CN < top - reach)).mean()),
    )


def compare_levels(
    codes: Sequence[Tensor], preset_codes: Sequence[Tensor], levels: int
) -> LevelComparison:
    """Compare the codes [K, T] of clips with those of the presets."""
    encoder, presets = level_stats(codes, levels), level_stats(preset_codes, levels)
    std_C = np.maximum(np.array(presets.std), MIN_STD)
    cumulative_CQ = np.cumsum(np.subtract(encoder.histogram, presets.histogram), axis=1)
    mahalanobis, max_preset = _mahalanobis(codes, preset_codes)
    return LevelComparison(
        encoder=encoder,
        presets=presets,
        mean_shift=(np.subtract(encoder.mean, presets.mean) / std_C).tolist(),
        std_ratio=(np.maximum(np.array(encoder.std), 1e-3) / std_C).tolist(),
        wasserstein=float(np.abs(cumulative_CQ).sum(axis=1).mean()),
        mahalanobis=mahalanobis,
        mahalanobis_max_preset=max_preset,
    )


def _mahalanobis(
    codes: Sequence[Tensor], preset_codes: Sequence[Tensor]
) -> tuple[float | None, float | None]:
    """The distances of `codes` and of the most distant preset, over the presets' mean distance.
    Each preset is measured against the others. None with too few preset frames."""
    pairs = [_frame_pairs(each) for each in preset_codes if each.shape[1] > 1]
    if len(pairs) < 3 or sum(map(len, pairs)) < MIN_PAIRS * pairs[0].shape[1]:
        return None, None
    left_out = [
        _mean_distance(pairs_NP, np.concatenate(pairs[:i] + pairs[i + 1 :]))
        for i, pairs_NP in enumerate(pairs)
    ]
    usual = float(np.mean(left_out))
    own_NP = np.concatenate([_frame_pairs(each) for each in codes if each.shape[1] > 1])
    return _mean_distance(own_NP, np.concatenate(pairs)) / usual, max(left_out) / usual


def _frame_pairs(codes_KT: Tensor) -> np.ndarray:
    levels_TC = codes_KT[1:].numpy().T.astype(np.float64)
    return np.concatenate([levels_TC[:-1], levels_TC[1:]], axis=1)


def _mean_distance(pairs_NP: np.ndarray, reference_NP: np.ndarray) -> float:
    """Mean squared Mahalanobis distance per dimension in the Gaussian of `reference_NP`."""
    mean_P = reference_NP.mean(axis=0)
    covariance_PP = np.cov(reference_NP, rowvar=False)
    covariance_PP = (1 - SHRINKAGE) * covariance_PP + SHRINKAGE * np.diag(np.diag(covariance_PP))
    # Levels are rounded: no direction is narrower than the rounding itself.
    covariance_PP += np.eye(len(mean_P)) / 12
    away_NP = pairs_NP - mean_P
    solved_PN = np.linalg.solve(covariance_PP, away_NP.T)
    return float((away_NP * solved_PN.T).sum(axis=1).mean() / len(mean_P))
