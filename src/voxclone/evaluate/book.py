"""The semantic stream of an encoder against the code book that it must hit.

The release tells how often each code was used when the true encoder was trained (`cluster_usage`)
and where the latents of each code lay on average (the code vectors themselves: EMA sums over EMA
counts). Both are compared with what an encoder gives for real speech. Figures of a histogram depend
on how many frames there are, so beside each stands what that many draws from the prior would give.

Shapes: N frames, V code vectors, D semantic width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from voxclone.codec.quantizer import SemanticCodebook

DRAWS = 20
LEAST_FRAMES = 5  # of a code, before the mean of its latents is looked at


@dataclass(frozen=True)
class BookHealth:
    """Use of the code book by real speech; `expected_*` is of as many frames drawn from the prior.

    `perplexity` is exp(entropy) of the codes; `kl` that of their histogram to the prior, nats;
    `unused_mass` the prior's mass on codes that never came. `scale` is the latents' mean norm over
    the code vectors'. In units of the code book's total variance: `distance` of a latent to its
    code vector, `margin` by which the second nearest is farther, `drift` of a code's mean latent
    from its vector. `largest_share` is that of the commonest code, `counts` the histogram."""

    frames: int
    codes_in_use: int
    distinct_per_clip: float
    largest_share: float
    perplexity: float
    kl: float
    unused_mass: float
    expected_perplexity: float
    expected_kl: float
    expected_unused_mass: float
    scale: float
    distance: float
    margin: float
    drift: float | None
    counts: list[int]
    prior: list[float]


def book_health(
    book: SemanticCodebook,
    latents_ND: Sequence[Tensor],
    codes_N: Sequence[Tensor],
    *,
    seed: int = 0,
) -> BookHealth:
    """Figures of clips, each given as its semantic latents [N, D] and its codes [N]."""
    every_ND, every_N = torch.cat(list(latents_ND)), torch.cat(list(codes_N))
    vectors_VD = book.vectors()
    prior_V = (book.cluster_usage / book.cluster_usage.sum()).double().numpy()
    counts_V = torch.bincount(every_N, minlength=len(vectors_VD)).numpy()
    perplexity, kl, unused = _histogram(counts_V, prior_V)
    generator = np.random.default_rng(seed)
    drawn = [
        _histogram(generator.multinomial(len(every_N), prior_V), prior_V) for _ in range(DRAWS)
    ]
    expected = np.mean(drawn, axis=0)
    nearest_N2 = torch.cdist(every_ND, vectors_VD).square().topk(2, largest=False).values
    spread = float(book.spread())
    norms_V = vectors_VD.norm(dim=-1).double().numpy()
    return BookHealth(
        frames=len(every_N),
        codes_in_use=int((counts_V > 0).sum()),
        distinct_per_clip=float(np.mean([len(each.unique()) for each in codes_N])),
        largest_share=float(counts_V.max() / len(every_N)),
        perplexity=perplexity,
        kl=kl,
        unused_mass=unused,
        expected_perplexity=float(expected[0]),
        expected_kl=float(expected[1]),
        expected_unused_mass=float(expected[2]),
        scale=float(every_ND.norm(dim=-1).mean() / max(1e-9, float((norms_V * prior_V).sum()))),
        distance=float(nearest_N2[:, 0].mean()) / spread,
        margin=float((nearest_N2[:, 1] - nearest_N2[:, 0]).mean()) / spread,
        drift=_drift(every_ND, every_N, vectors_VD, spread),
        counts=counts_V.tolist(),
        prior=prior_V.tolist(),
    )


def _histogram(counts_V: np.ndarray, prior_V: np.ndarray) -> tuple[float, float, float]:
    share_V = counts_V / counts_V.sum()
    used = share_V > 0
    entropy = -float((share_V[used] * np.log(share_V[used])).sum())
    # A code that the prior never saw would make the distance infinite: it counts as one seen once
    # in a million.
    floor_V = np.maximum(prior_V, 1e-6)
    kl = float((share_V[used] * np.log(share_V[used] / floor_V[used])).sum())
    return float(np.exp(entropy)), kl, float(prior_V[~used].sum())


def _drift(latent_ND: Tensor, codes_N: Tensor, vectors_VD: Tensor, spread: float) -> float | None:
    """Mean over frames of common codes; None if no code is common."""
    counts_V = torch.bincount(codes_N, minlength=len(vectors_VD))
    sums_VD = torch.zeros_like(vectors_VD).index_add_(0, codes_N, latent_ND)
    common_V = counts_V >= LEAST_FRAMES
    if not bool(common_V.any()):
        return None
    weight_V = counts_V[common_V].float()
    means_VD = sums_VD[common_V] / weight_V[:, None]
    distance_V = (means_VD - vectors_VD[common_V]).square().sum(dim=-1)
    # A mean of n latents lies off by the latents' own spread over n even if nothing is wrong.
    within = (latent_ND - sums_VD[codes_N] / counts_V[codes_N, None]).square().sum(dim=-1)
    noise = float(within[common_V[codes_N]].mean()) / weight_V
    return float((weight_V * (distance_V - noise)).sum() / weight_V.sum()) / spread
