"""`params.json` as typed configs.

The language model stands at the top level; `multimodal` holds the audio model with its acoustic
head (`audio_model_args`) and the codec (`audio_tokenizer_args`). Names and defaults are those of
vLLM-Omni's `AcousticTransformerArgs`, `MultimodalAudioModelArgs` and `AudioTokenizerArgs`. Unknown
keys are ignored, because later revisions of a release may add some. A wrong type or an impossible
value is refused.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from voxclone.codec.config import CodecConfig
from voxclone.config import Settings
from voxclone.errors import ConfigError, ReleaseError
from voxclone.readers import read_json
from voxclone.records import parse_record

# Far above every real value: a damaged file must not ask for terabytes or endless loops.
Size = Annotated[int, Field(ge=1, le=2**24)]
Layers = Annotated[int, Field(ge=1, le=1024)]
Token = Annotated[int, Field(ge=0, le=2**24)]
Positive = Annotated[float, Field(gt=0)]


class _Section(Settings):
    model_config = ConfigDict(
        extra="ignore", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True
    )


class LanguageModelConfig(_Section):
    """The Mistral language model: the top level of `params.json`."""

    model_type: Literal["voxtral_tts"] = "voxtral_tts"
    dim: Size
    n_layers: Layers
    head_dim: Size
    hidden_dim: Size
    n_heads: Size
    n_kv_heads: Size
    use_biases: Literal[False] = False
    causal: Literal[True] = True
    rope_theta: Positive
    norm_eps: Positive
    vocab_size: Size
    tied_embeddings: bool = False
    max_seq_len: Size = 65536
    max_position_embeddings: Size = 128000


class AcousticConfig(_Section):
    """The flow-matching head: `audio_model_args.acoustic_transformer_args`. The release does not
    name `norm_eps` and `n_decoding_steps` (Euler steps)."""

    input_dim: Size
    dim: Size
    n_layers: Layers
    head_dim: Size
    hidden_dim: Size
    n_heads: Size
    n_kv_heads: Size
    use_biases: Literal[False] = False
    norm_eps: Positive = 1e-5
    sigma: Positive = 1e-5
    sigma_max: Positive = 1.0
    n_decoding_steps: Layers = 7


class AudioEncodingConfig(_Section):
    """Rates of the code stream: `audio_model_args.audio_encoding_args`."""

    num_codebooks: Size
    sampling_rate: Size
    frame_rate: Positive


class AudioModelConfig(_Section):
    """Codes, as the language model reads and writes them: `multimodal.audio_model_args`."""

    semantic_codebook_size: Size
    acoustic_codebook_size: Annotated[int, Field(ge=2, le=2**24)]
    n_acoustic_codebook: Annotated[int, Field(ge=1, le=4096)]
    audio_token_id: Token
    begin_audio_token_id: Token
    input_embedding_concat_type: Literal["sum"] = "sum"
    encoding: AudioEncodingConfig = Field(validation_alias="audio_encoding_args")
    acoustic: AcousticConfig = Field(validation_alias="acoustic_transformer_args")

    @property
    def num_codebooks(self) -> int:
        """Codes in a frame: the semantic one and the acoustic ones (37 in the release)."""
        return 1 + self.n_acoustic_codebook

    @property
    def sampling_rate(self) -> int:
        """Samples a second."""
        return self.encoding.sampling_rate

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.encoding.frame_rate


@dataclass(frozen=True)
class Params:
    """All hyper-parameters of a release. `voices` maps the name of a preset to its index.

    Raises ReleaseError if the parts contradict each other.
    """

    lm: LanguageModelConfig
    audio: AudioModelConfig
    codec: CodecConfig
    voices: dict[str, int]
    bos_token_id: int

    def __post_init__(self) -> None:
        mistakes = _contradictions(self)
        if mistakes:
            raise ReleaseError(" ".join(mistakes))


def read_params(path: str | Path) -> Params:
    """Read the file `params.json` at `path`; raises ReleaseError if it cannot be used."""
    if not os.path.lexists(path):
        raise ReleaseError(
            f"There is no {path}: a release is a directory with params.json, tekken.json, "
            "consolidated*.safetensors and voice_embedding/."
        )
    return parse_params(read_json(path, ReleaseError), str(path))


def parse_params(values: Any, where: str = "params.json") -> Params:
    """Read the value of a `params.json`; `where` names it in the sentences of a ReleaseError."""
    top = _mapping(values, where)
    multimodal = _mapping(top.get("multimodal"), f"{where}, multimodal")
    audio = _mapping(multimodal.get("audio_model_args"), f"{where}, audio_model_args")
    codec = _mapping(multimodal.get("audio_tokenizer_args"), f"{where}, audio_tokenizer_args")
    bos = multimodal.get("bos_token_id")
    if not isinstance(bos, int) or isinstance(bos, bool):
        raise ReleaseError(f"In {where}: 'multimodal.bos_token_id' is {bos!r}, not an integer.")
    voices = _mapping(codec.get("voice", {}), f"{where}, audio_tokenizer_args.voice")
    for name, index in voices.items():
        if not isinstance(index, int) or isinstance(index, bool):
            raise ReleaseError(f"In {where}: the voice {name!r} is {index!r}, not an integer.")
    lm_config = parse_record(LanguageModelConfig, top, where, ReleaseError)
    audio_config = parse_record(AudioModelConfig, audio, f"{where}, audio_model_args", ReleaseError)
    codec_config = _parse_codec(codec, where)
    try:
        return Params(lm_config, audio_config, codec_config, dict(voices), bos)
    except ReleaseError as error:
        raise ReleaseError(f"In {where}: {error}") from None


def _parse_codec(values: dict[str, Any], where: str) -> CodecConfig:
    for key in values.keys() & CodecConfig.model_fields.keys():
        value = values[key]
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not value > 0:
            raise ReleaseError(
                f"In {where}, audio_tokenizer_args: {key!r} is {value!r}: it must be above 0."
            )
    try:
        return CodecConfig.from_params(values)
    except ConfigError as error:
        raise ReleaseError(f"In {where}{str(error).removeprefix('In params.json')}") from None


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    found = "missing" if value is None else "no mapping"
    raise ReleaseError(f"In {where}: the section is {found}; this is no Voxtral TTS release.")


def _contradictions(params: Params) -> list[str]:
    lm, audio, acoustic, codec = params.lm, params.audio, params.audio.acoustic, params.codec
    model, tokenizer, head = "audio_model_args", "audio_tokenizer_args", "acoustic_transformer_args"
    sizes = f"{model}.n_acoustic_codebook", audio.n_acoustic_codebook
    equal: list[tuple[str, float, str, float]] = [
        (f"{model}.{key}", getattr(audio, key), f"{tokenizer}.{key}", getattr(codec, key))
        for key in ("semantic_codebook_size", "acoustic_codebook_size", "sampling_rate")
    ]
    equal += [
        (*sizes, f"{tokenizer}.acoustic_dim", codec.acoustic_dim),
        ("num_codebooks - 1", audio.encoding.num_codebooks - 1, *sizes),
        ("frame_rate", audio.frame_rate, f"the rate by {tokenizer}", codec.frame_rate),
        # The semantic head is applied to the hidden state of the language model itself.
        (f"{head}.dim", acoustic.dim, "dim", lm.dim),
        (f"{head}.input_dim", acoustic.input_dim, "dim", lm.dim),
    ]
    mistakes = [
        f"{left} is {found} but {right} is {wanted}: they must be equal."
        for left, found, right, wanted in equal
        if not math.isclose(found, wanted)
    ]
    for where, config in (("", lm), (f"{head}.", acoustic)):
        if config.n_heads % config.n_kv_heads:
            mistakes.append(
                f"{where}n_heads is {config.n_heads}: it must be a multiple of n_kv_heads, "
                f"which is {config.n_kv_heads}."
            )
    for key, value in (("head_dim", lm.head_dim), (f"{head}.dim", acoustic.dim)):
        if value % 2:
            mistakes.append(f"{key} is {value}: it must be even, for sines and cosines.")
    if sum(codec.encoder_transformer_lengths + codec.decoder_transformer_lengths) > 1024:
        mistakes.append(f"{tokenizer} asks for more than 1024 transformer layers.")
    for key, token in (
        ("bos_token_id", params.bos_token_id),
        ("audio_token_id", audio.audio_token_id),
        ("begin_audio_token_id", audio.begin_audio_token_id),
    ):
        if not 0 <= token < lm.vocab_size:
            mistakes.append(f"{key} is {token}: it must be in 0 .. {lm.vocab_size - 1}.")
    for name, index in params.voices.items():
        if not is_voice_name(name):
            mistakes.append(f"The voice name {name!r} cannot be the name of a file.")
        if index < 0:
            mistakes.append(f"The index of the voice {name!r} is {index}: it must not be negative.")
    return mistakes


def is_voice_name(name: str) -> bool:
    """Whether `name` may be a preset: `voice_embedding/<name>.pt` must stay in its folder."""
    return 0 < len(name) <= 200 and name[0] != "." and not set(name) & set('/\\:\0\n\r"')
