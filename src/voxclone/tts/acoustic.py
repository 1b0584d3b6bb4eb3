"""The acoustic head: from a hidden state to the 37 codes of a frame.

Semantic code: argmax of a linear layer on the hidden state. Acoustic codes: a flow from noise to
data, integrated in Euler steps with classifier-free guidance. Its velocity comes from a small
bidirectional transformer without positions over three tokens: point, time and hidden state.
Numbers and names follow vLLM-Omni's `FlowMatchingAudioTransformer`.

Shapes: B batch, C acoustic channels, D width, V semantic outputs, K codebooks, H heads.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.codec.quantizer import to_levels
from voxclone.release.params import AcousticConfig, Params
from voxclone.release.tensors import semantic_rows
from voxclone.spec import EMPTY_AUDIO, END_AUDIO, SHIFT


class _Attention(nn.Module):
    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.groups = config.n_heads // config.n_kv_heads
        width, kv_width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.wq = nn.Linear(config.dim, width, bias=False)
        self.wk = nn.Linear(config.dim, kv_width, bias=False)
        self.wv = nn.Linear(config.dim, kv_width, bias=False)
        self.wo = nn.Linear(width, config.dim, bias=False)

    def forward(self, x_B3D: Tensor) -> Tensor:
        q, k, v = (
            layer(x_B3D).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for layer in (self.wq, self.wk, self.wv)
        )
        k, v = (x.repeat_interleave(self.groups, dim=1) for x in (k, v))
        # Plain products: for three tokens, and thousands of frames in training, a fused kernel
        # takes three times as long.
        scores_BH33 = (q @ k.transpose(-1, -2)).float() * self.head_dim**-0.5
        out_BH3E = scores_BH33.softmax(dim=-1).to(v.dtype) @ v
        output: Tensor = self.wo(out_BH3E.transpose(1, 2).flatten(-2))
        return output


class _FeedForward(nn.Module):
    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = nn.Linear(config.hidden_dim, config.dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.hidden_dim, bias=False)

    def forward(self, x_B3D: Tensor) -> Tensor:
        output: Tensor = self.w2(F.silu(self.w1(x_B3D)) * self.w3(x_B3D))
        return output


class _Block(nn.Module):
    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.feed_forward = _FeedForward(config)
        self.attention_norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = nn.RMSNorm(config.dim, config.norm_eps)

    def forward(self, x_B3D: Tensor) -> Tensor:
        x_B3D = x_B3D + self.attention(self.attention_norm(x_B3D))
        return x_B3D + self.feed_forward(self.ffn_norm(x_B3D))


class AcousticHead(nn.Module):
    """Hidden states [B, D] -> codes [B, K] in the +2-shifted space."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        config = params.audio.acoustic
        self.config = config
        self.semantic_size = params.audio.semantic_codebook_size
        self.levels = params.audio.acoustic_codebook_size
        self.channels = params.audio.n_acoustic_codebook
        self.input_projection = nn.Linear(self.channels, config.dim, bias=False)
        self.time_projection = nn.Linear(config.dim, config.dim, bias=False)
        self.llm_projection = nn.Linear(config.input_dim, config.dim, bias=False)
        self.semantic_codebook_output = nn.Linear(config.dim, semantic_rows(params), bias=False)
        self.acoustic_codebook_output = nn.Linear(config.dim, self.channels, bias=False)
        self.layers = nn.ModuleDict({str(i): _Block(config) for i in range(config.n_layers)})
        self.norm = nn.RMSNorm(config.dim, config.norm_eps)

    def semantic_logits(self, hidden_BD: Tensor) -> Tensor:
        """Logits [B, V] in fp32 before masking (the last rows are padding)."""
        return self.semantic_codebook_output(hidden_BD).float()

    def mask_semantic(self, logits_BV: Tensor) -> Tensor:
        """Minus infinity where there is no code: EMPTY_AUDIO and the padding."""
        masked_BV = logits_BV.clone()
        masked_BV[..., EMPTY_AUDIO] = -math.inf
        masked_BV[..., SHIFT + self.semantic_size :] = -math.inf
        return masked_BV

    def time_token(self, time_B: Tensor) -> Tensor:
        """Projected time [B, D]: cos then sin of t * w, w = 10000^(-i / (D/2)) (fp32 product)."""
        half = self.config.dim // 2
        index = torch.arange(half, device=time_B.device, dtype=torch.float32)
        frequency = torch.exp(-math.log(10000.0) * index / half)
        angle_BE = time_B.float()[:, None] * frequency
        embedded_BD = torch.cat([angle_BE.cos(), angle_BE.sin()], dim=-1)
        token: Tensor = self.time_projection(embedded_BD.to(self.norm.weight.dtype))
        return token

    def velocity(self, point_BC: Tensor, time_BD: Tensor, hidden_BD: Tensor) -> Tensor:
        """dx/dt [B, C] at `point`, given the projected time and the *projected* hidden state."""
        tokens_B3D = torch.stack([self.input_projection(point_BC), time_BD, hidden_BD], dim=1)
        for layer in self.layers.values():
            tokens_B3D = layer(tokens_B3D)
        output: Tensor = self.acoustic_codebook_output(self.norm(tokens_B3D[:, 0]))
        return output

    def error(
        self, data_BC: Tensor, noise_BC: Tensor, time_B: Tensor, projected_BD: Tensor
    ) -> Tensor:
        """The error [B, C] of the velocity on the straight line from noise to data: velocity -
        (data - noise), at one time or one for each, given *projected* hidden states (flow
        matching, arXiv 2210.02747)."""
        time_B1 = time_B[:, None]
        point_BC = time_B1 * data_BC + (1 - time_B1) * noise_BC
        token_BD = self.time_token(time_B).expand(len(data_BC), -1)
        speed_BC = self.velocity(point_BC.to(projected_BD.dtype), token_BD, projected_BD)
        return speed_BC.float() - (data_BC - noise_BC)

    def flow(self, hidden_BD: Tensor, noise_BC: Tensor, cfg: float | Tensor) -> Tensor:
        """Acoustic values [B, C] in -1 .. 1: Euler steps from t = 0 (noise) to 1, with guidance
        v = cfg * v(h) + (1 - cfg) * v(0). With cfg = 1 the unconditional branch has no weight.
        `cfg` may be [B, 1], one for each; then both branches are computed whatever its values, and
        no step waits for them."""
        batch, dtype = len(hidden_BD), hidden_BD.dtype
        steps = self.config.n_decoding_steps
        grid = torch.linspace(0, 1, steps + 1, device=hidden_BD.device).to(dtype)
        times_SD = self.time_token(grid[:-1])
        both = isinstance(cfg, Tensor) or cfg != 1.0
        given_BD = torch.cat([hidden_BD, torch.zeros_like(hidden_BD)]) if both else hidden_BD
        projected_BD = self.llm_projection(given_BD)
        point_BC = noise_BC.to(dtype)
        for step in range(steps):
            time_BD = times_SD[step].expand(len(projected_BD), -1)
            repeated_BC = torch.cat([point_BC, point_BC]) if both else point_BC
            speed_BC = self.velocity(repeated_BC, time_BD, projected_BD)
            if both:
                speed_BC = (cfg * speed_BC[:batch] + (1 - cfg) * speed_BC[batch:]).to(dtype)
            point_BC = point_BC + speed_BC * (grid[step + 1] - grid[step])
        return point_BC.clamp(-1, 1)

    def forward(
        self,
        hidden_BD: Tensor,
        noise_BC: Tensor,
        cfg: float | Tensor,
        semantic_B: Tensor | None = None,
    ) -> Tensor:
        """Shifted codes [B, K] of one frame each. `semantic` replaces the argmax (for sampling)."""
        if semantic_B is None:
            semantic_B = self.mask_semantic(self.semantic_logits(hidden_BD)).argmax(dim=-1)
        value_BC = self.flow(hidden_BD, noise_BC, cfg)
        level_BC = to_levels(value_BC, self.levels).round().long()
        level_BC = level_BC.masked_fill((semantic_B == END_AUDIO)[:, None], EMPTY_AUDIO)
        return torch.cat([semantic_B[:, None], level_BC + SHIFT], dim=1)
