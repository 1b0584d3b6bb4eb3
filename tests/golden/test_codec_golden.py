"""The codec equals vLLM-Omni's on stored vectors (see data/README.md)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.random_weights import drawn_codec
from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Codec

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def codec() -> Codec:
    values = json.loads((DATA / "codec_small.config.json").read_text())
    return drawn_codec(CodecConfig.from_params(values))


@pytest.mark.parametrize("case", range(5))
def test_codec_equals_reference(codec: Codec, case: int) -> None:
    cases = load_file(DATA / "codec_small.cases.safetensors")
    expected = {
        key: cases[f"case{case}.{key}"] for key in ("waveform", "latent", "codes", "decoded")
    }
    with torch.no_grad():
        latent = codec.latents(expected["waveform"][None])[0]
        codes = codec.encode(expected["waveform"][None])[0]
        decoded = codec.decode(expected["codes"][None].long())[0]
    torch.testing.assert_close(latent, expected["latent"], atol=1e-4, rtol=0)
    torch.testing.assert_close(decoded, expected["decoded"], atol=1e-4, rtol=0)
    assert torch.equal(codes.int(), expected["codes"])
