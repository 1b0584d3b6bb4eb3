"""Attention of a few heads, for teaching them where to look.

Shapes: B batch, L positions, D width, H heads.
"""

from typing import Any

import torch
from torch import Tensor


def attention_of(
    module: Any, hidden_BLD: Tensor, rotary: tuple[Tensor, Tensor], heads: int
) -> Tensor:
    """Causal attention [B, H, L, L] of the first heads of a transformers attention layer."""
    from transformers.models.mistral.modeling_mistral import apply_rotary_pos_emb

    shape = (*hidden_BLD.shape[:2], -1, module.head_dim)
    query_BHLD = module.q_proj(hidden_BLD).view(shape).transpose(1, 2)[:, :heads]
    key_BHLD = module.k_proj(hidden_BLD).view(shape).transpose(1, 2)
    reads = torch.arange(heads, device=hidden_BLD.device) // module.num_key_value_groups
    query_BHLD, key_BHLD = apply_rotary_pos_emb(query_BHLD, key_BHLD[:, reads], *rotary)
    scores_BHLL = query_BHLD @ key_BHLD.transpose(-1, -2) * module.scaling
    length = hidden_BLD.shape[1]
    future_LL = torch.ones(length, length, dtype=torch.bool, device=hidden_BLD.device).triu(1)
    return scores_BHLL.float().masked_fill(future_LL, -torch.inf).softmax(dim=-1)
