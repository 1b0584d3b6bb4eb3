"""First weights of a codec whose training is short.

PyTorch's defaults shrink a signal at every convolution, and speech is quiet to begin with: the
codec's stream would start far below the epsilon of its norms and its layers would hardly count
(docs/LOG.md). Here every layer keeps the size of what it is given: the stream is near 1, latents
near one half, and the decoder's output near speech.

Shapes: D width.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from voxclone.codec.layers import CausalConv1d, CausalConvTranspose1d
from voxclone.codec.model import Codec, Decoder, Encoder

SPEECH_RMS = 0.05
LATENT_STD = 0.5


def initialise(codec: Codec, seed: int) -> None:
    """Draw all weights anew; norms, layer scales and the code book stay as they are."""
    generator = torch.Generator().manual_seed(seed)
    if codec.encoder is not None:
        initialise_encoder(codec.encoder, generator)
    initialise_decoder(codec.decoder, generator)


@torch.no_grad()
def initialise_encoder(encoder: Encoder, generator: torch.Generator) -> None:
    """Waveforms of the size of speech give latents of a standard deviation near one half."""
    _draw(encoder, generator)
    _scale(encoder.input_proj, 1 / SPEECH_RMS)
    _scale(encoder.encoder_blocks[-1], LATENT_STD)


@torch.no_grad()
def initialise_decoder(decoder: Decoder, generator: torch.Generator) -> None:
    """Latents near one half give waveforms of the size of speech."""
    _draw(decoder, generator)
    _scale(decoder.decoder_blocks[0], 1 / LATENT_STD)
    _scale(decoder.output_proj, SPEECH_RMS)


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
    if hasattr(conv, "parametrizations"):
        conv.weight = drawn  # the weight norm takes gain and direction from it
    else:
        conv.weight.copy_(drawn)


def _scale(layer: Any, factor: float) -> None:
    conv = layer.conv
    normed = hasattr(conv, "parametrizations")
    (conv.parametrizations.weight.original0 if normed else conv.weight).mul_(factor)
