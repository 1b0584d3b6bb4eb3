"""Losses between waveforms and between codes, over the batches of all processes.

Shapes: B batch, S samples, F frequency bins, M mel bands, D latent width, T frames, K code books,
V code vectors, N latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.audio import distance as spectra
from voxclone.audio.distance import PAPER_FFTS
from voxclone.codec.quantizer import Quantizer, SemanticCodebook
from voxclone.train import ranks


def stft_loss(
    estimate_BS: Tensor,
    target_BS: Tensor,
    n_ffts: Sequence[int] = PAPER_FFTS,
    *,
    floor: float = 0.0,
) -> Tensor:
    """`audio.distance.stft_loss` over the batches of all processes."""
    return spectra.stft_loss(estimate_BS, target_BS, n_ffts, floor=floor, norm=ranks.norm)


def low_loss(estimate_BS: Tensor, target_BS: Tensor, width: int = 24) -> Tensor:
    """Squared distance of the waveforms averaged over `width` samples (at 24 kHz: what lies below
    some 500 Hz), relative to the target's power. It sees phases where the fundamental of a voice
    is; an absolute distance would not do: zero is a minimum of its own."""
    low_BS, wanted_BS = (F.avg_pool1d(x[:, None], width)[:, 0] for x in (estimate_BS, target_BS))
    power = ranks.mean(wanted_BS.square().mean())
    return F.mse_loss(low_BS, wanted_BS) / power.clamp(min=1e-8)


def after_quantising(book: SemanticCodebook, semantic_BDT: Tensor, codes_BKT: Tensor) -> Tensor:
    """Code vectors [B, D, T] in the place of latents, with gradients straight through."""
    nearest_BDT = book.decode(codes_BKT[:, 0])
    return semantic_BDT + (nearest_BDT - semantic_BDT).detach()


@dataclass(frozen=True)
class CodeLosses:
    """Distance of a latent from given codes."""

    semantic: Tensor
    levels: Tensor


def code_losses(
    quantizer: Quantizer,
    latent_BDT: Tensor,
    codes_BKT: Tensor,
    *,
    mask_BT: Tensor | None = None,
    temperature: float = 1.0,
) -> CodeLosses:
    """How far a latent [B, D, T] is from giving `codes` [B, K, T], over the frames of the mask.

    Semantic: cross-entropy over code vectors with logits -|z - e|^2 / (temperature * spread), plus
    half the squared distance to the true vector in the same unit; it sets direction, scale and
    offset at once and cannot collapse. The spread is an eighth of the code vectors' total variance.
    Levels: smooth L1 between 10 tanh(z) + 10 (for 21 levels) and the level.
    """
    semantic_BDT, acoustic_BDT = quantizer.split(latent_BDT)
    vectors_VD = quantizer.semantic_codebook.vectors()
    spread = quantizer.semantic_codebook.spread() / 8
    codes_BT = codes_BKT[:, 0]
    keep_N = slice(None) if mask_BT is None else mask_BT.flatten()
    latent_ND = semantic_BDT.transpose(1, 2).flatten(0, 1)[keep_N]
    codes_N = codes_BT.flatten()[keep_N]
    squared_NV = quantizer.semantic_codebook.squared_distances(latent_ND)
    cross_entropy = F.cross_entropy(-squared_NV / (spread * temperature), codes_N)
    distance = (latent_ND - vectors_VD[codes_N]).square().sum(-1).mean() / spread
    half = (quantizer.levels - 1) / 2
    estimate_NC = (half * torch.tanh(acoustic_BDT) + half).transpose(1, 2).flatten(0, 1)[keep_N]
    level_NC = codes_BKT[:, 1:].transpose(1, 2).flatten(0, 1)[keep_N]
    levels = F.smooth_l1_loss(estimate_NC, level_NC.to(estimate_NC.dtype))
    return CodeLosses(cross_entropy + 0.5 * distance, levels)
