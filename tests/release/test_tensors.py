"""Names and shapes: the real counts, the 114 withheld ones, and agreement with the modules."""

import json
from math import prod
from pathlib import Path

import pytest
import torch

from recipes.mini_release.layout import to_json
from tests.helpers.tiny_release import tiny_params
from tests.release.real_params import REAL
from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Decoder, Encoder
from voxclone.codec.quantizer import Quantizer
from voxclone.errors import ReleaseError
from voxclone.release.params import Params, parse_params
from voxclone.release.safetensors import TensorInfo, read_header
from voxclone.release.tensors import (
    Misshapen,
    Shapes,
    check_manifest,
    codebook_offsets,
    encoder_tensors,
    expected_tensors,
    require_complete,
    table_rows,
)
from voxclone.spec import TABLE

GOLDEN = Path(__file__).parents[1] / "golden" / "data"

# Appendix A of the checkpoint specification, rule by rule.
LAYER = [
    ("attention_scale", [1024]),
    ("ffn_scale", [1024]),
    ("attention.wq.weight", [1024, 1024]),
    ("attention.wk.weight", [1024, 1024]),
    ("attention.wv.weight", [1024, 1024]),
    ("attention.wo.weight", [1024, 1024]),
    ("attention.q_norm.weight", [1024]),
    ("attention.k_norm.weight", [1024]),
    ("feed_forward.w1.weight", [4096, 1024]),
    ("feed_forward.w2.weight", [1024, 4096]),
    ("feed_forward.w3.weight", [4096, 1024]),
    ("attention_norm.weight", [1024]),
    ("ffn_norm.weight", [1024]),
]


def _appendix_a() -> list[tuple[str, list[int]]]:
    convolutions = {1: [1024, 1024, 4], 3: [1024, 1024, 4], 5: [1024, 1024, 4], 7: [292, 1024, 3]}
    norm = "conv.parametrizations.weight.original"
    rows = [
        (f"audio_tokenizer.input_proj.{norm}0", [1024, 1, 1]),
        (f"audio_tokenizer.input_proj.{norm}1", [1024, 240, 7]),
    ]
    for block in range(8):
        prefix = f"audio_tokenizer.encoder_blocks.{block}."
        if block % 2 == 0:
            rows += [(f"{prefix}layers.{i}.{name}", shape) for i in (0, 1) for name, shape in LAYER]
        else:
            shape = convolutions[block]
            rows += [(f"{prefix}{norm}0", [shape[0], 1, 1]), (f"{prefix}{norm}1", shape)]
    return rows


def test_real_release_has_386_tensors() -> None:
    shapes = expected_tensors(parse_params(REAL))
    assert len(shapes) == 386
    assert sum(prod(shape) for shape in shapes.values()) == 4_002_353_392
    assert "output.weight" not in shapes
    assert shapes[TABLE] == (9088, 3072)
    assert shapes["acoustic_transformer.semantic_codebook_output.weight"] == (8320, 3072)
    assert shapes["layers.25.attention.wk.weight"] == (1024, 3072)
    assert shapes["acoustic_transformer.input_projection.weight"] == (3072, 36)


def test_withheld_encoder_is_appendix_a_in_its_order() -> None:
    shapes = encoder_tensors(parse_params(REAL))
    assert [(name, list(shape)) for name, shape in shapes.items()] == _appendix_a()
    assert len(shapes) == 114
    assert sum(prod(shape) for shape in shapes.values()) == 149_471_524


def test_offsets_of_the_real_code_books() -> None:
    params = parse_params(REAL)
    offsets = codebook_offsets(params)
    assert len(offsets) == 37
    assert offsets == [0, *(8194 + 23 * (k - 1) for k in range(1, 37))]
    assert offsets[-1] + 23 == 9022 <= table_rows(params) == 9088


def test_untied_models_have_an_output_matrix() -> None:
    tied = tiny_params()
    untied = Params(
        tied.lm.model_copy(update={"tied_embeddings": False}),
        tied.audio,
        tied.codec,
        tied.voices,
        tied.bos_token_id,
    )
    extra = expected_tensors(untied).keys() - expected_tensors(tied).keys()
    assert extra == {"output.weight"}
    assert expected_tensors(untied)["output.weight"] == (tied.lm.vocab_size, tied.lm.dim)


CONFIGS = {
    "real": CodecConfig(),
    "grouped queries": tiny_params().codec,
    "no layer scale": tiny_params(layer_scale=False).codec,
    "no qk norm": tiny_params(qk_norm=False).codec,
    "no weight norm at the projections": tiny_params(conv_weight_norm=False).codec,
    "blocks without a convolution": tiny_params(
        encoder_transformer_lengths_str="1,2,3,1",
        encoder_convs_kernels_str="4,1,4,3",
        encoder_convs_strides_str="2,1,2,1",
        decoder_transformer_lengths_str="2,1,3",
        decoder_convs_kernels_str="3,4,4",
        decoder_convs_strides_str="1,2,2",
    ).codec,
    "decoder without a convolution": tiny_params(
        decoder_transformer_lengths_str="1,1,1,1,2",
        decoder_convs_kernels_str="3,4,1,4,4",
        decoder_convs_strides_str="1,2,1,2,2",
    ).codec,
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_rules_name_what_the_modules_have(config: CodecConfig) -> None:
    params = tiny_params(**config.model_dump())
    with torch.device("meta"):
        encoder, decoder = Encoder(config), Decoder(config)
        quantizer = Quantizer(config)
    assert list(encoder_tensors(params).items()) == _shapes(encoder, "audio_tokenizer.")
    rest = [item for item in expected_tensors(params).items() if item[0].startswith("audio_tok")]
    assert rest == [
        *_shapes(decoder, "audio_tokenizer."),
        *_shapes(quantizer, "audio_tokenizer.quantizer."),
    ]


def _shapes(module: torch.nn.Module, prefix: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(prefix + name, tuple(t.shape)) for name, t in module.state_dict().items()]


def test_rules_name_what_the_golden_files_have() -> None:
    lm = json.loads((GOLDEN / "lm_small.config.json").read_text())
    audio = json.loads((GOLDEN / "acoustic_small.config.json").read_text())
    codec = json.loads((GOLDEN / "codec_small.config.json").read_text())
    values = to_json(tiny_params())
    values |= lm
    values["multimodal"]["audio_tokenizer_args"] = codec
    config = CodecConfig.from_params(codec)
    values["multimodal"]["audio_model_args"] |= audio
    values["multimodal"]["audio_model_args"]["audio_encoding_args"] = {
        "num_codebooks": config.num_codebooks,
        "sampling_rate": config.sampling_rate,
        "frame_rate": config.frame_rate,
    }
    shapes = expected_tensors(parse_params(values))
    stored: Shapes = {}
    for name in ("lm_small", "acoustic_small"):
        header = read_header(GOLDEN / f"{name}.weights.safetensors")
        stored |= {name: tensor.shape for name, tensor in header.tensors.items()}
    del stored["acoustic_transformer.time_embedding.inv_freq"]  # a buffer; no release has it
    of_codec = {name for name in shapes if name.startswith("audio_tokenizer.")}
    assert stored == {n: s for n, s in shapes.items() if n not in of_codec | {TABLE}}
    assert shapes[TABLE] == (256, 48)  # 66 + 6 * 23 = 204 rows, padded


def _found(shapes: Shapes) -> dict[str, TensorInfo]:
    return {name: TensorInfo(Path(), "BF16", shape, 0, 0) for name, shape in shapes.items()}


def test_manifest_of_a_good_release() -> None:
    params = tiny_params()
    report = check_manifest(params, _found(expected_tensors(params)))
    assert report.encoder == "withheld"
    assert report.problems() == []
    require_complete(report, Path("here"))
    whole = expected_tensors(params) | encoder_tensors(params)
    report = check_manifest(params, _found(whole))
    assert (report.encoder, report.problems()) == ("complete", [])


def test_manifest_names_every_problem() -> None:
    params = tiny_params()
    found = _found(expected_tensors(params))
    del found["norm.weight"]
    found["layers.0.attention.wq.weight"] = TensorInfo(Path(), "BF16", (3, 4), 0, 0)
    found["layers.0.ffn_norm.weight"] = TensorInfo(Path(), "I64", (params.lm.dim,), 0, 0)
    found["optimizer.step"] = TensorInfo(Path(), "BF16", (1,), 0, 0)
    report = check_manifest(params, found)
    assert report.missing == ("norm.weight",)
    assert report.misshapen == (Misshapen("layers.0.attention.wq.weight", (24, 28), (3, 4)),)
    assert report.mistyped == ("layers.0.ffn_norm.weight",)
    assert report.unexpected == ("optimizer.step",)
    assert report.encoder == "withheld"
    assert report.problems("layers.0.attention") == [
        "layers.0.attention.wq.weight is [3, 4] instead of [24, 28]"
    ]
    with pytest.raises(ReleaseError, match=r"norm.weight is missing; layers.0.attention.wq.weight"):
        require_complete(report, Path("here"))
    require_complete(report, Path("here"), "audio_tokenizer.")


@pytest.mark.parametrize("fault", ["missing", "misshapen", "mistyped"])
def test_encoder_with_a_fault_is_partial(fault: str) -> None:
    params = tiny_params()
    found = _found(expected_tensors(params) | encoder_tensors(params))
    name = list(encoder_tensors(params))[17]
    if fault == "missing":
        del found[name]
    else:
        shape = (1,) if fault == "misshapen" else found[name].shape
        found[name] = TensorInfo(Path(), "F32" if fault == "misshapen" else "U8", shape, 0, 0)
    report = check_manifest(params, found)
    assert report.encoder == "partial"
    assert len(report.problems()) == 1
    assert report.problems()[0].startswith(name)


def test_many_problems_are_cut_short() -> None:
    with pytest.raises(ReleaseError, match=r"and \d+ more") as caught:
        require_complete(check_manifest(tiny_params(), {}), Path("here"))
    assert len(str(caught.value)) < 500
