"""What is changed in the codes that the language model reads in training.

Shapes: B batch, L positions, K codebooks, N chosen positions, P positions of all items.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.mini_release.graph import Tensors
from voxclone.spec import EMPTY_AUDIO, END_AUDIO, SHIFT


def frames_of(batch: Tensors) -> Tensor:
    """Positions [B, L] that predict a frame, not the end."""
    frames_BL: Tensor = batch["predicts"] & (batch["target"][..., 0] != END_AUDIO)
    return frames_BL


def choose(mask_BL: Tensor, key_P: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`count` flat positions, those of the mask first and in the order of random keys; and whether
    each is of the mask (0 or 1)."""
    flat_P = mask_BL.flatten().float()
    at_N = (key_P + flat_P).topk(count).indices
    return at_N, flat_P[at_N]


def add_code_noise(
    inputs: Tensors, levels: int, *, level_share: float, semantic_share: float
) -> Tensor:
    """Codes [B, L, K] with a share of the levels moved by one and a share of the semantic codes
    replaced. Special codes stay."""
    codes_BLK = inputs["codes"].long()
    sign_BLK = torch.where(inputs["noise_sign"] < 0.5, 1, -1)
    moved_BLK = (codes_BLK + sign_BLK).clamp(SHIFT, SHIFT + levels - 1)
    moved_BLK = torch.cat([inputs["other_code"][..., None] + SHIFT, moved_BLK[..., 1:]], dim=-1)
    draw_BLK = inputs["noise_draw"]
    noisy = [draw_BLK[..., :1] < semantic_share, draw_BLK[..., 1:] < level_share]
    noisy_BLK = torch.cat(noisy, dim=-1) & (codes_BLK[..., :1] >= SHIFT)
    return torch.where(noisy_BLK, moved_BLK, codes_BLK)


def drop_history(inputs: Tensors, codes_BLK: Tensor, *, items_share: float) -> Tensor:
    """In a share of the items, the levels of some frames of the target (a share of them drawn anew)
    are empty."""
    share_B1 = inputs["history_share"] * (inputs["history_item"] < items_share)
    spoken_BL = F.pad(inputs["predicts"], (1, 0))[:, :-1] & inputs["is_code"]
    dropped_BL1 = ((inputs["history"] < share_B1) & spoken_BL)[..., None]
    levels = codes_BLK[..., 1:].masked_fill(dropped_BL1, EMPTY_AUDIO)
    return torch.cat([codes_BLK[..., :1], levels], dim=-1)
