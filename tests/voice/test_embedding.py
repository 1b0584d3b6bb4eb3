"""Codes to embeddings and back: the END frame, one rounding, exact inversion."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.golden.small_params import DATA
from tests.helpers.random_weights import draw
from tests.helpers.tiny_release import tiny_params
from voxclone.release.tensors import codebook_offsets, table_rows
from voxclone.voice.embedding import embed_codes
from voxclone.voice.presets import invert_embedding


@pytest.mark.parametrize("case", range(5))
def test_the_embedding_equals_the_runtimes(case: int) -> None:
    cases = load_file(DATA / "codec_small.cases.safetensors")
    config = json.loads((DATA / "codec_small.config.json").read_text())
    sizes = [config["semantic_codebook_size"] + 2] + [23] * config["acoustic_dim"]
    offsets = [sum(sizes[:k]) for k in range(len(sizes))]
    table = draw("audio_token_embedding.embeddings.weight", (256, 48))
    embedding = embed_codes(cases[f"case{case}.codes"], table, offsets)
    torch.testing.assert_close(embedding, cases[f"case{case}.voice_embedding"], atol=1e-5, rtol=0)


def setup(frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, list[int], list[int]]:
    params = tiny_params()
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(table_rows(params), 96, generator=generator).bfloat16()
    sizes = [50] + [21] * 6
    codes = torch.stack([torch.randint(s, (frames,), generator=generator) for s in sizes])
    return codes, table, codebook_offsets(params), sizes


def test_bf16_is_summed_in_fp32_and_rounded_once() -> None:
    codes, table, offsets, _ = setup(20)
    embedding = embed_codes(codes, table, offsets)
    index = codes + 2 + torch.tensor(offsets)[:, None]
    expected = table.double()[index].sum(dim=0).to(torch.bfloat16)
    assert embedding.dtype == torch.bfloat16 and len(embedding) == 21
    assert (
        embedding[:-1] == expected
    ).float().mean() > 0.999  # fp32 and fp64 sums rarely round apart
    end = table.float()[[1, *offsets[1:]]].sum(dim=0).to(torch.bfloat16)
    assert torch.equal(embedding[-1], end)


def test_inversion_is_exact_and_finds_the_end_frame() -> None:
    codes, table, offsets, sizes = setup(60)
    found = invert_embedding(embed_codes(codes, table, offsets), table, offsets, sizes)
    assert found.has_end and bool(found.exact_T.all())
    assert torch.equal(found.codes_KT, codes)
    without = invert_embedding(embed_codes(codes, table, offsets)[:-1], table, offsets, sizes)
    assert not without.has_end and torch.equal(without.codes_KT, codes)


def test_frames_that_are_no_sums_are_not_exact() -> None:
    codes, table, offsets, sizes = setup(5)
    embedding = embed_codes(codes, table, offsets)[:-1]
    embedding[2] += 0.5
    found = invert_embedding(embedding, table, offsets, sizes)
    assert found.exact_T.tolist() == [True, True, False, True, True]


def test_inversion_solves_a_narrow_table_with_the_real_number_of_code_books() -> None:
    """36 acoustic codebooks in 192 dimensions: one descent stops beside the truth."""
    generator = torch.Generator().manual_seed(5)
    sizes = [200] + [21] * 36
    offsets = [0, *range(202, 202 + 23 * 36, 23)]
    table = torch.randn(offsets[-1] + 23, 192, generator=generator).bfloat16()
    codes = torch.stack([torch.randint(s, (12,), generator=generator) for s in sizes])
    embedding = embed_codes(codes, table, offsets)
    assert not bool(invert_embedding(embedding, table, offsets, sizes, rounds=1).exact_T.all())
    found = invert_embedding(embedding, table, offsets, sizes)
    assert bool(found.exact_T.all()) and torch.equal(found.codes_KT, codes)
