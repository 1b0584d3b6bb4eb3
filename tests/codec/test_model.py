"""The codec against a dense float64 oracle in many configs, in batches, and in pieces."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.random_weights import drawn_codec
from tests.oracles import dense_codec
from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Codec
from voxclone.errors import ConfigError, ReleaseError, VoxcloneError

SMALL = {
    "pretransform_patch_size": 24,
    "semantic_codebook_size": 32,
    "semantic_dim": 8,
    "acoustic_dim": 4,
    "dim": 24,
    "hidden_dim": 32,
    "head_dim": 8,
    "n_heads": 4,
    "n_kv_heads": 4,
}
CONFIGS = {
    "plain": {},
    "grouped queries": {"n_kv_heads": 2},
    "one key head": {"n_kv_heads": 1},
    "three heads": {"n_heads": 3, "n_kv_heads": 3},
    "six heads, grouped": {"n_heads": 6, "n_kv_heads": 2},
    "other patch": {"pretransform_patch_size": 10},
    "no weight norm on projections": {"conv_weight_norm": False},
    "no layer scale": {"layer_scale": False},
    "no qk norm": {"qk_norm": False},
    "uneven depth": {
        "encoder_transformer_lengths_str": "1,2,1,3",
        "decoder_transformer_lengths_str": "2,1,1,1",
    },
    "a stage without convolution": {
        "encoder_transformer_lengths_str": "1,1,1",
        "encoder_convs_kernels_str": "4,1,3",
        "encoder_convs_strides_str": "2,1,1",
        "decoder_transformer_lengths_str": "1,1,1",
        "decoder_convs_kernels_str": "3,1,4",
        "decoder_convs_strides_str": "1,1,2",
    },
    "wide window": {"attn_sliding_window_size": 40},
}


def make(**changes: object) -> tuple[Codec, dict]:
    config = CodecConfig(**{**SMALL, **changes})
    return drawn_codec(config), config.model_dump()


def wave(samples: int, seed: int = 0, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed)) * 0.3


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("patches", [1.0, 3.5, 7.0, 81.25])
def test_equals_dense_oracle(name: str, patches: float) -> None:
    codec, config = make(**CONFIGS[name])
    wave_BS = wave(int(patches * config["pretransform_patch_size"]))
    with torch.no_grad():
        latent_DT = codec.latents(wave_BS)[0]
        assert codec.encoder is not None
        expected = dense_codec.encode(wave_BS[0], codec.encoder.state_dict(), config)
        torch.testing.assert_close(latent_DT.double(), expected, atol=2e-5, rtol=1e-4)
        codes_BKT = codec.encode(wave_BS)
        value_DT = codec.quantizer.decode(codes_BKT)[0]
        decoded_S = codec.decode(codes_BKT)[0]
        expected_S = dense_codec.decode(value_DT, codec.decoder.state_dict(), config)
    torch.testing.assert_close(decoded_S.double(), expected_S, atol=2e-5, rtol=1e-4)
    assert decoded_S.shape[0] == codes_BKT.shape[-1] * codec.frame_size
    assert codes_BKT.shape[-1] == -(-wave_BS.shape[-1] // codec.frame_size)


def test_items_of_a_batch_do_not_see_each_other() -> None:
    codec, _ = make()
    wave_BS = wave(24 * 8 * 9 + 5, batch=3)
    with torch.no_grad():
        together = codec.latents(wave_BS)
        alone = torch.cat([codec.latents(item[None]) for item in wave_BS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(1, 24 * 8 * 40), piece=st.integers(1, 45))
def test_pieces_equal_the_whole(samples: int, piece: int) -> None:
    codec, _ = make(n_kv_heads=2)
    wave_BS = wave(samples)
    with torch.no_grad():
        whole, parts = codec.latents(wave_BS, piece=10**6), codec.latents(wave_BS, piece=piece)
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)
        codes_BKT = codec.quantizer.encode(whole)
        torch.testing.assert_close(
            codec.decode(codes_BKT, piece=piece),
            codec.decode(codes_BKT, piece=10**6),
            atol=1e-5,
            rtol=1e-5,
        )


def test_a_prefix_gives_the_same_frames() -> None:
    codec, _ = make()
    frame = codec.frame_size
    wave_BS = wave(frame * 30)
    with torch.no_grad():
        whole, prefix = codec.latents(wave_BS), codec.latents(wave_BS[:, : frame * 11])
    torch.testing.assert_close(whole[..., :11], prefix, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["plain", "uneven depth", "a stage without convolution"])
def test_history_is_what_gradients_reach(name: str) -> None:
    codec, _ = make(**CONFIGS[name])
    config, frame = codec.config, codec.frame_size
    frames = 2 * max(config.encoder_history, config.decoder_history) + 3
    wave_BS = wave(frame * frames).requires_grad_()
    codec.latents(wave_BS, piece=10**6)[0, :, -1].sum().backward()
    assert wave_BS.grad is not None
    reached = wave_BS.grad[0].nonzero()[:, 0].min().item()
    assert frames - 1 - reached // frame == config.encoder_history
    latent_BDT = torch.randn(1, config.latent_dim, frames).requires_grad_()
    codec.decoder(latent_BDT)[0, -1].backward()
    assert latent_BDT.grad is not None
    reached = latent_BDT.grad[0].abs().sum(0).nonzero()[:, 0].min().item()
    assert frames - 1 - reached <= config.decoder_history
    codec.decoder(latent_BDT)[0, -frame].backward()
    reached = latent_BDT.grad[0].abs().sum(0).nonzero()[:, 0].min().item()
    assert frames - 1 - reached == config.decoder_history


def test_real_hyper_parameters_have_the_published_reach() -> None:
    config = CodecConfig()
    assert (config.encoder_history, config.decoder_history) == (21, 21)
    assert config.encoder_windows == (16, 8, 4, 2) and config.decoder_windows == (2, 4, 8, 16)
    assert (config.frame_size, config.frame_rate, config.num_codebooks) == (1920, 12.5, 37)


def test_bf16_follows_the_runtime_and_stays_close() -> None:
    codec, _ = make()
    wave_BS = wave(24 * 8 * 20)
    with torch.no_grad():
        latent_BDT = codec.latents(wave_BS, dtype=torch.bfloat16)
        codes_BKT = codec.encode(wave_BS, dtype=torch.bfloat16)
        exact_BKT = codec.encode(wave_BS)
    assert latent_BDT.dtype == torch.bfloat16
    assert ((codes_BKT[:, 1:] - exact_BKT[:, 1:]).abs() <= 1).float().mean() > 0.95


def test_codec_without_encoder_says_what_is_missing() -> None:
    codec = Codec(CodecConfig(**SMALL), with_encoder=False)
    with pytest.raises(ReleaseError, match="no codec encoder"):
        codec.encode(wave(1000))


@pytest.mark.parametrize(
    "book, code, sentence",
    [
        (0, 5000, "no semantic code 5000: the codebook has 0 to 31"),
        (0, -1, "no semantic code -1"),
        (1, 500, "no acoustic level 500: the codebook has 0 to 20"),
        (4, -3, "no acoustic level -3"),
    ],
)
def test_codes_that_no_codebook_has_are_refused(book: int, code: int, sentence: str) -> None:
    codec, _ = make()
    codes_BKT = torch.zeros(2, 5, 3, dtype=torch.long)
    codec.decode(codes_BKT)
    codes_BKT[1, book, 2] = code
    with pytest.raises(VoxcloneError, match=sentence):
        codec.decode(codes_BKT)
    for dtype in (torch.float32, torch.bool, torch.int16):
        with pytest.raises(VoxcloneError, match="whole numbers"):
            codec.decode(torch.zeros(2, 5, 3, dtype=dtype))
    assert codec.decode(codes_BKT[:0]).shape == (0, 3 * codec.frame_size)


def test_wrong_shapes_are_refused() -> None:
    codec, _ = make()
    with pytest.raises(ValueError, match=r"\[B, S\]"):
        codec.encode(torch.zeros(24000))
    with pytest.raises(ValueError, match=r"\[B, 5, T\]"):
        codec.decode(torch.zeros(1, 7, 3, dtype=torch.long))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_kv_heads": 3}, "multiple of n_kv_heads"),
        ({"encoder_convs_kernels_str": "4,4,3"}, "same length"),
        ({"decoder_convs_strides_str": "1,2,2,1"}, "same product"),
        ({"attn_sliding_window_size": 8}, "too short"),
        ({"encoder_convs_kernels_str": "1,4,4,3"}, "shorter than its stride"),
        ({"n_heads": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_configs_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CodecConfig.from_params({**SMALL, **changes})
