"""Rehearsal: what the model itself would say, as history to go on from and as a voice to be heard.

A model that is taught on true frames alone learns to take the voice from the frame before, which
in training has the right voice and in speech has its own. So some examples are read with levels
that the model itself draws (scheduled sampling in two passes, arXiv 1906.07651), and stretches that
it draws are decoded and compared by a frozen network that tells speakers apart (`listeners`): each
shall be as near to its own speaker among those of the batch as the true codes are.

Shapes: B batch, L positions, D width, K code books, C acoustic channels, N frames of a batch,
I items that are listened to, T frames of a stretch, E embedding.
"""

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.codec.quantizer import to_levels, to_values
from voxclone.spec import SHIFT
from voxclone.train.sequences import Batch
from voxclone.tts.acoustic import AcousticHead


def decode_drawn(codec: Codec, semantic_IT: Tensor, value_ICT: Tensor) -> Tensor:
    """Speech [I, S] of semantic codes and acoustic values (-1 to 1), with gradients."""
    vectors_IDT = codec.quantizer.semantic_codebook.decode(semantic_IT)
    wave_IS: Tensor = codec.decoder(torch.cat([vectors_IDT, value_ICT], dim=1)).float()
    return wave_IS


def draw_values(
    head: AcousticHead,
    hidden_ND: Tensor,
    guidance_N: Tensor,
    noise_NC: Tensor,
) -> Tensor:
    """Whole acoustic values [N, C] to which the flow brings noise, each with a guidance of its own;
    gradients pass the rounding straight through."""
    device = hidden_ND.device
    value_NC = head.flow(hidden_ND.float(), noise_NC.to(device), guidance_N[:, None].to(device))
    whole_NC = to_values(to_levels(value_NC.detach(), head.levels).round(), head.levels)
    return value_NC + (whole_NC - value_NC).detach()


@torch.no_grad()
def rehearse(
    batch: Batch,
    codes_BLK: Tensor,
    hidden_ND: Tensor,
    guidance_B: Tensor,
    head: AcousticHead,
    noise_NC: Tensor,
) -> Tensor:
    """Codes [B, L, K] in which the said frames of every item with a guidance (others have 0) have
    levels drawn from their hidden states and noise. Semantic codes, voices and targets stay."""
    guidance_N = guidance_B[batch.item_N]
    frame_N = (batch.target_NK[:, 0] >= SHIFT) & (guidance_N > 0)
    value_NC = draw_values(head, hidden_ND[frame_N], guidance_N[frame_N], noise_NC[frame_N])
    level_NC = to_levels(value_NC, head.levels).round().long() + SHIFT
    said_BLK = codes_BLK.clone()
    said_BLK[batch.item_N[frame_N], batch.place_N[frame_N] + 1, 1:] = level_NC
    return said_BLK
