"""From a recogniser's states to semantic codes: what pairs teach that holds for real speech.

The true semantic stream was taught by a recogniser (arXiv 2603.25551, 2.1), and a recogniser hears
decoded and real speech much alike, which an encoder that was taught on decoded speech does not. So
a small network learns on pairs (codes that the release made, decoded) which code belongs to which
states; on real speech its opinion, with its doubts, is the target of the encoder.

Shapes: B batch, S samples, T frames, U teacher states, D semantic width, E teacher width,
V code vectors, N frames of a batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.codec.quantizer import SemanticCodebook, code_logits
from voxclone.models.ctc_asr import HOP, STRIDE, Recognizer
from voxclone.train.semantic import states_by_frame

WIDTH = 256
SURENESS = 0.2
"""On real speech the bridge is far surer than it is right: its opinion is taken to this power."""


class Bridge(nn.Module):
    """Waveforms [B, S] -> semantic latents [B, D, T], through a frozen recogniser."""

    def __init__(self, recogniser: Recognizer, semantic_dim: int, frame_size: int) -> None:
        super().__init__()
        # Not a submodule: it is frozen and belongs to no checkpoint.
        self._recogniser = [recogniser.eval().requires_grad_(False)]
        self.frame_size = frame_size
        width = recogniser.config.dim * (frame_size // (HOP * STRIDE))
        self.norm = nn.LayerNorm(width)
        self.first = nn.Conv1d(width, WIDTH, 3, padding=1)
        self.last = nn.Conv1d(WIDTH, semantic_dim, 3, padding=1)

    def forward(self, wave_BS: Tensor) -> Tensor:
        recogniser = self._recogniser[0].to(wave_BS.device)
        joined_BTE = states_by_frame(recogniser, wave_BS, self.frame_size).flatten(2)
        hidden_BDT = F.gelu(self.first(self.norm(joined_BTE).transpose(1, 2)))
        latent_BDT: Tensor = self.last(hidden_BDT)
        return latent_BDT.float()


def lesson(bridge: Bridge, book: SemanticCodebook, wave_BS: Tensor, codes_BT: Tensor,
           mask_BT: Tensor) -> Tensor:  # fmt: skip
    """Cross-entropy of the bridge's opinion on decoded speech with the codes it was decoded from,
    over the frames of the mask."""
    logits_NV = code_logits(book, bridge(wave_BS))
    return F.cross_entropy(logits_NV[mask_BT.flatten()], codes_BT.flatten()[mask_BT.flatten()])


def advice(bridge: Bridge, book: SemanticCodebook, wave_BS: Tensor, semantic_BDT: Tensor) -> Tensor:
    """Cross-entropy of an encoder's semantic latents [B, D, T] of real speech with the bridge's
    opinion; the bridge does not learn from it."""
    with torch.no_grad():
        opinion_NV = (SURENESS * code_logits(book, bridge(wave_BS))).softmax(dim=-1)
    return F.cross_entropy(code_logits(book, semantic_BDT), opinion_NV)
