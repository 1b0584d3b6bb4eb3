"""A plain, slow codec: dense attention over the whole signal, one item at a time, float64.

Written from the specification's formulas and independent of `voxclone.codec`; reads a state dict
with the names of the release (without prefix).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def slopes(heads: int) -> Tensor:
    def geometric(count: int) -> list[float]:
        return [(2.0 ** (-8.0 / count)) ** i for i in range(count)]

    power = 1
    while power * 2 <= heads:
        power *= 2
    more = geometric(2 * power)[::2]
    return torch.tensor(geometric(power) + more[: heads - power], dtype=torch.float64)


def weight(state: State, name: str) -> Tensor:
    plain = f"{name}.conv.weight"
    if plain in state:
        return state[plain].double()
    g = state[f"{name}.conv.parametrizations.weight.original0"].double()
    v = state[f"{name}.conv.parametrizations.weight.original1"].double()
    return g * v / v.flatten(1).norm(dim=1)[:, None, None]


def rms(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * scale.double()


def conv(x_CT: Tensor, w: Tensor, stride: int, mode: str) -> Tensor:
    kernel, length = w.shape[-1], x_CT.shape[-1]
    frames = math.ceil(length / stride)
    left = kernel - stride
    right = frames * stride - length
    if mode == "reflect" and length <= max(left, right):
        grown = F.pad(x_CT, (0, max(left, right) + 1 - length))
        x_CT = F.pad(grown[None], (left, right), "reflect")[0]
        x_CT = x_CT[:, : length + left + right]
    elif left or right:
        x_CT = F.pad(x_CT[None], (left, right), mode)[0]
    windows = torch.stack([x_CT[:, t * stride : t * stride + kernel] for t in range(frames)])
    return torch.einsum("tck,ock->ot", windows, w)


def up_conv(x_CT: Tensor, w_IOK: Tensor, stride: int) -> Tensor:
    kernel, length = w_IOK.shape[-1], x_CT.shape[-1]
    out = torch.zeros(w_IOK.shape[1], length * stride + kernel, dtype=torch.float64)
    for t in range(length):
        out[:, t * stride : t * stride + kernel] += torch.einsum("i,iok->ok", x_CT[:, t], w_IOK)
    return out[:, : length * stride]


def layer(x: Tensor, state: State, name: str, config: dict, window: int) -> Tensor:
    p = {k[len(name) + 1 :]: v for k, v in state.items() if k.startswith(name + ".")}
    heads, kv, eps = config["n_heads"], config["n_kv_heads"], config["norm_eps"]
    length = len(x)
    y = rms(x, p["attention_norm.weight"], eps)
    q = y @ p["attention.wq.weight"].double().T
    k = y @ p["attention.wk.weight"].double().T
    v = y @ p["attention.wv.weight"].double().T
    if config["qk_norm"]:
        q = rms(q, p["attention.q_norm.weight"], config["qk_norm_eps"])
        k = rms(k, p["attention.k_norm.weight"], config["qk_norm_eps"])
    width = q.shape[-1] // heads
    i = torch.arange(length)
    distance = i[None, :] - i[:, None]
    outside = (distance > 0) | (distance < -window)
    result = []
    for h in range(heads):
        g = h // (heads // kv)
        score = q[:, h * width : (h + 1) * width] @ k[:, g * width : (g + 1) * width].T
        score = score / math.sqrt(width) + slopes(heads)[h] * distance
        score = score.masked_fill(outside, -math.inf)
        result.append(score.softmax(-1) @ v[:, g * width : (g + 1) * width])
    attended = torch.cat(result, -1) @ p["attention.wo.weight"].double().T
    x = x + p.get("attention_scale", torch.ones(1)).double() * attended
    y = rms(x, p["ffn_norm.weight"], eps)
    gate = y @ p["feed_forward.w1.weight"].double().T
    up = y @ p["feed_forward.w3.weight"].double().T
    fed = (F.silu(gate) * up) @ p["feed_forward.w2.weight"].double().T
    return x + p.get("ffn_scale", torch.ones(1)).double() * fed


def numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def encode(wave_S: Tensor, state: State, config: dict) -> Tensor:
    """Latent [D, T]."""
    patch = config["pretransform_patch_size"]
    wave_S = F.pad(wave_S.double(), (0, -len(wave_S) % patch))
    x_CT = conv(wave_S.view(-1, patch).T, weight(state, "input_proj"), 1, "reflect")
    window, block = config["attn_sliding_window_size"], 0
    lengths = numbers(config["encoder_transformer_lengths_str"])
    kernels = numbers(config["encoder_convs_kernels_str"])
    strides = numbers(config["encoder_convs_strides_str"])
    for index, (layers, kernel, stride) in enumerate(zip(lengths, kernels, strides, strict=True)):
        x = x_CT.T
        for n in range(layers):
            x = layer(x, state, f"encoder_blocks.{block}.layers.{n}", config, window)
        block += 1
        x_CT = x.T
        if kernel != 1 or stride != 1 or index == len(lengths) - 1:
            x_CT = conv(x_CT, weight(state, f"encoder_blocks.{block}"), stride, "replicate")
            block += 1
        window = window // 2 if stride > 1 else window
    return x_CT


def decode(latent_DT: Tensor, state: State, config: dict) -> Tensor:
    """Waveform [S] of a quantized latent."""
    strides = numbers(config["encoder_convs_strides_str"])
    window = config["attn_sliding_window_size"] >> sum(s > 1 for s in strides)
    lengths = numbers(config["decoder_transformer_lengths_str"])
    kernels = numbers(config["decoder_convs_kernels_str"])
    strides = numbers(config["decoder_convs_strides_str"])
    x_CT = conv(latent_DT.double(), weight(state, "decoder_blocks.0"), 1, "replicate")
    block = 1
    for index, layers in enumerate(lengths):
        x = x_CT.T
        for n in range(layers):
            x = layer(x, state, f"decoder_blocks.{block}.layers.{n}", config, window)
        block += 1
        x_CT = x.T
        after = index + 1
        if after < len(lengths) and (kernels[after] != 1 or strides[after] != 1):
            x_CT = up_conv(x_CT, weight(state, f"decoder_blocks.{block}"), strides[after])
            window = window * 2 if strides[after] > 1 else window
            block += 1
    return conv(x_CT, weight(state, "output_proj"), 1, "reflect").T.flatten()
