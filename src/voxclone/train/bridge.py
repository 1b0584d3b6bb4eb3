"""A bridge from an ASR model's states to semantic codes, which pairs teach and real speech needs.

The true semantic stream was taught by an ASR model (arXiv 2603.25551, 2.1), and an ASR model's
states of decoded and of real speech are much alike, which those of an encoder that was trained on
decoded speech are not. So a small network learns on pairs (codes that the release made, decoded)
which code belongs to which states; on real speech its distribution is the encoder's target.

Shapes: B batch, S samples, T frames, D semantic width, E teacher width, V code vectors, N frames
of a batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.codec.quantizer import SemanticCodebook, code_logits
from voxclone.models.ctc_asr import HOP, STRIDE, Recognizer
from voxclone.train.asr_distillation import states_by_frame

WIDTH = 256
CONFIDENCE = 0.2
"""On real speech the bridge is far surer than it is right: its distribution is taken to this
power."""


class Bridge(nn.Module):
    """Waveforms [B, S] -> semantic latents [B, D, T], through a frozen ASR model."""

    def __init__(self, teacher: Recognizer, semantic_dim: int, frame_size: int) -> None:
        super().__init__()
        # Not a submodule: it is frozen and belongs to no checkpoint.
        self._teacher = [teacher.eval().requires_grad_(False)]
        self.frame_size = frame_size
        width = teacher.config.dim * (frame_size // (HOP * STRIDE))
        self.norm = nn.LayerNorm(width)
        self.first = nn.Conv1d(width, WIDTH, 3, padding=1)
        self.last = nn.Conv1d(WIDTH, semantic_dim, 3, padding=1)

    def forward(self, wave_BS: Tensor) -> Tensor:
        teacher = self._teacher[0].to(wave_BS.device)
        joined_BTE = states_by_frame(teacher, wave_BS, self.frame_size).flatten(2)
        hidden_BDT = F.gelu(self.first(self.norm(joined_BTE).transpose(1, 2)))
        latent_BDT: Tensor = self.last(hidden_BDT)
        return latent_BDT.float()


def bridge_loss(
    bridge: Bridge, book: SemanticCodebook, wave_BS: Tensor, codes_BT: Tensor, kept_N: Tensor
) -> Tensor:
    """The loss of the bridge: cross-entropy of its distribution on decoded speech with the codes
    it was decoded from, over the frames `kept_N` of B * T."""
    logits_NV = code_logits(book, bridge(wave_BS))
    return F.cross_entropy(logits_NV[kept_N], codes_BT.flatten()[kept_N])


def distill_loss(
    bridge: Bridge, book: SemanticCodebook, wave_BS: Tensor, semantic_BDT: Tensor
) -> Tensor:
    """The loss of the encoder: cross-entropy of its semantic latents [B, D, T] of real speech
    with the bridge's distribution, which gets no gradients."""
    with torch.no_grad():
        target_NV = (CONFIDENCE * code_logits(book, bridge(wave_BS))).softmax(dim=-1)
    return F.cross_entropy(code_logits(book, semantic_BDT), target_NV)
