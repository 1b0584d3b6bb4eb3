"""First weights of a codec whose training is short.

PyTorch's defaults shrink a signal at every convolution, and speech is quiet to begin with: the
codec's stream would start far below the epsilon of its norms and its layers would hardly count
(docs/LOG.md). Here every layer keeps the size of what it is given: the stream is near 1, latents
near one half, and the decoder's output near speech.

The first and the last convolution begin as filter banks (windowed sinusoids in pairs, at mel
spacing), since to find a spectrum in a waveform costs plain descent most of a short training:
docs/LOG.md, 2026-11-25, gives the measurements.

Shapes: D width, P samples of a patch, K patches that a convolution sees, N samples of those.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from voxclone.codec.config import CodecConfig
from voxclone.codec.layers import CausalConv1d, CausalConvTranspose1d
from voxclone.codec.model import Codec, Decoder, Encoder
from voxclone.codec.quantizer import SemanticCodebook

SPEECH_RMS = 0.05
LATENT_STD = 0.5
LOWEST_HZ = 60.0
HIGHEST_SHARE = 0.875
"""Of half the sampling rate."""


def initialize(codec: Codec, seed: int) -> None:
    """Draw all weights anew; norms, layer scales and the codebook stay as they are."""
    generator = torch.Generator().manual_seed(seed)
    if codec.encoder is not None:
        initialize_encoder(codec.encoder, generator)
    initialize_decoder(codec.decoder, generator)


@torch.no_grad()
def initialize_encoder(encoder: Encoder, generator: torch.Generator) -> None:
    """Waveforms of the size of speech give latents of a standard deviation near one half."""
    _draw(encoder, generator)
    atoms_DN, size_D = filter_bank(encoder.config, generator, newest_last=True)
    _put(encoder.input_proj.conv, _patches(atoms_DN / size_D[:, None], encoder.config).mT)
    _scale(encoder.encoder_blocks[-1], LATENT_STD)


@torch.no_grad()
def match_codebook(encoder: Encoder, book: SemanticCodebook) -> None:
    """Bring fresh semantic latents to the size of the code vectors, channel by channel. The release
    does not promise any size, and latents far below all vectors have one code. (Their mean stays at
    zero: the last convolution has no bias.)"""
    usage_V1 = (book.cluster_usage / book.cluster_usage.sum())[:, None]
    vectors_VD = book.vectors()
    spread_D = vectors_VD - (usage_V1 * vectors_VD).sum(dim=0)
    std_D = (usage_V1 * spread_D.square()).sum(dim=0).sqrt()
    conv: Any = encoder.encoder_blocks[-1].conv
    gain_D11 = conv.parametrizations.weight.original0
    gain_D11[: len(std_D)] *= (std_D / LATENT_STD).to(gain_D11)[:, None, None]


@torch.no_grad()
def initialize_decoder(decoder: Decoder, generator: torch.Generator) -> None:
    """Latents near one half give waveforms of the size of speech."""
    _draw(decoder, generator)
    _scale(decoder.decoder_blocks[0], 1 / LATENT_STD)
    atoms_DN, size_D = filter_bank(decoder.config, generator, newest_last=False)
    power = size_D.square().sum() / decoder.config.pretransform_patch_size  # of unit channels
    made_DN = atoms_DN * size_D[:, None] * SPEECH_RMS / power.sqrt()
    weight_DKP = _patches(made_DN, decoder.config)
    _put(
        decoder.output_proj.conv, weight_DKP.flip(1).permute(2, 0, 1)
    )  # the newest patch sounds first


def filter_bank(
    config: CodecConfig, generator: torch.Generator, *, newest_last: bool
) -> tuple[Tensor, Tensor]:
    """Atoms [D, N] of unit energy, cosine and sine in pairs, Hann-windowed over two periods of the
    spacing (10 to 40 ms), at the end of the samples or at their beginning; and how large speech is
    in each (its spectrum falls by 6 dB an octave from 500 Hz). Which channel has which frequency,
    and each pair's phase, are drawn."""
    rate, pairs = config.sampling_rate, -(-config.dim // 2)
    samples = config.pretransform_patch_size * config.patch_proj_kernel_size
    top = _mel(HIGHEST_SHARE * rate / 2)
    edges = torch.linspace(_mel(LOWEST_HZ), top, pairs + 2, dtype=torch.float64)
    hertz = 700 * (10 ** (edges / 2595) - 1)
    phases = torch.rand(pairs, generator=generator) * 2 * math.pi
    atoms = torch.zeros(2 * pairs, samples)
    sizes = torch.zeros(2 * pairs)
    for pair in range(pairs):
        low, center, high = hertz[pair : pair + 3].tolist()
        longest, shortest = min(samples, round(0.04 * rate)), min(samples, round(0.01 * rate))
        length = int(min(longest, max(shortest, 2 * rate / (high - low))))
        turn = 2 * math.pi * center / rate * torch.arange(length) + phases[pair]
        window = torch.hann_window(length + 2, periodic=False)[1:-1]
        part = slice(samples - length, samples) if newest_last else slice(0, length)
        for row, wave in ((2 * pair, torch.cos(turn)), (2 * pair + 1, torch.sin(turn))):
            atoms[row, part] = window * wave / (window * wave).norm().clamp(min=1e-6)
            sizes[row] = 5 * SPEECH_RMS / (1 + center / 500)
    order = torch.randperm(2 * pairs, generator=generator)[: config.dim]
    return atoms[order], sizes[order]


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _patches(atoms_DN: Tensor, config: CodecConfig) -> Tensor:
    """[D, K, P], patches in order of time."""
    return atoms_DN.unflatten(1, (config.patch_proj_kernel_size, config.pretransform_patch_size))


def _put(conv: Any, weight: Tensor) -> None:
    if hasattr(conv, "parametrizations"):  # the weight norm takes gain and direction from it
        conv.weight = weight.contiguous().to(conv.weight)
    else:
        conv.weight.copy_(weight)


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    """Normal weights that keep the variance of their input."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            _fill(layer.weight, layer.in_features, generator)
        elif isinstance(layer, CausalConv1d):
            _fill_conv(layer.conv, layer.conv.in_channels * layer.kernel_size, generator)
        elif isinstance(layer, CausalConvTranspose1d):
            taps = layer.conv.kernel_size[0] / layer.stride  # that reach one output
            _fill_conv(layer.conv, layer.conv.in_channels * taps, generator)


def _fill(weight: Tensor, terms: float, generator: torch.Generator) -> None:
    drawn = torch.randn(weight.shape, generator=generator) / math.sqrt(terms)
    weight.copy_(drawn.to(weight.device))


def _fill_conv(conv: Any, terms: float, generator: torch.Generator) -> None:
    drawn = (torch.randn(conv.weight.shape, generator=generator) / math.sqrt(terms)).to(conv.weight)
    _put(conv, drawn)


def _scale(layer: Any, factor: float) -> None:
    conv = layer.conv
    normed = hasattr(conv, "parametrizations")
    (conv.parametrizations.weight.original0 if normed else conv.weight).mul_(factor)
