"""Losses of an encoder: through the waveform, between codes, and on the statistics of its latents.

The losses through the waveform see the encoder by what the frozen decoder makes of its latents, and
can be balanced by their gradients. Those on statistics hold the latents of real speech near what
the checkpoint and the release's own speech say of the true encoder's.

Shapes: B batch, S samples, D latent width, T frames, K codebooks, C acoustic channels, V code
vectors, Q quantiles, N latents.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.audio.distance import magnitude_loss, mel_loss, stft_loss
from voxclone.codec.model import Codec
from voxclone.codec.quantizer import Quantizer, SemanticCodebook
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.train import distributed

QUIETEST = 1e-3
"""RMS of a crop below which it has no voice to compare."""
STFT_SIZES = (2048, 512, 128)
MOST_FRAMES = 200_000
QUANTILES = 64
BALANCER_DECAY = 0.999

THROUGH_WAVEFORM = ("mel", "stft", "magnitude", "l1", "low", "speaker_similarity",
                    "feature_matching")  # fmt: skip

Averages = dict[str, list[float]]


def waveform_losses(
    made_BS: Tensor,
    wave_BS: Tensor,
    weights: Mapping[str, float],
    *,
    floor: float,
    stft_sizes: Sequence[int],
    mel_scales: Sequence[tuple[int, int]],
    embedder: Ge2eEmbedder | None = None,
) -> dict[str, Tensor]:
    """The losses among `mel`, `stft`, `magnitude`, `l1` (relative to the recording's mean size),
    `low` and `speaker_similarity` that have a weight; `floor` as in `audio.distance.mel_loss`."""
    losses = {}
    if weights.get("mel"):
        losses["mel"] = mel_loss(made_BS, wave_BS, mel_scales, floor=floor)
    if weights.get("stft"):
        losses["stft"] = stft_loss(made_BS, wave_BS, stft_sizes, floor=floor, norm=global_norm)
    if weights.get("magnitude"):
        losses["magnitude"] = magnitude_loss(made_BS, wave_BS, stft_sizes)
    if weights.get("l1"):
        size = distributed.mean(wave_BS.abs().mean())
        losses["l1"] = F.l1_loss(made_BS, wave_BS) / size.clamp(min=1e-3)
    if weights.get("low"):
        losses["low"] = low_frequency_loss(made_BS, wave_BS)
    if weights.get("speaker_similarity"):
        if embedder is None:
            raise ValueError("the loss `speaker_similarity` needs an embedder")
        losses["speaker_similarity"] = speaker_similarity_loss(embedder, made_BS, wave_BS)
    return losses


def global_norm(own: Tensor) -> Tensor:
    """The Euclidean norm of the parts of all processes together, with gradients."""
    processes = distributed.world_size()
    if processes == 1:
        return own.norm()
    return (distributed.mean(own.square().sum()).clamp(min=1e-20) * processes).sqrt()


def low_frequency_loss(estimate_BS: Tensor, target_BS: Tensor) -> Tensor:
    """Squared distance of the waveforms averaged over 24 samples (at 24 kHz: what lies below
    some 500 Hz), relative to the target's power. It sees phases where the fundamental of a voice
    is; an absolute distance would not do: zero is a minimum of its own."""
    low_BS, wanted_BS = (F.avg_pool1d(x[:, None], 24)[:, 0] for x in (estimate_BS, target_BS))
    power = distributed.mean(wanted_BS.square().mean())
    return F.mse_loss(low_BS, wanted_BS) / power.clamp(min=1e-8)


def speaker_similarity_loss(embedder: Ge2eEmbedder, made_BS: Tensor, wave_BS: Tensor) -> Tensor:
    """1 - cosine of a frozen speaker encoder's embeddings of what was decoded and of the recording,
    mean over the crops that are not silent (the community's V3 with ECAPA). Whoever trains with it
    must report speaker similarity by another family of networks."""
    with torch.no_grad():
        own_BE = embedder.embed_batch(wave_BS)
        audible_B = wave_BS.square().mean(dim=-1).sqrt() > QUIETEST
    cosine_B = (embedder.embed_batch(made_BS) * own_BE).sum(dim=-1)
    audible = distributed.mean(audible_B.sum().float()).clamp(min=1)
    return ((1 - cosine_B) * audible_B).sum() / audible


def balanced_gradient(
    losses: Mapping[str, Tensor],
    weights: Mapping[str, float],
    leaf_BS: Tensor,
    averages: Averages,
    decay: float = BALANCER_DECAY,
) -> tuple[Tensor, Averages]:
    """The gradient [B, S] of losses at the waveform `leaf`, each scaled to its weight,
    as in AudioCraft (`losses/balancer.py`); and the new averages, which belong into the checkpoint.

    Each loss's gradient is divided by a running mean of its norm (mean over the batch of the norms
    of items, corrected for its start) and multiplied by its share of the weights, so that a weight
    is a share of the step and not of an unknown scale. Only for losses that see the model through
    the waveform.
    """
    averages = dict(averages)
    total = sum(weights[name] for name in losses)
    balanced_BS = torch.zeros_like(leaf_BS)
    for name, loss in losses.items():
        (gradient_BS,) = torch.autograd.grad(loss, leaf_BS)
        norm = float(distributed.mean(gradient_BS.flatten(1).norm(dim=1).mean()))
        if not math.isfinite(norm):  # the step will be skipped, the means must not know of it
            balanced_BS += norm
            continue
        size, count = averages.get(name, [0.0, 0.0])
        size = decay * size + (1 - decay) * norm
        count = decay * count + (1 - decay)
        averages[name] = [size, count]
        balanced_BS += weights[name] / total / max(size / count, 1e-12) * gradient_BS
    return balanced_BS, averages


def straight_through(book: SemanticCodebook, semantic_BDT: Tensor, codes_BKT: Tensor) -> Tensor:
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
    kept_N: Tensor | None = None,
) -> CodeLosses:
    """How far a latent [B, D, T] is from giving `codes` [B, K, T], over the frames
    `kept_N` of B * T, or all of them.

    Semantic: cross-entropy over code vectors with logits -|z - e|^2 / spread, plus half the
    squared distance to the true vector in the same unit; it sets direction, scale and offset at
    once and cannot collapse. The spread is an eighth of the code vectors' total variance.
    Levels: smooth L1 between 10 tanh(z) + 10 (for 21 levels) and the level.
    """
    semantic_BDT, acoustic_BDT = quantizer.split(latent_BDT)
    vectors_VD = quantizer.semantic_codebook.vectors()
    spread = quantizer.semantic_codebook.spread() / 8
    codes_BT = codes_BKT[:, 0]
    at_N = slice(None) if kept_N is None else kept_N
    latent_ND = semantic_BDT.transpose(1, 2).flatten(0, 1)[at_N]
    codes_N = codes_BT.flatten()[at_N]
    squared_NV = quantizer.semantic_codebook.squared_distances(latent_ND)
    cross_entropy = F.cross_entropy(-squared_NV / spread, codes_N)
    distance = (latent_ND - vectors_VD[codes_N]).square().sum(-1).mean() / spread
    half = (quantizer.levels - 1) / 2
    estimate_NC = (half * torch.tanh(acoustic_BDT) + half).transpose(1, 2).flatten(0, 1)[at_N]
    level_NC = codes_BKT[:, 1:].transpose(1, 2).flatten(0, 1)[at_N]
    levels = F.smooth_l1_loss(estimate_NC, level_NC.to(estimate_NC.dtype))
    return CodeLosses(cross_entropy + 0.5 * distance, levels)


def level_quantiles(codec: Codec, genuine: Sequence[Tensor]) -> Tensor:
    """Quantiles [C, Q] of the values of each acoustic channel of codes [K, T] that the release
    made (presets and the model's own speech)."""
    device = codec.device
    last: list[Tensor] = []  # of stored pairs there may be days
    while len(last) < len(genuine) and sum(codes.shape[1] for codes in last) < MOST_FRAMES:
        last.insert(0, genuine[-len(last) - 1])
    levels_CT = torch.cat([codes[1:] for codes in last], dim=1).long()
    values_CT = codec.quantizer.values_of(levels_CT.to(device))[:, -MOST_FRAMES:]
    quantiles_CQ = torch.quantile(values_CT, _probabilities(QUANTILES, device), dim=1).T
    return quantiles_CQ


def level_prior_loss(quantiles_CQ: Tensor, quantizer: Quantizer, latent_BDT: Tensor) -> Tensor:
    """Distance of each channel's values in the batch from genuine ones: the mean absolute
    difference of quantiles (Wasserstein-1), so a channel may not drift or spread."""
    _, acoustic_BCT = quantizer.split(latent_BDT)
    values_CN = torch.tanh(acoustic_BCT).transpose(0, 1).flatten(1)
    at_Q = _probabilities(quantiles_CQ.shape[1], values_CN.device)
    found_CQ = torch.quantile(values_CN.float(), at_Q, dim=1).T
    return (found_CQ - quantiles_CQ).abs().mean()


def diversity_loss(quantizer: Quantizer, latent_BDT: Tensor) -> Tensor:
    """Codebook diversity: how far the batch's mean soft assignment, softmax(-|z - e| / 10), is from
    the largest entropy that its frames can have, as a share of it (the community's V2 and V3)."""
    semantic_BDT, _ = quantizer.split(latent_BDT)
    latent_ND = semantic_BDT.transpose(1, 2).flatten(0, 1)
    squared_NV = quantizer.semantic_codebook.squared_distances(latent_ND)
    mean_V = (-squared_NV.clamp(min=1e-6).sqrt() / 10).softmax(dim=-1).mean(dim=0)
    largest = math.log(min(squared_NV.shape))
    return 1 + (mean_V * mean_V.clamp(min=1e-10).log()).sum() / largest


def scale_loss(quantizer: Quantizer, latent_BDT: Tensor) -> Tensor:
    """Difference of the semantic latents' standard deviation from that of the code vectors (the
    community's V1 to V3; theirs is 13.6)."""
    semantic_BDT, _ = quantizer.split(latent_BDT)
    wanted = quantizer.semantic_codebook.vectors().std()
    return (semantic_BDT.float().std() - wanted).abs()


def _probabilities(count: int, device: torch.device) -> Tensor:
    return (torch.arange(count, device=device) + 0.5) / count


def balance(
    losses: dict[str, Tensor],
    weights: Mapping[str, float],
    decoded_BS: Tensor,
    leaf_BS: Tensor,
    averages: Averages,
    parts: int,
) -> tuple[dict[str, Tensor], Averages]:
    """Losses in which those through the waveform are one, whose gradient is the balanced one of
    them at `leaf`, a copy of `decoded`; and the balancer's new averages."""
    through = {name: losses[name] for name in THROUGH_WAVEFORM if name in losses}
    gradient_BS, averages = balanced_gradient(through, weights, leaf_BS, averages)
    # A balanced gradient has the same size for each item, however many a part has: the sum over
    # items is the loss, and that of a part counts as often as there are parts.
    waveform = parts * (decoded_BS * gradient_BS).sum()
    rest = {name: loss for name, loss in losses.items() if name not in through}
    return {"waveform": waveform} | rest, averages


def weighted_sum(losses: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """The loss of the encoder; the balanced one has its weights already."""
    total = sum(weights.get(name, 1.0) * loss for name, loss in losses.items())
    assert isinstance(total, Tensor)
    return total
