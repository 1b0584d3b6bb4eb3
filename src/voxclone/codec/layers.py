"""Building blocks of the codec: causal convolutions, windowed ALiBi attention, transformer.

Names of modules follow vLLM-Omni's `voxtral_tts_audio_tokenizer.py`, so that a state dict has the
names of the release. Every layer is causal and can go on where it stopped: given a `Past`, it
starts from what it stored there for the stretch before, and stores what the next stretch needs.

Shapes: B batch, T positions, D width, C channels, H heads, N blocks, Q queries of a block, J keys
of a block, E width of a head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from voxclone.codec.config import CodecConfig

Past = dict[nn.Module, tuple[Tensor, ...]]


def pad_left_right(x_BCT: Tensor, left: int, right: int, mode: str) -> Tensor:
    """Pad the last axis. A signal too short to be reflected is first lengthened with zeros, which
    are cut off again (vLLM-Omni `pad1d`; it matters for clips of up to six patches)."""
    if left == right == 0:
        return x_BCT
    missing = max(left, right) + 1 - x_BCT.shape[-1] if mode == "reflect" else 0
    if missing <= 0:
        return F.pad(x_BCT, (left, right), mode)
    padded = F.pad(F.pad(x_BCT, (0, missing)), (left, right), mode)
    return padded[..., : padded.shape[-1] - missing]


class CausalConv1d(nn.Module):
    """Convolution that sees nothing beyond its stride: [B, C, T] -> [B, C', ceil(T / stride)]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        pad_mode: str = "reflect",
        weight_norm: bool = True,
    ) -> None:
        super().__init__()
        conv = nn.Conv1d(in_channels, out_channels, kernel_size, stride=stride, bias=False)
        self.conv = parametrizations.weight_norm(conv) if weight_norm else conv
        self.kernel_size = kernel_size
        self.stride = stride
        self.pad_mode = pad_mode

    def forward(self, x_BCT: Tensor, past: Past | None = None) -> Tensor:
        left = self.kernel_size - self.stride
        right = -x_BCT.shape[-1] % self.stride
        before = None if past is None else past.get(self)
        if before is not None:
            x_BCT = torch.cat([before[0], x_BCT], dim=-1)
            padded_BCT = pad_left_right(x_BCT, 0, right, self.pad_mode)
        else:
            padded_BCT = pad_left_right(x_BCT, left, right, self.pad_mode)
        if past is not None:  # a stretch that had to be padded on the right is the last one
            past[self] = (padded_BCT[..., padded_BCT.shape[-1] - left :],)
        output: Tensor = self.conv(padded_BCT)
        return output


class CausalConvTranspose1d(nn.Module):
    """Upsampling by `stride`, trimmed on the right only: [B, C, T] -> [B, C', T * stride]."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        conv = nn.ConvTranspose1d(in_channels, out_channels, kernel_size, stride=stride, bias=False)
        self.conv = parametrizations.weight_norm(conv)  # dim 0: here the *input* channels
        self.stride = stride
        self.overlap = -(-kernel_size // stride) - 1

    def forward(self, x_BCT: Tensor, past: Past | None = None) -> Tensor:
        before = None if past is None else past.get(self)
        known = before[0].shape[-1] if before is not None else 0
        if before is not None:
            x_BCT = torch.cat([before[0], x_BCT], dim=-1)
        if past is not None:
            past[self] = (x_BCT[..., max(0, x_BCT.shape[-1] - self.overlap) :],)
        output: Tensor = self.conv(x_BCT)
        return output[..., known * self.stride : x_BCT.shape[-1] * self.stride]


def alibi_slopes(n_heads: int) -> Tensor:
    """Slopes [H], starting at 1: r^i with r = 2^(-8/H). When H is no power of two, those of the
    power m below, then every other slope of 2m (vLLM-Omni `get_alibi_slopes`)."""

    def geometric(count: int) -> list[float]:
        return [2.0 ** (-8.0 * index / count) for index in range(count)]

    below = 2 ** math.floor(math.log2(n_heads))
    slopes = geometric(below) + geometric(2 * below)[::2][: n_heads - below]
    return torch.tensor(slopes, dtype=torch.float32)


def block_bias(slopes_H: Tensor, window: int, size: int, blocks: int, before: int) -> Tensor:
    """Bias [N, H, Q, J] of blocks of `size` queries against the `window` keys before a block and
    its own keys: slope * (j - i) for the window + 1 keys i - window .. i, minus infinity elsewhere.
    In the first block only `before` of the earlier keys exist."""
    device = slopes_H.device
    key_J = torch.arange(-window, size, device=device)
    distance_QJ = key_J - torch.arange(size, device=device)[:, None]
    inside_QJ = (distance_QJ <= 0) & (distance_QJ >= -window)
    bias_HQJ = (slopes_H[:, None, None] * distance_QJ).masked_fill(~inside_QJ, -math.inf)
    first_HQJ = bias_HQJ.masked_fill(key_J < -before, -math.inf)
    return torch.cat([first_HQJ[None], bias_HQJ.expand(blocks - 1, -1, -1, -1)])


def window_attention(
    q_BTHE: Tensor, k_BTHE: Tensor, v_BTHE: Tensor, slopes_H: Tensor, window: int
) -> Tensor:
    """Causal attention of each position to itself and the `window` positions before it, with ALiBi.

    q is [B, T, H, E]; k and v may have fewer heads (grouped queries) and may begin up to `window`
    positions earlier. Returns [B, T, H, E]. Queries are taken in blocks, so time and memory grow
    with T and not with its square. Equal to the dense form of vLLM-Omni's `_native_attention`
    (flash-attention's window (w, 0) admits w + 1 keys).
    """
    length, heads = q_BTHE.shape[1:3]
    before = k_BTHE.shape[1] - length
    groups = heads // k_BTHE.shape[2]
    if groups > 1:
        k_BTHE = k_BTHE.repeat_interleave(groups, dim=2)
        v_BTHE = v_BTHE.repeat_interleave(groups, dim=2)
    size = min(max(32, 2 * window), length)
    blocks = -(-length // size)
    tail = blocks * size - length

    def keys(x_BTHE: Tensor) -> Tensor:  # -> [B, N, H, J, E]
        padded = F.pad(x_BTHE, (0, 0, 0, 0, window - before, tail))
        if blocks == 1:
            return padded.transpose(1, 2)[:, None]
        # Not unfold, whose backward adds up single numbers.
        earlier = padded[:, : blocks * size].unflatten(1, (blocks, size))[:, :, :window]
        own = padded[:, window:].unflatten(1, (blocks, size))
        return torch.cat([earlier, own], dim=2).transpose(2, 3)

    q_BNHQE = F.pad(q_BTHE, (0, 0, 0, 0, 0, tail)).unflatten(1, (blocks, size)).transpose(2, 3)
    # Plain products, not scaled_dot_product_attention: for such short blocks its backward on a CPU
    # takes longer than all the rest of a layer.
    q_BNHQE = q_BNHQE * q_BTHE.shape[-1] ** -0.5
    scores_BNHQJ = q_BNHQE @ keys(k_BTHE).transpose(-1, -2)
    scores_BNHQJ = scores_BNHQJ + block_bias(slopes_H, window, size, blocks, before)
    weights_BNHQJ = scores_BNHQJ.softmax(dim=-1).to(v_BTHE.dtype)
    out_BNHQE = weights_BNHQJ @ keys(v_BTHE)
    return out_BNHQE.transpose(2, 3).flatten(1, 2)[:, :length]


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm in the dtype of its input (so that autocast finds one dtype)."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.dtype != torch.float32:
            return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)
        assert self.eps is not None
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        return (x * square.div_(x.shape[-1]).add_(self.eps).rsqrt_()).mul_(self.weight)


class Attention(nn.Module):
    """Windowed self-attention; queries and keys are normalized over the full width, before the
    split into heads."""

    def __init__(self, config: CodecConfig, window: int) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.n_kv_heads = config.n_kv_heads
        self.window = window
        q_width = config.n_heads * config.head_dim
        kv_width = config.n_kv_heads * config.head_dim
        self.wq = nn.Linear(config.dim, q_width, bias=False)
        self.wk = nn.Linear(config.dim, kv_width, bias=False)
        self.wv = nn.Linear(config.dim, kv_width, bias=False)
        self.wo = nn.Linear(q_width, config.dim, bias=False)
        self.q_norm = RMSNorm(q_width, config.qk_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(kv_width, config.qk_norm_eps) if config.qk_norm else nn.Identity()
        self.register_buffer("alibi_slopes", alibi_slopes(config.n_heads), persistent=False)

    def forward(self, x_BTD: Tensor, past: Past | None = None) -> Tensor:
        q_BTHE = self.q_norm(self.wq(x_BTD)).unflatten(-1, (self.n_heads, -1))
        k_BTHE = self.k_norm(self.wk(x_BTD)).unflatten(-1, (self.n_kv_heads, -1))
        v_BTHE = self.wv(x_BTD).unflatten(-1, (self.n_kv_heads, -1))
        if past is not None:
            if self in past:
                k_BTHE = torch.cat([past[self][0], k_BTHE], dim=1)
                v_BTHE = torch.cat([past[self][1], v_BTHE], dim=1)
            kept = max(0, k_BTHE.shape[1] - self.window)
            past[self] = (k_BTHE[:, kept:], v_BTHE[:, kept:])
        slopes_H = self.get_buffer("alibi_slopes")
        out_BTHE = window_attention(q_BTHE, k_BTHE, v_BTHE, slopes_H, self.window)
        output: Tensor = self.wo(out_BTHE.flatten(-2).contiguous())
        return output


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden_dim, bias=False)
        self.w2 = nn.Linear(hidden_dim, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden_dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.w2(F.silu(self.w1(x_BTD)) * self.w3(x_BTD))
        gate_BTD = F.silu(
            self.w1(x_BTD), inplace=True
        )  # the widest tensors of the codec: kept to two
        return self.w2(gate_BTD.mul_(self.w3(x_BTD)))


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward, each scaled per channel (LayerScale)."""

    def __init__(self, config: CodecConfig, window: int, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, window)
        self.feed_forward = FeedForward(config.dim, config.hidden_dim)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention_scale: nn.Parameter | None = None
        self.ffn_scale: nn.Parameter | None = None
        if config.layer_scale:
            scale = config.layer_scale_init
            if scale is None:  # CaiT's rule by depth, as in vLLM-Omni's `TransformerBlock`
                scale = 0.1 if layer < 18 else 1e-5 if layer <= 24 else 1e-6
            self.attention_scale = nn.Parameter(torch.full((config.dim,), scale))
            self.ffn_scale = nn.Parameter(torch.full((config.dim,), scale))

    def forward(self, x_BTD: Tensor, past: Past | None = None) -> Tensor:
        attended = self.attention(self.attention_norm(x_BTD), past)
        x_BTD = _add_scaled(x_BTD, self.attention_scale, attended)
        return _add_scaled(x_BTD, self.ffn_scale, self.feed_forward(self.ffn_norm(x_BTD)))


def _add_scaled(x_BTD: Tensor, scale_D: Tensor | None, update_BTD: Tensor) -> Tensor:
    if scale_D is None:
        return x_BTD + update_BTD
    return torch.addcmul(x_BTD, scale_D, update_BTD.to(x_BTD.dtype))


class Transformer(nn.Module):
    """A stack of blocks at one rate: [B, T, D] -> [B, T, D]. No norm at the end."""

    def __init__(self, config: CodecConfig, layers: int, window: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {str(index): TransformerBlock(config, window, index) for index in range(layers)}
        )

    def forward(self, x_BTD: Tensor, past: Past | None = None) -> Tensor:
        for layer in self.layers.values():
            x_BTD = layer(x_BTD, past)
        return x_BTD
