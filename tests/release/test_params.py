"""params.json: the real values, a round trip, and everything that is refused."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from recipes.mini_release.layout import to_json
from tests.helpers.tiny_release import tiny_params
from tests.release.real_params import REAL
from voxclone.codec.config import CodecConfig
from voxclone.errors import ReleaseError
from voxclone.release.params import Params, parse_params, read_params

Change = Callable[[dict[str, Any]], Any]


def test_real_params_are_read() -> None:
    params = parse_params(REAL)
    assert (params.lm.dim, params.lm.n_layers, params.lm.vocab_size) == (3072, 26, 131072)
    assert params.lm.tied_embeddings
    assert params.audio.num_codebooks == 37
    assert (params.audio.sampling_rate, params.audio.frame_rate) == (24000, 12.5)
    assert (params.audio.acoustic.norm_eps, params.audio.acoustic.n_decoding_steps) == (1e-5, 7)
    assert params.codec == CodecConfig(layer_scale_init=0.01)
    assert list(params.voices)[:2] == ["casual_female", "casual_male"]
    assert params.bos_token_id == 1


def test_real_params_are_written_as_they_were() -> None:
    assert to_json(parse_params(REAL)) == REAL


def test_round_trip_of_other_sizes() -> None:
    values = to_json(tiny_params())
    assert parse_params(json.loads(json.dumps(values))) == tiny_params()
    assert not any(key.startswith("encoder_") for key in _codec(values))


def test_head_options_that_are_not_default_are_written() -> None:
    values = to_json(tiny_params())
    _head(values).update(n_decoding_steps=12, norm_eps=1e-6)
    params = parse_params(values)
    assert params.audio.acoustic.n_decoding_steps == 12
    assert parse_params(to_json(params)) == params


def test_an_encoder_of_another_topology_is_not_lost_silently() -> None:
    params = tiny_params(encoder_transformer_lengths_str="1,2,2,2")
    with pytest.raises(ReleaseError, match="encoder_transformer_lengths_str"):
        to_json(params)


def test_unknown_keys_are_tolerated_everywhere() -> None:
    values = deepcopy(REAL)
    for section in (values, values["multimodal"], _audio(values), _head(values), _codec(values)):
        section["added_by_a_later_revision"] = 0
    assert parse_params(values) == parse_params(REAL)


def _audio(values: dict[str, Any]) -> dict[str, Any]:
    section: dict[str, Any] = values["multimodal"]["audio_model_args"]
    return section


def _head(values: dict[str, Any]) -> dict[str, Any]:
    section: dict[str, Any] = _audio(values)["acoustic_transformer_args"]
    return section


def _codec(values: dict[str, Any]) -> dict[str, Any]:
    section: dict[str, Any] = values["multimodal"]["audio_tokenizer_args"]
    return section


REFUSED: list[tuple[Change, str]] = [
    (lambda v: v.pop("dim"), "'dim' is missing"),
    (lambda v: v.update(dim="3072"), "'dim' is '3072'"),
    (lambda v: v.update(dim=True), "'dim' is True"),
    (lambda v: v.update(dim=0), "'dim' is 0"),
    (lambda v: v.update(dim=2**40), "'dim' is"),
    (lambda v: v.update(n_layers=10**9), "'n_layers'"),
    (lambda v: v.update(norm_eps=float("nan")), "'norm_eps'"),
    (lambda v: v.update(rope_theta=float("inf")), "'rope_theta'"),
    (lambda v: v.update(use_biases=True), "'use_biases' is True"),
    (lambda v: v.update(causal=False), "'causal' is False"),
    (lambda v: v.update(model_type="voxtral"), "'model_type' is 'voxtral'"),
    (lambda v: v.update(n_kv_heads=5), "n_heads is 32: it must be a multiple of n_kv_heads"),
    (lambda v: v.update(head_dim=127), "head_dim is 127: it must be even"),
    (lambda v: v.update(dim=3074), "acoustic_transformer_args.dim is 3072 but dim is 3074"),
    (lambda v: v.update(vocab_size=20), r"audio_token_id is 24: it must be in 0 \.\. 19"),
    (lambda v: v.pop("multimodal"), "multimodal: the section is missing"),
    (lambda v: v.update(multimodal=[]), "multimodal: the section is no mapping"),
    (lambda v: v["multimodal"].pop("audio_model_args"), "audio_model_args: the section is missing"),
    (lambda v: v["multimodal"].pop("audio_tokenizer_args"), "audio_tokenizer_args: the section"),
    (lambda v: v["multimodal"].pop("bos_token_id"), "'multimodal.bos_token_id' is None"),
    (lambda v: v["multimodal"].update(bos_token_id=-1), "bos_token_id is -1"),
    (lambda v: _audio(v).update(input_embedding_concat_type="cat"), "concat_type' is 'cat'"),
    (lambda v: _audio(v).update(semantic_codebook_size=4096), "is 4096 but .* is 8192"),
    (lambda v: _audio(v).update(acoustic_codebook_size=11), "is 11 but .* is 21"),
    (lambda v: _audio(v).update(n_acoustic_codebook=8), "n_acoustic_codebook is 8 but .* is 36"),
    (
        lambda v: _audio(v)["audio_encoding_args"].update(num_codebooks=36),
        "num_codebooks - 1 is 35",
    ),
    (
        lambda v: _audio(v)["audio_encoding_args"].update(sampling_rate=16000),
        "is 16000 but .* 24000",
    ),
    (lambda v: _audio(v)["audio_encoding_args"].update(frame_rate=25.0), "frame_rate is 25.0 but"),
    (lambda v: _audio(v).pop("audio_encoding_args"), "'audio_encoding_args' is missing"),
    (lambda v: _head(v).update(input_dim=1024), "input_dim is 1024 but dim is 3072"),
    (lambda v: _head(v).update(n_kv_heads=3), "acoustic_transformer_args.n_heads is 32"),
    (lambda v: _head(v).update(use_biases=True), "'acoustic_transformer_args.use_biases' is True"),
    (lambda v: _head(v).update(sigma="small"), "acoustic_transformer_args.sigma"),
    (lambda v: _codec(v).update(use_biases=True), "'use_biases' is True"),
    (lambda v: _codec(v).update(n_kv_heads=0), "'n_kv_heads' is 0: it must be above 0"),
    (lambda v: _codec(v).update(dim="wide"), "audio_tokenizer_args: 'dim' is 'wide'"),
    (lambda v: _codec(v).update(decoder_convs_strides_str="1,2,2,4"), "strides"),
    (lambda v: _codec(v).update(decoder_transformer_lengths_str="2,2,2,99999"), "more than 1024"),
    (lambda v: _codec(v).update(voice=["anna"]), "voice: the section is no mapping"),
    (lambda v: _codec(v).update(voice={"anna": "0"}), "the voice 'anna' is '0'"),
    (lambda v: _codec(v).update(voice={"anna": -1}), "The index of the voice 'anna' is -1"),
    (lambda v: _codec(v).update(voice={"../../etc/x": 0}), "cannot be the name of a file"),
    (lambda v: _codec(v).update(voice={"": 0}), "cannot be the name of a file"),
]


@pytest.mark.parametrize(("change", "sentence"), REFUSED)
def test_impossible_values_are_refused(change: Change, sentence: str) -> None:
    values = deepcopy(REAL)
    change(values)
    with pytest.raises(ReleaseError, match=sentence) as caught:
        parse_params(values, "here/params.json")
    assert str(caught.value).startswith("In here/params.json")
    assert "\n" not in str(caught.value)


def test_params_made_in_code_are_checked_too() -> None:
    params = tiny_params()
    with pytest.raises(ReleaseError, match="acoustic_dim"):
        Params(params.lm, params.audio, CodecConfig(), {}, 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "a release is a directory with"),
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "the section is no mapping"),
        ("\udcff", "is not in UTF-8"),
    ],
)
def test_files_that_are_no_params(tmp_path: Path, text: str | None, sentence: str) -> None:
    path = tmp_path / "params.json"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ReleaseError, match=sentence):
        read_params(path)
