"""The language model of the mini release in training: fresh weights, and a forward of fixed shape.

`forward` computes what `Backbone` does, without the checks of transformers' own that a CUDA graph
cannot hold; and it gives the attention that is to be guided.

Shapes: B batch, L positions, D width, H heads, E width of a head, K codebooks, V table rows,
Q levels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.release.params import Params
from voxclone.spec import SHIFT
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone

USUAL_LEVELS = 7
"""Levels of a channel that speech is mostly within."""
RESIDUAL = ("o_proj.weight", "down_proj.weight", "wo.weight", "w2.weight")
TABLE_STD = 0.3


def fresh_model(params: Params, seed: int) -> tuple[Backbone, AcousticHead]:
    """Normal weights, with 1/sqrt(fan-in) for matrices; rows of neighboring levels begin as
    neighbors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone, head = Backbone(params, attention="eager"), AcousticHead(params)
        nn.init.normal_(backbone.text_table.weight, std=TABLE_STD)
        size = TABLE_STD / params.codec.num_codebooks**0.5
        nn.init.normal_(backbone.audio_table.weight, std=size)
        _order_levels(backbone, size)
        for name, weight in [*backbone.model.named_parameters(), *head.named_parameters()]:
            if weight.ndim == 2:
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
                if name.endswith(RESIDUAL):
                    weight.data *= (2 * params.lm.n_layers) ** -0.5
    return backbone, head


@torch.no_grad()
def _order_levels(backbone: Backbone, size: float) -> None:
    """Half of the difference between the levels of a channel is one direction, along which they lie
    in order: the sum over channels then holds the latent itself, which is what a voice is read
    from. The other half stays as drawn, so that a row still has one set of codes."""
    levels = backbone.params.audio.acoustic_codebook_size
    table_VD = backbone.audio_table.weight
    height_Q1 = torch.linspace(-1, 1, levels)[:, None] * levels / USUAL_LEVELS
    for offset in backbone.offsets_K[1:].tolist():
        rows = slice(offset + SHIFT, offset + SHIFT + levels)
        direction_D = torch.randn(table_VD.shape[1]) * size
        table_VD[rows] = 0.7 * table_VD[rows] + 0.7 * height_Q1 * direction_D


def forward(
    backbone: Backbone, embedded_BLD: Tensor, guided_layer: int, guided_heads: int
) -> tuple[Tensor, Tensor]:
    """Hidden states [B, L, D] after the final norm, and the causal attention [B, H, L, L] of the
    first heads of one layer."""
    lm = backbone.params.lm
    length, device = embedded_BLD.shape[1], embedded_BLD.device
    rotary = _rotary(length, lm.head_dim, lm.rope_theta, device)
    groups = lm.n_heads // lm.n_kv_heads
    x_BLD, attention_BHLL = embedded_BLD, embedded_BLD.new_zeros(0)
    layers: Any = backbone.model.layers
    for number, layer in enumerate(layers):
        attention = layer.self_attn
        normed_BLD = _norm(x_BLD, layer.input_layernorm.weight, lm.norm_eps)
        query, key, value = (
            projection(normed_BLD).unflatten(-1, (-1, lm.head_dim)).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        query, key = _turn(query, *rotary), _turn(key, *rotary)
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        if number == guided_layer:
            scores = query[:, :guided_heads] @ key[:, :guided_heads].transpose(-1, -2)
            future_LL = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
            scores = (scores.float() * lm.head_dim**-0.5).masked_fill(future_LL, -torch.inf)
            attention_BHLL = scores.softmax(dim=-1)
        out = F.scaled_dot_product_attention(query, key, value.to(query.dtype), is_causal=True)
        x_BLD = x_BLD + attention.o_proj(out.transpose(1, 2).flatten(2))
        normed_BLD = _norm(x_BLD, layer.post_attention_layernorm.weight, lm.norm_eps)
        mlp = layer.mlp
        gated = F.silu(mlp.gate_proj(normed_BLD)) * mlp.up_proj(normed_BLD)
        x_BLD = x_BLD + mlp.down_proj(gated)
    return _norm(x_BLD, backbone.model.norm.weight, lm.norm_eps), attention_BHLL


def _norm(x_BLD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x_BLD.float(), (x_BLD.shape[-1],), weight_D, eps)


def _rotary(
    length: int, head_dim: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines [L, E] of the angles of each position."""
    exponent = torch.arange(0, head_dim, 2, device=device).float() / head_dim
    angle = torch.arange(length, device=device).float()[:, None] * theta**-exponent
    angle_LE = torch.cat([angle, angle], dim=-1)
    return angle_LE.cos(), angle_LE.sin()


def _turn(x_BHLE: Tensor, cosine_LE: Tensor, sine_LE: Tensor) -> Tensor:
    first, second = x_BHLE.float().chunk(2, dim=-1)
    turned = x_BHLE.float() * cosine_LE + torch.cat([-second, first], dim=-1) * sine_LE
    return turned.to(x_BHLE.dtype)


def attention_loss(attention_BHLL: Tensor, character_BL: Tensor, predicts_BL: Tensor) -> Tensor:
    """Mean surprise that guided heads look at the character being spoken or at one beside it, over
    the positions for which it is known."""
    known_BL = (character_BL >= 0) & predicts_BL
    window = torch.arange(-1, 2, device=character_BL.device)
    looked_at = character_BL.clamp(min=1)[..., None] + window
    looked_at = looked_at.clamp(max=attention_BHLL.shape[-1] - 1)
    heads = attention_BHLL.shape[1]
    mass_BHL = attention_BHLL.gather(-1, looked_at[:, None].expand(-1, heads, -1, -1)).sum(dim=-1)
    surprise_BL = -(mass_BHL + 1e-4).log().mean(dim=1)
    return (surprise_BL * known_BL).sum() / known_BL.sum().clamp(min=1)
