"""What the model itself would say, as a voice to be heard.

Stretches that the model draws are decoded and compared by a frozen network that tells speakers
apart: each shall be as near to its own speaker among those of the batch as the true codes are.

Shapes: D width, K code books, C acoustic channels, N frames of a batch, I items that are listened
to, T frames of a stretch, E embedding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.mini_release.listeners import SCALE, freeze
from voxclone.codec.model import Codec
from voxclone.models.speaker_network import SpeakerNetwork
from voxclone.release.params import Params
from voxclone.spec import EMPTY_AUDIO, SHIFT
from voxclone.train.sequences import Batch, decode_values, draw_values
from voxclone.tts.acoustic import AcousticHead


@dataclass(frozen=True)
class VoiceJudge:
    """A frozen codec and the frozen network that hears who is speaking."""

    codec: Codec
    voices: SpeakerNetwork

    @classmethod
    def frozen(cls, codec: Codec, voices: SpeakerNetwork) -> "VoiceJudge":
        """Both without dropout and without gradients of their own."""
        freeze(codec, voices)
        return cls(codec, voices)

    def vectors(self, semantic_IT: Tensor, value_ICT: Tensor) -> Tensor:
        """Voices [I, E] of decoded semantic codes and acoustic values (-1 to 1)."""
        vectors_IE: Tensor = self.voices(decode_values(self.codec, semantic_IT, value_ICT))
        return vectors_IE

    def distance(self, semantic_IT: Tensor, drawn_ICT: Tensor, true_ICT: Tensor) -> Tensor:
        """Mean divergence between two opinions about whose voice it is among the items: of the
        drawn values, and of the true ones."""
        with torch.no_grad():
            true_IE = self.vectors(semantic_IT, true_ICT)
        drawn_IE = self.vectors(semantic_IT, drawn_ICT)
        wanted_II = (SCALE * true_IE @ true_IE.T).softmax(dim=-1)
        heard_II = (SCALE * drawn_IE @ true_IE.T).log_softmax(dim=-1)
        return F.kl_div(heard_II, wanted_II, reduction="batchmean")


def stretches(batch: Batch, items: int, frames: int, generator: torch.Generator) -> Tensor:
    """Rows of N [I, T]: a random stretch of `frames` of up to `items` random items that are as long
    (without their end)."""
    found: list[Tensor] = []
    for row in torch.randperm(len(batch.ids_BL), generator=generator).tolist():
        rows = (batch.item_N == row).nonzero()[:-1, 0]
        spare = len(rows) - frames
        if spare >= 0 and len(found) < items:
            start = int(torch.randint(spare + 1, (1,), generator=generator))
            found.append(rows[start : start + frames])
    empty = torch.zeros(0, frames, dtype=torch.long, device=batch.item_N.device)
    return torch.stack(found) if found else empty


def voice_distance(
    judge: VoiceJudge,
    batch: Batch,
    hidden_ND: Tensor,
    rows_IT: Tensor,
    guidance_I: Tensor,
    head: AcousticHead,
    generator: torch.Generator,
) -> Tensor:
    """`VoiceJudge.distance` of levels that are drawn from the hidden states at these rows, with
    gradients through all steps of the flow."""
    items, frames = rows_IT.shape
    target_ITK = batch.target_NK[rows_IT] - SHIFT
    guidance_N = guidance_I.repeat_interleave(frames)
    noise_NC = torch.randn(items * frames, head.channels, generator=generator)
    value_NC = draw_values(head, hidden_ND[rows_IT.flatten()], guidance_N, noise_NC)
    drawn_ICT = value_NC.view(items, frames, -1).transpose(1, 2)
    true_ICT = judge.codec.quantizer.values_of(target_ITK[..., 1:]).transpose(1, 2)
    return judge.distance(target_ITK[..., 0], drawn_ICT, true_ICT)


def misread(
    codes_BLK: Tensor,
    generator: torch.Generator,
    *,
    params: Params,
    levels: float,
    semantic: float,
) -> Tensor:
    """A share `levels` of the levels moved by one, a share `semantic` of the semantic codes
    replaced; special codes stay."""
    audio, device = params.audio, codes_BLK.device
    draw_BLK = torch.rand(codes_BLK.shape, generator=generator).to(device)
    sign_BLK = (torch.rand(codes_BLK.shape, generator=generator) < 0.5).to(device) * 2 - 1
    moved_BLK = (codes_BLK + sign_BLK).clamp(SHIFT, SHIFT + audio.acoustic_codebook_size - 1)
    shape, size = codes_BLK[..., 0].shape, audio.semantic_codebook_size
    other_BL = torch.randint(size, shape, generator=generator).to(device) + SHIFT
    moved_BLK[..., 0] = other_BL
    share_K = torch.full((codes_BLK.shape[-1],), levels, device=device)
    share_K[0] = semantic
    ordinary_BL1 = codes_BLK[..., :1] >= SHIFT
    return torch.where((draw_BLK < share_K) & ordinary_BL1, moved_BLK, codes_BLK)


def forget(batch: Batch, codes_BLK: Tensor, generator: torch.Generator, *, share: float) -> Tensor:
    """In a `share` of the items, take the levels of some frames that are already said (a share of
    them drawn anew), as if they were empty."""
    count, length = batch.ids_BL.shape
    chosen_B1 = torch.rand(count, 1, generator=generator) < share
    share_B1 = torch.rand(count, 1, generator=generator) * chosen_B1
    gone_BL = (torch.rand(count, length, generator=generator) < share_B1).to(codes_BLK.device)
    said_BL = torch.zeros_like(gone_BL)
    said_BL[batch.item_N, batch.place_N] = True
    gone_BLK = (gone_BL & said_BL & batch.is_code_BL)[..., None].repeat(1, 1, codes_BLK.shape[-1])
    gone_BLK[..., 0] = False
    return codes_BLK.masked_fill(gone_BLK, EMPTY_AUDIO)
