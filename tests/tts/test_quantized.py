"""Layers with weights of 8 and 4 bits: their products, and speech by them."""

import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.adapters import write_drawn
from voxclone.errors import ConfigError, UsageError
from voxclone.release.release import Release, load_preset
from voxclone.spec import SHIFT
from voxclone.tts import quantized
from voxclone.tts import tts as tts_module
from voxclone.tts.limits import Weights, check_weights
from voxclone.tts.quantized import Int4Linear, Int8Linear
from voxclone.tts.tts import TTS

TEXT = "The dogs are sitting by the door."
PRODUCT_ERROR = {Int8Linear: 2e-3, Int4Linear: 1e-2}
"""Of a product, as a share of its norm, against the dequantized weights: 14 bits and bf16."""


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def packed_layers(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, Int8Linear | Int4Linear)]


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
@pytest.mark.parametrize("rows", [1, 6, 150])
def test_a_packed_layer_multiplies_by_what_it_stands_for(
    kind: type[Int8Linear] | type[Int4Linear], rows: int
) -> None:
    """One large activation in a row, as language models have them, costs the others nothing."""
    weight_OI, x_1MI = 0.02 * drawn(704, 288), drawn(1, rows, 288)
    x_1MI[..., 5] = 100.0
    x_1MI[:, -1] *= 1e-3  # rows of other sizes keep their bits
    layer = kind(weight_OI)
    found_1MO, stored_OI = layer(x_1MI), layer.dequantized()
    assert found_1MO.shape == (1, rows, 704) and found_1MO.dtype == torch.float32
    for found_O, x_I in zip(found_1MO[0], x_1MI[0], strict=True):
        assert relative(found_O, stored_OI @ x_I) < PRODUCT_ERROR[kind]
    narrow_1MO = layer(x_1MI.bfloat16())
    assert narrow_1MO.dtype == torch.bfloat16 and relative(narrow_1MO, found_1MO) < 1e-2


def test_weights_are_rounded_to_the_nearest_level() -> None:
    weight_OI = drawn(300, 64)  # more than one block of rows, of which the last is not full
    step_O1 = weight_OI.abs().amax(dim=1, keepdim=True) / 127
    error_OI = (Int8Linear(weight_OI).dequantized() - weight_OI).abs()
    assert bool((error_OI <= 0.501 * step_O1).all())
    wide_OI = torch.cat([weight_OI, drawn(4, 64)])
    groups_OGI = wide_OI.unflatten(1, (2, 32))
    least_OG1, most_OG1 = groups_OGI.aminmax(dim=-1, keepdim=True)
    error_OGI = (Int4Linear(wide_OI).dequantized() - wide_OI).abs().unflatten(1, (2, 32))
    assert bool((error_OGI <= 0.6 * (most_OG1 - least_OG1) / 15).all())  # scales are bf16


def test_a_layer_of_zeros_gives_zeros() -> None:
    for kind in (Int8Linear, Int4Linear):
        assert not kind(torch.zeros(16, 32))(drawn(2, 32)).any()
        assert not kind(drawn(16, 32))(torch.zeros(2, 32)).any()


@torch.inference_mode()
def forced_logits(tts: TTS, voice_ND: Tensor, codes_KT: Tensor) -> Tensor:
    """Semantic logits [T, V] on given codes."""
    frames_TD = tts.backbone.embed_codes(codes_KT.T + SHIFT)
    states_BLD = tts.backbone(torch.cat([tts.prompt(TEXT, voice_ND), frames_TD])[None])
    return tts.head.semantic_logits(states_BLD[0, -len(frames_TD) - 1 : -1])


@pytest.mark.parametrize(
    ("weights", "cosine", "agreement"), [("int8", 0.999, 0.95), ("int4", 0.98, 0.9)]
)
def test_the_mini_release_speaks_alike(
    weights: Weights, cosine: float, agreement: float, mini_release: Release, mini_tts: TTS
) -> None:
    voice_ND = load_preset(mini_release, "en_male_1")
    packed = TTS.load(mini_release, codec=mini_tts.codec, weights=weights)
    codes_KT = mini_tts.speak(TEXT, voice_ND, seed=1).codes[0]
    expected_TV = forced_logits(mini_tts, voice_ND, codes_KT)
    found_TV = forced_logits(packed, voice_ND, codes_KT)
    assert float(torch.cosine_similarity(found_TV, expected_TV).mean()) > cosine
    same_T = found_TV.argmax(dim=-1) == expected_TV.argmax(dim=-1)
    assert float(same_T.float().mean()) > agreement
    speech = packed.speak(TEXT, voice_ND, seed=1)
    assert not any(part.truncated for part in speech.parts) and 1 < speech.duration < 6


def test_all_matrices_but_the_smallest_are_packed(mini_release: Release, mini_tts: TTS) -> None:
    packed = TTS.load(mini_release, codec=mini_tts.codec, weights="int4")
    for module, kind, left in (
        (packed.backbone, Int4Linear, set()),
        (packed.head, Int8Linear, {"input_projection", "acoustic_codebook_output"}),
    ):
        assert all(type(layer) is kind for layer in packed_layers(module))
        plain = {name for name, part in module.named_modules() if isinstance(part, nn.Linear)}
        assert plain == left
    assert len(packed_layers(packed.backbone)) == 7 * mini_release.params.lm.n_layers
    assert packed.backbone.text_table.weight.dtype == torch.bfloat16  # as it is stored
    assert packed.backbone.dtype == torch.float32


def test_loading_holds_one_matrix_at_a_time(
    tiny_release: Release, tiny_tts: TTS, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[Tensor]] = []
    original = quantized.pack_layer

    def watched(module: nn.Module, name: str, weight_OI: Tensor, weights: Weights) -> bool:
        assert not any(earlier() is not None for earlier in seen[:-1]), name
        packed = original(module, name, weight_OI, weights)
        if packed:
            seen.append(weakref.ref(weight_OI))
        return packed

    monkeypatch.setattr(tts_module, "pack_layer", watched)
    packed = TTS.load(tiny_release, codec=tiny_tts.codec, weights="int8")
    layers = [each for part in (packed.backbone, packed.head) for each in packed_layers(part)]
    assert len(seen) == len(layers) > 10 and all(each() is None for each in seen[:-1])


@pytest.mark.parametrize("reader", ["voice", "table", "lora"])
def test_adapters(reader: str, tiny_release: Release, tmp_path: Path) -> None:
    """Those beside the matrices work; one in them is refused, with the way round it."""
    folder = write_drawn(tmp_path / "adapter", tiny_release, reader)
    if reader == "lora":
        with pytest.raises(ConfigError, match=r"is a LoRA.*voxclone merge"):
            TTS.load(tiny_release, adapter=folder, weights="int8")
        return
    tts = TTS.load(tiny_release, adapter=folder, weights="int8")
    voice_ND = load_preset(tiny_release, "anna")
    assert tts.adapter is not None and len(tts.speak("Hi.", voice_ND, seed=0).wave_S)


def test_what_cannot_be_is_refused(tiny_release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="int8 or int4"):
        check_weights("int5")
    with pytest.raises(ConfigError, match=r"for CPUs.*--device cpu"):
        TTS.load(tiny_release, weights="int8", device="cuda")
    with pytest.raises(ConfigError, match=r"multiple of 16 rows.*--weights int8"):
        TTS.load(tiny_release, weights="int4")
    monkeypatch.setattr(quantized, "ENGINE", "none")
    with pytest.raises(ConfigError, match=r"PyTorch has no none"):
        TTS.load(tiny_release, weights="int8")
