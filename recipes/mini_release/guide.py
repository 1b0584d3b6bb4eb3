"""Attention of a few heads, for teaching them where to look.

Shapes: B batch, L positions, D width, H heads, N frames of a batch, W places of a window.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from voxclone.train.sequences import Batch

WINDOW = (-1, 2)
"""A frame may look at the character before its own and at the one behind it."""


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


def watch_attention(layer: Any, heads: int) -> Callable[[], Tensor]:
    """Attention [B, H, L, L] of the first heads of a transformers layer in the next forward pass,
    from what goes into it: the fused kernels of all layers keep no attention."""
    kept: dict[str, Any] = {}

    def keep(module: nn.Module, inputs: object, named: dict[str, Any]) -> None:
        kept.update(named)

    handle = layer.self_attn.register_forward_pre_hook(keep, with_kwargs=True)

    def take() -> Tensor:
        handle.remove()
        return attention_of(
            layer.self_attn, kept["hidden_states"], kept["position_embeddings"], heads
        )

    return take


def guide_loss(attention_BHLL: Tensor, batch: Batch) -> Tensor:
    """Mean surprise that the heads of a frame look near the character being spoken, over the frames
    of which it is known."""
    known_N = batch.guide_N >= 0
    looked_NHL = attention_BHLL[batch.item_N, :, batch.place_N]
    window_W = torch.arange(*WINDOW, device=attention_BHLL.device)
    places_NW = (batch.guide_N.clamp(min=1)[:, None] + window_W).clamp(max=looked_NHL.shape[-1] - 1)
    places_NHW = places_NW[:, None].expand(-1, looked_NHL.shape[1], -1)
    mass_NH = looked_NHL.gather(-1, places_NHW).sum(dim=-1)
    guide_N = -(mass_NH.float() + 1e-4).log().mean(dim=-1)
    return (guide_N * known_N).sum() / known_N.sum().clamp(min=1)
