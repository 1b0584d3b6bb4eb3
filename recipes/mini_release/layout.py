"""The files of a release that is made here: `params.json`, `tekken.json`, and names of tensors.

The keys are those of the real release; the sizes are small, and text tokens are bytes.
"""

import base64
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from voxclone.codec.config import CodecConfig
from voxclone.config import Settings
from voxclone.errors import ReleaseError
from voxclone.release.params import (
    AcousticConfig,
    AudioEncodingConfig,
    AudioModelConfig,
    LanguageModelConfig,
    Params,
)
from voxclone.spec import (
    AUDIO,
    BEGIN_AUDIO,
    BOS,
    FRAME_RATE,
    NEXT_AUDIO_TEXT,
    REPEAT_AUDIO_TEXT,
    SAMPLING_RATE,
    TABLE,
    TEXT_TABLE,
)
from voxclone.tts.backbone import LAYER_NAMES

SPECIAL_TOKENS = 64
BYTES = 256
ENCODER_KEYS = frozenset(name for name in CodecConfig.model_fields if name.startswith("encoder_"))
# Ranks of the release; mistral-common fills the ranks between them in the same way.
SPECIAL = {
    0: "<unk>",
    BOS: "<s>",
    2: "</s>",
    3: "[INST]",
    4: "[/INST]",
    5: "[AVAILABLE_TOOLS]",
    6: "[/AVAILABLE_TOOLS]",
    7: "[TOOL_RESULTS]",
    8: "[/TOOL_RESULTS]",
    9: "[TOOL_CALLS]",
    10: "[IMG]",
    11: "<pad>",
    12: "[IMG_BREAK]",
    13: "[IMG_END]",
    14: "[PREFIX]",
    15: "[MIDDLE]",
    16: "[SUFFIX]",
    17: "[SYSTEM_PROMPT]",
    18: "[/SYSTEM_PROMPT]",
    19: "[TOOL_CONTENT]",
    AUDIO: "[AUDIO]",
    BEGIN_AUDIO: "[BEGIN_AUDIO]",
    26: "[OUTPUT_AUDIO]",
    34: "[TRANSCRIBE]",  # mistral-common asks for it when there is an audio block
    REPEAT_AUDIO_TEXT: "[REPEAT_AUDIO_TEXT]",
    NEXT_AUDIO_TEXT: "[NEXT_AUDIO_TEXT]",
}


class LanguageModelSize(Settings):
    """Sizes of the language model and of the acoustic head, which share width and heads."""

    dim: int
    n_layers: int
    head_dim: int
    hidden_dim: int
    n_heads: int
    n_kv_heads: int
    acoustic_layers: int
    acoustic_hidden_dim: int
    max_seq_len: int = 512


def mini_params(size: LanguageModelSize, codec: CodecConfig, voices: dict[str, int]) -> Params:
    """The `params.json` of the mini release."""
    heads: dict[str, Any] = size.model_dump(include={"head_dim", "n_heads", "n_kv_heads"})
    lm = LanguageModelConfig(
        dim=size.dim,
        n_layers=size.n_layers,
        hidden_dim=size.hidden_dim,
        rope_theta=1e6,
        norm_eps=1e-5,
        vocab_size=SPECIAL_TOKENS + BYTES,
        tied_embeddings=True,
        max_seq_len=size.max_seq_len,
        max_position_embeddings=size.max_seq_len,
        **heads,
    )
    acoustic = AcousticConfig(
        input_dim=size.dim,
        dim=size.dim,
        n_layers=size.acoustic_layers,
        hidden_dim=size.acoustic_hidden_dim,
        **heads,
    )
    audio = AudioModelConfig(
        semantic_codebook_size=codec.semantic_codebook_size,
        acoustic_codebook_size=codec.acoustic_codebook_size,
        n_acoustic_codebook=codec.acoustic_dim,
        audio_token_id=AUDIO,
        begin_audio_token_id=BEGIN_AUDIO,
        encoding=AudioEncodingConfig(
            num_codebooks=codec.num_codebooks,
            sampling_rate=codec.sampling_rate,
            frame_rate=codec.frame_rate,
        ),
        acoustic=acoustic,
    )
    return Params(lm, audio, codec, voices, BOS)


def write_tekken(path: Path, voices: dict[str, int]) -> Path:
    """A tokenizer of single bytes, with the frames of each voice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    value = small_tekken(voices, special_tokens=SPECIAL_TOKENS)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def small_tekken(
    counts: dict[str, int],
    *,
    special_tokens: int = 40,
    sampling_rate: int = SAMPLING_RATE,
    frame_rate: float = FRAME_RATE,
) -> dict[str, Any]:
    """The value of a `tekken.json` whose text tokens are the 256 bytes.

    A byte b of the UTF-8 text has the id `special_tokens` + b, so the vocabulary has
    `special_tokens` + 256 ids. `counts` are the frames of each preset.
    """
    if special_tokens <= max(SPECIAL):
        raise ValueError(f"special_tokens must be above {max(SPECIAL)}, got {special_tokens}")
    return {
        "config": {
            "pattern": r"\S+|\s+",  # with bytes for tokens, any pattern gives the same ids
            "num_vocab_tokens": 256,
            "default_vocab_size": special_tokens + 256,
            "default_num_special_tokens": special_tokens,
            "version": "v7",
        },
        "vocab": [
            {
                "rank": byte,
                "token_bytes": base64.b64encode(bytes([byte])).decode(),
                "token_str": chr(byte) if byte < 128 else None,
            }
            for byte in range(256)
        ],
        "special_tokens": [
            {"rank": i, "token_str": SPECIAL.get(i, f"<SPECIAL_{i}>"), "is_control": True}
            for i in range(special_tokens)
        ],
        "audio": {
            "sampling_rate": sampling_rate,
            "frame_rate": frame_rate,
            # Speech requests do not use it, but mistral-common asks for it.
            "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
            "voice_num_audio_tokens": dict(counts),
        },
    }


def to_json(params: Params) -> dict[str, Any]:
    """The value of a full `params.json` in the layout of the release.

    As there, the `encoder_*` keys of the codec are left out, and so are the acoustic head's
    `norm_eps` and `n_decoding_steps` if they have their default. `parse_params` reads it back.
    Raises ReleaseError if the encoder's topology is not the default one: it would be lost.
    """
    altered = [key for key in sorted(ENCODER_KEYS) if not _is_default(params.codec, key)]
    if altered:
        raise ReleaseError(
            f"params.json cannot hold the codec's {', '.join(altered)}: a release is written "
            "without its encoder, whose topology must be the default one."
        )
    audio, acoustic = params.audio, params.audio.acoustic
    optional = {
        key: getattr(acoustic, key)
        for key in ("norm_eps", "n_decoding_steps")
        if not _is_default(acoustic, key)
    }
    codec = params.codec.model_dump(exclude=set(ENCODER_KEYS), exclude_none=True)
    return {
        **params.lm.model_dump(),
        "model_parallel": 1,
        "multimodal": {
            "bos_token_id": params.bos_token_id,
            "audio_model_args": {
                **audio.model_dump(exclude={"encoding", "acoustic"}),
                "audio_encoding_args": {
                    "codebook_pattern": "parallel",
                    "interleave_audio_tokens_per_segment": 8192,
                    "interleave_text_tokens_per_segment": 8192,
                    "single_trailing_segment": False,
                    **audio.encoding.model_dump(),
                },
                "acoustic_transformer_args": {
                    **acoustic.model_dump(exclude={"norm_eps", "n_decoding_steps"}),
                    "rope_theta": 10000.0,  # no runtime reads it: the head has no positions
                    **optional,
                },
                "p_uncond": 0.0,
                "text_feature_bugged": False,
                "condition_dropped_token_id": 42,
            },
            "audio_tokenizer_args": {**codec, "voice": dict(params.voices)},
        },
    }


def from_transformers(name: str, tensor: Tensor, params: Params) -> tuple[str, Tensor]:
    """The inverse of `to_transformers`."""
    if name == "text_table.weight":
        return TEXT_TABLE, tensor
    if name == "audio_table.weight":
        return TABLE, tensor
    if name == "model.norm.weight":
        return "norm.weight", tensor
    inverse = {theirs: ours for ours, theirs in LAYER_NAMES.items()}
    layer, inner = name.removeprefix("model.layers.").split(".", 1)
    if inner.endswith(("q_proj.weight", "k_proj.weight")):
        tensor = _join_pairs(tensor, params.lm.head_dim)
    return f"layers.{layer}.{inverse[inner]}", tensor


def _is_default(config: Settings, key: str) -> bool:
    return bool(getattr(config, key) == type(config).model_fields[key].default)


def _join_pairs(weight: Tensor, head_dim: int) -> Tensor:
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)
