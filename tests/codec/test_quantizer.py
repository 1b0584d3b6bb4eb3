"""Laws of the quantizers: one tanh, halves to even, straight-through, the paper's mix."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.codec.test_model import SMALL
from voxclone.codec.config import CodecConfig
from voxclone.codec.quantizer import Quantizer, draw_quantization
from voxclone.rng import step_generator


@pytest.fixture
def quantizer() -> Quantizer:
    quantizer = Quantizer(CodecConfig(**SMALL))
    generator = torch.Generator().manual_seed(0)
    book = quantizer.semantic_codebook
    book.embedding_sum.copy_(torch.randn(book.embedding_sum.shape, generator=generator))
    return quantizer


def latent(value: float) -> torch.Tensor:
    return torch.full((1, 12, 1), value)


@pytest.mark.parametrize(
    ("value", "level"), [(0.0, 10), (100.0, 20), (-100.0, 0), (0.1, 11), (-0.55, 5), (0.0499, 10)]
)
def test_level_is_one_tanh_and_a_rounding(quantizer: Quantizer, value: float, level: int) -> None:
    assert quantizer.encode(latent(value))[0, 1:, 0].tolist() == [level] * 4


def test_halves_are_rounded_to_even(quantizer: Quantizer) -> None:
    scaled = torch.tensor([0.5, 1.5, 2.5, 18.5, 19.5], dtype=torch.float64)
    value = torch.atanh(scaled / 10 - 1)
    back = (torch.tanh(value) + 1) / 2 * 20
    exact = back == scaled
    levels = quantizer.levels_of(value[None, :, None])[0, :, 0]
    assert exact.any()
    assert levels[exact].tolist() == torch.tensor([0, 2, 2, 18, 20])[exact].tolist()


@given(st.integers(0, 20))
def test_decoding_and_encoding_a_level_gives_it_back(level: int) -> None:
    quantizer = Quantizer(CodecConfig(**SMALL))
    value = quantizer.values_of(torch.tensor([[[level]]]))
    assert float(value) == pytest.approx(level / 10 - 1)
    inner = torch.atanh(value.clamp(-0.999999, 0.999999))
    assert int(quantizer.levels_of(inner)) == level


def test_nearest_vector_wins_and_unused_vectors_do_not_divide_by_zero() -> None:
    quantizer = Quantizer(CodecConfig(**SMALL))
    book = quantizer.semantic_codebook
    book.cluster_usage.fill_(4.0)
    book.cluster_usage[3] = 0.0
    book.embedding_sum.copy_(torch.arange(32.0)[:, None].expand(32, 8) * 4)
    vectors = book.vectors()
    assert torch.isfinite(vectors).all()
    assert vectors[3, 0] == 12 / 1e-5
    codes = book.encode(vectors[[0, 7, 31]].T[None] + 0.2)
    assert codes.tolist() == [[0, 7, 31]]


def test_training_mix_has_the_papers_shares(quantizer: Quantizer) -> None:
    latent_BDT = torch.randn(4000, 12, 1, generator=torch.Generator().manual_seed(1)) * 0.3
    draws = draw_quantization(4, 1, [step_generator(0, 0, item) for item in range(4000)])
    made = quantizer.train_forward(latent_BDT, draws)
    semantic, acoustic = quantizer.split(made.latent_BDT)
    raw_semantic, raw_acoustic = quantizer.split(latent_BDT)
    passed = (semantic == raw_semantic).all(dim=1).float().mean()
    assert float(passed) == pytest.approx(0.5, abs=0.04)
    value = torch.tanh(raw_acoustic)
    snapped = quantizer.values_of(made.codes_BKT[:, 1:])
    is_snapped = ((acoustic - snapped).abs() < 1e-6).all(dim=1)
    is_same = ((acoustic - value).abs() < 1e-6).all(dim=1)
    assert float(is_snapped.float().mean()) == pytest.approx(0.5, abs=0.04)
    assert float(is_same.float().mean()) == pytest.approx(0.25, abs=0.04)
    noise = (acoustic - value)[(~is_snapped & ~is_same)[:, 0]]
    assert noise.abs().max() <= 1 / 21 + 1e-6
    assert noise.abs().mean() == pytest.approx(1 / 42, rel=0.1)


def test_gradients_pass_straight_through(quantizer: Quantizer) -> None:
    latent_BDT = (torch.randn(1, 12, 3) * 0.3).requires_grad_()
    draws = draw_quantization(4, 3, [torch.Generator()])
    made = quantizer.train_forward(
        latent_BDT, draws, semantic_share=1.0, acoustic_shares=(1.0, 0.0)
    )
    made.latent_BDT.sum().backward()
    assert latent_BDT.grad is not None
    expected = torch.ones_like(latent_BDT)
    expected[:, 8:] = 1 - torch.tanh(latent_BDT[:, 8:].detach()).square()
    torch.testing.assert_close(latent_BDT.grad, expected)
