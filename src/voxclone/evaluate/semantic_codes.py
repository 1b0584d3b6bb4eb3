"""Use of the semantic codebook by an encoder, against the release's own statistics.

The codebook holds how often each code was used in training (`cluster_usage`, the prior) and the
mean latent of each code (its vector: EMA sums over EMA counts). Histogram metrics depend on the
number of frames, so `expected_*` gives the same metric for as many draws from the prior.

Shapes: N frames, V code vectors, D semantic width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from voxclone.codec.quantizer import SemanticCodebook

DRAWS = 20
MIN_FRAMES = 5  # of a code, for the mean of its latents
MIN_SHARE = 1e-6  # of a code that the prior never saw: its KL would be infinite


@dataclass(frozen=True)
class SemanticCodeStats:
    """Histogram and latents of the semantic codes of real speech.

    `perplexity` is exp(entropy) of the codes, `kl` the divergence of their histogram from the prior
    in nats. `norm_ratio` is the latents' mean norm over that of code vectors. In units of the
    codebook's total variance: `distance` of a latent to its code vector, `margin` to the second
    nearest, and `drift` of a code's mean latent from its vector. `counts` is the histogram [V],
    `largest_share` that of the most frequent code."""

    frames: int
    codes_in_use: int
    distinct_per_clip: float
    largest_share: float
    perplexity: float
    kl: float
    expected_perplexity: float
    expected_kl: float
    norm_ratio: float
    distance: float
    margin: float
    drift: float | None
    counts: list[int]
    prior: list[float]


def semantic_code_stats(
    codebook: SemanticCodebook,
    latents_ND: Sequence[Tensor],
    codes_N: Sequence[Tensor],
    *,
    seed: int = 0,
) -> SemanticCodeStats:
    """Statistics of clips, each with its semantic latents [N, D] and its codes [N]."""
    all_ND, all_N = torch.cat(list(latents_ND)), torch.cat(list(codes_N))
    vectors_VD = codebook.vectors()
    prior_V = (codebook.cluster_usage / codebook.cluster_usage.sum()).double().numpy()
    counts_V = torch.bincount(all_N, minlength=len(vectors_VD)).numpy()
    generator = np.random.default_rng(seed)
    drawn = [generator.multinomial(len(all_N), prior_V) for _ in range(DRAWS)]
    expected = np.mean([_perplexity_and_kl(each_V, prior_V) for each_V in drawn], axis=0)
    perplexity, kl = _perplexity_and_kl(counts_V, prior_V)
    nearest_N2 = torch.cdist(all_ND, vectors_VD).square().topk(2, largest=False).values
    variance = float(codebook.spread())
    vector_norm = float((vectors_VD.norm(dim=-1).double().numpy() * prior_V).sum())
    return SemanticCodeStats(
        frames=len(all_N),
        codes_in_use=int((counts_V > 0).sum()),
        distinct_per_clip=float(np.mean([len(each.unique()) for each in codes_N])),
        largest_share=float(counts_V.max() / len(all_N)),
        perplexity=perplexity,
        kl=kl,
        expected_perplexity=float(expected[0]),
        expected_kl=float(expected[1]),
        norm_ratio=float(all_ND.norm(dim=-1).mean() / max(1e-9, vector_norm)),
        distance=float(nearest_N2[:, 0].mean()) / variance,
        margin=float((nearest_N2[:, 1] - nearest_N2[:, 0]).mean()) / variance,
        drift=_drift(all_ND, all_N, vectors_VD, variance),
        counts=counts_V.tolist(),
        prior=prior_V.tolist(),
    )


def _perplexity_and_kl(counts_V: np.ndarray, prior_V: np.ndarray) -> tuple[float, float]:
    used = counts_V > 0
    share = counts_V[used] / counts_V.sum()
    entropy = -float((share * np.log(share)).sum())
    cross_entropy = -float((share * np.log(np.maximum(prior_V[used], MIN_SHARE))).sum())
    return float(np.exp(entropy)), cross_entropy - entropy


def _drift(latent_ND: Tensor, codes_N: Tensor, vectors_VD: Tensor, variance: float) -> float | None:
    """Mean over the frames of common codes; None without common codes."""
    counts_V = torch.bincount(codes_N, minlength=len(vectors_VD))
    sums_VD = torch.zeros_like(vectors_VD).index_add_(0, codes_N, latent_ND)
    common_V = counts_V >= MIN_FRAMES
    if not bool(common_V.any()):
        return None
    weight_V = counts_V[common_V].float()
    means_VD = sums_VD[common_V] / weight_V[:, None]
    distance_V = (means_VD - vectors_VD[common_V]).square().sum(dim=-1)
    # The mean of n latents is off by their variance over n even without drift.
    within = (latent_ND - sums_VD[codes_N] / counts_V[codes_N, None]).square().sum(dim=-1)
    noise_V = float(within[common_V[codes_N]].mean()) / weight_V
    return float((weight_V * (distance_V - noise_V)).sum() / weight_V.sum()) / variance
