"""First weights: signals keep their size, and the outermost convolutions are filter banks."""

import pytest
import torch

from voxclone.codec.config import CodecConfig
from voxclone.codec.initialization import filter_bank, initialize
from voxclone.codec.model import Codec


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("weight_norm", [True, False])
def test_first_weights_keep_signals_near_their_size(weight_norm: bool) -> None:
    config = CodecConfig(
        semantic_dim=16, acoustic_dim=16, dim=48, hidden_dim=96, head_dim=16, n_heads=3,
        n_kv_heads=3, semantic_codebook_size=32, layer_scale_init=0.3,
        conv_weight_norm=weight_norm,
    )  # fmt: skip
    codec = Codec(config)
    initialize(codec, seed=3)
    wave = 0.05 * noise(2, 24000)
    sizes = []
    for block in [*codec.require_encoder().encoder_blocks[:-1], *codec.decoder.decoder_blocks]:
        block.register_forward_hook(lambda m, i, o: sizes.append(o.std().item()))
    with torch.no_grad():
        latent = codec.require_encoder()(wave)
        decoded = codec.decoder(0.5 * noise(2, 32, 13))
    assert 0.3 < latent.std().item() < 1.5
    assert 0.02 < decoded.std().item() < 0.15
    assert all(0.5 < size < 3 for size in sizes), sizes
    again = Codec(config)
    initialize(again, seed=3)
    assert all(
        torch.equal(a, b) for a, b in zip(codec.parameters(), again.parameters(), strict=True)
    )


def test_the_first_convolution_hears_pitch_and_the_last_sounds_from_its_own_patch() -> None:
    config = CodecConfig(dim=144, hidden_dim=96, head_dim=24, n_heads=6, n_kv_heads=6)
    codec = Codec(config)
    initialize(codec, seed=5)
    encoder, decoder = codec.require_encoder(), codec.decoder
    loudest = []
    for hertz in (200.0, 1000.0, 4000.0):
        tone_BS = 0.05 * torch.sin(2 * torch.pi * hertz * torch.arange(24000) / 24000)[None]
        with torch.no_grad():
            power_D = encoder.input_proj(tone_BS.unflatten(-1, (-1, 240)).mT)[0].square().mean(-1)
        weight_DN = encoder.input_proj.conv.weight.detach().mT.flatten(1)
        spectrum = torch.fft.rfft(weight_DN[power_D.argmax()], 24000).abs()
        loudest.append(float(spectrum.argmax()))
    assert loudest == pytest.approx([200, 1000, 4000], rel=0.1)

    stream_BDT = torch.zeros(1, 144, 16)
    stream_BDT[0, :, 8] = 1.0  # far from what is reflected at the beginning
    with torch.no_grad():
        patches_TP = decoder.output_proj(stream_BDT)[0].T
    assert not patches_TP[:8].any() and not patches_TP[12:].any()  # at most 40 ms long
    assert all(patch_P.abs().max() > 1e-4 for patch_P in patches_TP[8:12])


def test_filter_banks_of_two_seeds_differ() -> None:
    config = CodecConfig(dim=144, hidden_dim=96, head_dim=24, n_heads=6, n_kv_heads=6)
    banks = [
        filter_bank(config, torch.Generator().manual_seed(seed), newest_last=True)
        for seed in (0, 1)
    ]
    assert all(atoms.norm(dim=1).allclose(torch.ones(144)) for atoms, _ in banks)
    cosine_D = (banks[0][0] * banks[1][0]).sum(-1)
    assert cosine_D.abs().mean() < 0.1
