"""What the checkpoint tells of the true encoder's codes, as losses on the codes of real speech.

`cluster_usage` is the marginal of semantic codes in the true training; a code vector is the mean of
the true encoder's latents that had its code (`embedding_sum / cluster_usage`); genuine codes
(presets and the model's own speech) give the histogram of levels of every acoustic channel.

Shapes: B batch, D latent width, T frames, K code books, C channels, Q levels, V code vectors,
N latents.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxclone.codec.model import Codec
from voxclone.codec.quantizer import Quantizer

MOST_FRAMES = 200_000
KEPT = 0.99
"""Of what is known of a code's latents, at each step."""


@dataclass(frozen=True)
class CodePriors:
    """Share of each semantic code [V] and quantiles of the values of each channel [C, Q]."""

    usage_V: Tensor
    quantiles_CQ: Tensor

    @classmethod
    def from_codes(cls, codec: Codec, genuine: Sequence[Tensor], points: int = 64) -> "CodePriors":
        """Read usage from the code book and quantiles from genuine codes [K, T]."""
        usage_V = codec.quantizer.semantic_codebook.cluster_usage.clamp(min=1e-5)
        last: list[Tensor] = []  # of stored pairs there may be days
        while len(last) < len(genuine) and sum(codes.shape[1] for codes in last) < MOST_FRAMES:
            last.insert(0, genuine[-len(last) - 1])
        levels_CT = torch.cat([codes[1:] for codes in last], dim=1).long()
        values_CT = codec.quantizer.values_of(levels_CT.to(usage_V.device))
        at_Q = (torch.arange(points, device=usage_V.device) + 0.5) / points
        quantiles_CQ = torch.quantile(values_CT[:, -MOST_FRAMES:], at_Q, dim=1).T
        return cls(usage_V / usage_V.sum(), quantiles_CQ)


def level_loss(priors: CodePriors, quantizer: Quantizer, latent_BDT: Tensor) -> Tensor:
    """Distance of each channel's values in the batch from genuine ones: the mean absolute
    difference of quantiles (Wasserstein-1), so a channel may not drift or spread."""
    _, acoustic_BCT = quantizer.split(latent_BDT)
    values_CN = torch.tanh(acoustic_BCT).transpose(0, 1).flatten(1)
    points = priors.quantiles_CQ.shape[1]
    at_Q = (torch.arange(points, device=values_CN.device) + 0.5) / points
    found_CQ = torch.quantile(values_CN.float(), at_Q, dim=1).T
    return (found_CQ - priors.quantiles_CQ).abs().mean()


def diversity_loss(quantizer: Quantizer, latent_BDT: Tensor) -> Tensor:
    """How far the batch's mean soft assignment, softmax(-|z - e| / 10), is from the largest entropy
    that its frames can have, as a share of it (the community's V2 and V3). The true marginal is not
    even: `usage_loss`."""
    semantic_BDT, _ = quantizer.split(latent_BDT)
    latent_ND = semantic_BDT.transpose(1, 2).flatten(0, 1)
    squared_NV = quantizer.semantic_codebook.squared_distances(latent_ND)
    mean_V = (-squared_NV.clamp(min=1e-6).sqrt() / 10).softmax(dim=-1).mean(dim=0)
    largest = math.log(min(squared_NV.shape))
    return 1 + (mean_V * mean_V.clamp(min=1e-10).log()).sum() / largest


def scale_loss(quantizer: Quantizer, latent_BDT: Tensor) -> Tensor:
    """Difference of the semantic latents' standard deviation from that of the code vectors (the
    community's V1 to V3; their figure is 13.6)."""
    semantic_BDT, _ = quantizer.split(latent_BDT)
    wanted = quantizer.semantic_codebook.vectors().std()
    return (semantic_BDT.float().std() - wanted).abs()


def shaping_loss(
    quantizer: Quantizer, latent_BDT: Tensor, spread: float = 0.55, *, bounded: bool = False
) -> Tensor:
    """Distances of the acoustic values' mean from 0 and of their standard deviation from `spread`,
    over all channels together (the community's V3). `bounded`: a tanh has been there already."""
    _, acoustic_BCT = quantizer.split(latent_BDT)
    value = acoustic_BCT.float() if bounded else torch.tanh(acoustic_BCT.float())
    return value.mean().abs() + (value.std() - spread).abs()


def usage_loss(
    priors: CodePriors, quantizer: Quantizer, latent_BDT: Tensor, temperature: float = 0.1
) -> Tensor:
    """KL of the batch's mean soft assignment from the true marginal of semantic codes."""
    semantic_BDT, _ = quantizer.split(latent_BDT)
    latent_ND = semantic_BDT.transpose(1, 2).flatten(0, 1)
    vectors_VD = quantizer.semantic_codebook.vectors()
    spread = quantizer.semantic_codebook.spread()
    squared_NV = torch.cdist(latent_ND, vectors_VD).square()
    mean_V = (-squared_NV / (spread * temperature)).softmax(dim=-1).mean(dim=0)
    return (mean_V * (mean_V.clamp(min=1e-8) / priors.usage_V).log()).sum()


class CodeMeans(nn.Module):
    """Running means of the semantic latents that are nearest to each code vector: over many
    batches, since one has few frames of a code."""

    sum_VD: Tensor
    count_V: Tensor

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        vectors_VD = quantizer.semantic_codebook.vectors()
        self.register_buffer("sum_VD", torch.zeros_like(vectors_VD))
        self.register_buffer("count_V", vectors_VD.new_zeros(len(vectors_VD)))

    def loss(self, quantizer: Quantizer, latent_BDT: Tensor, parts: int = 1) -> Tensor:
        """Squared distance of the mean latent of each code from its vector, over the batch's frames
        and as a share of the spread of the vectors. Unlike a commitment it leaves a latent its
        place about the vector: only what all latents of a code have in common is drawn back. A step
        in so many `parts` calls it for each."""
        semantic_BDT, _ = quantizer.split(latent_BDT)
        latent_ND = semantic_BDT.transpose(1, 2).flatten(0, 1).float()
        book = quantizer.semantic_codebook
        vectors_VD = book.vectors()
        with torch.no_grad():
            code_N = book.encode(semantic_BDT.float()).flatten()
            if torch.isfinite(latent_ND).all():
                kept = KEPT ** (1 / parts)
                self.sum_VD.mul_(kept).index_add_(0, code_N, latent_ND)
                self.count_V.mul_(kept).index_add_(0, code_N, torch.ones_like(latent_ND[:, 0]))
            mean_ND = (self.sum_VD / self.count_V.clamp(min=1e-6)[:, None])[code_N]
        through_ND = latent_ND - latent_ND.detach()
        return (mean_ND + through_ND - vectors_VD[code_N]).square().sum(-1).mean() / book.spread()
