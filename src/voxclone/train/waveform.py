"""Losses that see a codec through the waveform that it gives back, and the balance between them.

Shapes: B batch, S samples.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.audio.distance import magnitude_loss, mel_loss
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.train import ranks
from voxclone.train.listeners import Listeners
from voxclone.train.losses import low_loss, stft_loss

STFFTS = (2048, 512, 128)
QUIETEST = 1e-3
"""RMS of a crop below which it has no voice to be like."""
MEL_SCALES = ((2048, 160), (1024, 120), (512, 80), (256, 40), (128, 20))


def waveform_losses(
    made_BS: Tensor,
    wave_BS: Tensor,
    weights: Mapping[str, float],
    *,
    floor: float = 0.0,
    n_ffts: Sequence[int] = STFFTS,
    mel_scales: Sequence[tuple[int, int]] = MEL_SCALES,
    listeners: Listeners | None = None,
    embedder: Ge2eEmbedder | None = None,
) -> dict[str, Tensor]:
    """The losses among `mel`, `stft`, `magnitude`, `l1` (relative to the recording's mean size),
    `low`, `heard` and `speaker` that have a weight; `floor` as in `losses.mel_loss`."""
    losses = {}
    if weights.get("mel"):
        losses["mel"] = mel_loss(made_BS, wave_BS, mel_scales, floor=floor)
    if weights.get("stft"):
        losses["stft"] = stft_loss(made_BS, wave_BS, n_ffts, floor=floor)
    if weights.get("magnitude"):
        losses["magnitude"] = magnitude_loss(made_BS, wave_BS, n_ffts)
    if weights.get("l1"):
        size = ranks.mean(wave_BS.abs().mean())
        losses["l1"] = F.l1_loss(made_BS, wave_BS) / size.clamp(min=1e-3)
    if weights.get("low"):
        losses["low"] = low_loss(made_BS, wave_BS)
    if weights.get("heard"):
        if listeners is None:
            raise ValueError("the loss `heard` needs listeners")
        losses["heard"] = listeners.distance(made_BS, wave_BS)
    if weights.get("speaker"):
        if embedder is None:
            raise ValueError("the loss `speaker` needs an embedder")
        losses["speaker"] = speaker_loss(embedder, made_BS, wave_BS)
    return losses


def speaker_loss(embedder: Ge2eEmbedder, made_BS: Tensor, wave_BS: Tensor) -> Tensor:
    """1 - cosine of a frozen speaker network's embeddings of what was decoded and of the recording,
    mean over the crops that are not silent (the community's V3 with ECAPA). Whoever trains with it
    must judge likeness by another family of networks."""
    with torch.no_grad():
        own_BE = embedder.embed_batch(wave_BS)
        audible_B = wave_BS.square().mean(dim=-1).sqrt() > QUIETEST
    cosine_B = (embedder.embed_batch(made_BS) * own_BE).sum(dim=-1)
    audible = ranks.mean(audible_B.sum().float()).clamp(min=1)
    return ((1 - cosine_B) * audible_B).sum() / audible


class Balancer:
    """Gradients brought to the sizes of their weights, as in AudioCraft (`losses/balancer.py`).

    Each loss's gradient at the waveform is divided by a running mean of its norm (mean over the
    batch of the norms of items, decay 0.999, corrected for its start) and multiplied by its share
    of the weights, so that a weight is a share of the step and not of an unknown scale. Only for
    losses that see the model through the waveform. `means` belongs into the checkpoint.
    """

    def __init__(self, decay: float = 0.999, means: dict[str, list[float]] | None = None) -> None:
        self.decay = decay
        self.means = {} if means is None else means

    def gradient(
        self, losses: Mapping[str, Tensor], weights: Mapping[str, float], leaf_BS: Tensor
    ) -> Tensor:
        """The balanced gradient [B, S] at `leaf`, from which all losses were computed."""
        shares = {name: weights[name] for name in losses}
        total = sum(shares.values())
        balanced_BS = torch.zeros_like(leaf_BS)
        for name, loss in losses.items():
            (gradient_BS,) = torch.autograd.grad(loss, leaf_BS)
            norm = float(ranks.mean(gradient_BS.flatten(1).norm(dim=1).mean()))
            if not math.isfinite(norm):  # the step will be skipped, the means must not know of it
                balanced_BS += norm
                continue
            size, count = self.means.get(name, [0.0, 0.0])
            size = self.decay * size + (1 - self.decay) * norm
            count = self.decay * count + (1 - self.decay)
            self.means[name] = [size, count]
            balanced_BS += shares[name] / total / max(size / count, 1e-12) * gradient_BS
        return balanced_BS
