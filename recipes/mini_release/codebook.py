"""The semantic codebook in training: exponential means, and vectors that are moved.

Shapes: D semantic width, N latents, V code vectors.
"""

import torch
from torch import Tensor

from recipes.mini_release.crops import CropSource
from voxclone.codec.model import Codec
from voxclone.codec.quantizer import SemanticCodebook

USAGE_DECAY = 0.99


@torch.no_grad()
def start_codebook(codec: Codec, crops: CropSource, generator: torch.Generator) -> None:
    """Code vectors start as latents of random speech, unless there are some."""
    book = codec.quantizer.semantic_codebook
    if bool(book.embedding_sum.any()):
        return
    size = len(book.cluster_usage)
    latents: list[Tensor] = []
    while sum(len(latent) for latent in latents) < size:
        latent_BDT = codec.require_encoder()(crops.draw(generator).wave_BS)
        semantic_BDT = codec.quantizer.split(latent_BDT)[0]
        latents.append(semantic_BDT.transpose(1, 2).flatten(0, 1))
    latent_ND = torch.cat(latents)
    order_N = torch.randperm(len(latent_ND), generator=generator, device=latent_ND.device)
    book.cluster_usage.fill_(1.0)
    book.embedding_sum.copy_(latent_ND[order_N[:size]])


@torch.no_grad()
def update_codebook(
    book: SemanticCodebook,
    latent_ND: Tensor,
    codes_N: Tensor,
    revived_V: Tensor,
    revive_below: Tensor,
) -> Tensor:
    """Exponential means of counts and sums (VQ-VAE, arXiv 1711.00937, appendix A.1). A vector whose
    count is below `revive_below` times the mean count is moved to the latent of its number in
    `revived`. Latents that are not finite change nothing. Returns how many vectors were moved."""
    ones_N = torch.ones_like(codes_N, dtype=torch.float32)
    counts_V = torch.zeros_like(book.cluster_usage).index_add_(0, codes_N, ones_N)
    sums_VD = torch.zeros_like(book.embedding_sum).index_add_(0, codes_N, latent_ND)
    usage_V = book.cluster_usage.lerp(counts_V, 1 - USAGE_DECAY)
    sum_VD = book.embedding_sum.lerp(sums_VD, 1 - USAGE_DECAY)
    mean = usage_V.mean()
    dead_V = usage_V < revive_below * mean
    usage_V = torch.where(dead_V, mean, usage_V)
    sum_VD = torch.where(dead_V[:, None], latent_ND[revived_V] * mean, sum_VD)
    finite = latent_ND.isfinite().all()
    book.cluster_usage.copy_(torch.where(finite, usage_V, book.cluster_usage))
    book.embedding_sum.copy_(torch.where(finite, sum_VD, book.embedding_sum))
    return dead_V.sum().float()
