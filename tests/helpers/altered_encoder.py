"""Encoders with known failures: copies of a working one with altered input, weights or latents."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from voxclone.codec.model import Codec

Alter = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class AlteredEncoder(nn.Module):
    """An encoder whose input [B, S] and latents [B, D, T] are altered."""

    def __init__(
        self,
        encoder: nn.Module,
        latents: Callable[[Tensor], Tensor] = lambda latent_BDT: latent_BDT,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder, self.latents, self.gain = encoder, latents, gain

    def forward(self, wave_BS: Tensor, past: object = None) -> Tensor:
        return self.latents(self.encoder(self.gain * wave_BS, past))


def with_latents(codec: Codec, alter: Alter) -> Codec:
    """A copy of a codec whose semantic and acoustic latents are altered."""
    altered = copy.deepcopy(codec)
    split = altered.quantizer.split
    altered.encoder = AlteredEncoder(  # type: ignore[assignment]
        altered.require_encoder(), lambda latent_BDT: torch.cat(alter(*split(latent_BDT)), dim=1)
    )
    return altered


def with_input_gain(codec: Codec, gain: float) -> Codec:
    """A copy of a codec whose encoder gets louder or quieter input."""
    altered = copy.deepcopy(codec)
    altered.encoder = AlteredEncoder(altered.require_encoder(), gain=gain)  # type: ignore[assignment]
    return altered


def with_acoustic_gain(codec: Codec, gain: float) -> Codec:
    """A copy with the weights of acoustic latents times `gain`. Training through tanh(tanh(0.3 z))
    has this effect: it needs latents more than three times as large."""
    altered = copy.deepcopy(codec)
    last = altered.require_encoder().encoder_blocks[-1]
    with torch.no_grad():
        scale = last.conv.parametrizations.weight.original0
        scale[altered.quantizer.semantic_dim :] *= gain
    return altered


def with_random_weights(codec: Codec) -> Codec:
    """A copy with random weights of the scale of the trained ones."""
    altered = copy.deepcopy(codec)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in altered.require_encoder().named_parameters():
            if name.endswith("original1") or "attention.w" in name or "feed_forward" in name:
                values.copy_(torch.randn(values.shape, generator=generator) * values.std())
    return altered


def with_permuted_codes(codec: Codec) -> Codec:
    """A copy whose semantic codes are permuted."""
    codebook = codec.quantizer.semantic_codebook
    vectors_VD = codebook.vectors()

    def permute(semantic: Tensor, acoustic: Tensor) -> tuple[Tensor, Tensor]:
        codes_BT = codebook.encode(semantic)
        return vectors_VD[(codes_BT * 5 + 3) % len(vectors_VD)].mT.to(semantic), acoustic

    return with_latents(codec, permute)


def with_one_code(codec: Codec) -> Codec:
    """A copy whose semantic latents are all near one code vector."""
    vector_D1 = codec.quantizer.semantic_codebook.vectors()[7][:, None]
    return with_latents(codec, lambda s, a: (vector_D1.to(s) + 0.01 * s, a))


def _delayed(acoustic: Tensor) -> Tensor:
    """Each channel delayed by its own number of frames."""
    return torch.stack([row.roll(3 * i, -1) for i, row in enumerate(acoustic.unbind(1))], dim=1)


def _shifted(acoustic: Tensor) -> Tensor:
    """The first three channels with an offset."""
    return torch.cat([acoustic[:, :3] + 1, acoustic[:, 3:]], dim=1)


def _averaged(latent: Tensor) -> Tensor:
    """Each item of a batch mixed with the mean of the batch."""
    return latent + 0.5 * (latent.mean(dim=0, keepdim=True) - latent)


# By the check that must fail. The language model is needed only for the last one.
ALTERED: dict[str, Callable[[Codec], Codec]] = {
    "codebook collapse by scale": lambda c: with_latents(c, lambda s, a: (0.02 * s, a)),
    "codebook collapse": with_one_code,
    "saturation": lambda c: with_latents(c, lambda s, a: (s, 20 * a)),
    "double tanh": lambda c: with_latents(c, lambda s, a: (s, torch.tanh(a))),
    "channel offsets": lambda c: with_latents(c, lambda s, a: (s, _shifted(a))),
    "off-distribution levels": lambda c: with_latents(c, lambda s, a: (s, _delayed(a))),
    "level difference": lambda c: with_input_gain(c, 0.1),
    "batch leakage": lambda c: with_latents(c, lambda s, a: (_averaged(s), _averaged(a))),
    "bf16 drift": lambda c: with_latents(c, lambda s, a: ((s + 64) - 64, (a + 64) - 64)),
    "permuted semantic codes": with_permuted_codes,
}
