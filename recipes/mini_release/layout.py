"""`params.json` and `tekken.json` of the mini release: the keys of the real one, small sizes."""

import json
from pathlib import Path

from recipes.mini_release.files import small_tekken
from recipes.mini_release.workshop import MiniSettings
from voxclone.release.params import Params, parse_params
from voxclone.spec import AUDIO, BEGIN_AUDIO

SPECIAL_TOKENS = 64
BYTES = 256


def mini_params(settings: MiniSettings, voices: dict[str, int]) -> Params:
    """The `params.json` of the mini release."""
    size, codec = settings.language_model, settings.codec
    heads = {"head_dim": size.head_dim, "n_heads": size.n_heads, "n_kv_heads": size.n_kv_heads}
    values = {
        "model_type": "voxtral_tts",
        "dim": size.dim,
        "n_layers": size.n_layers,
        "hidden_dim": size.hidden_dim,
        **heads,
        "rope_theta": 1000000.0,
        "norm_eps": 1e-5,
        "vocab_size": SPECIAL_TOKENS + BYTES,
        "tied_embeddings": True,
        "max_seq_len": size.max_seq_len,
        "max_position_embeddings": size.max_seq_len,
        "multimodal": {
            "bos_token_id": 1,
            "audio_model_args": {
                "semantic_codebook_size": codec.semantic_codebook_size,
                "acoustic_codebook_size": codec.acoustic_codebook_size,
                "n_acoustic_codebook": codec.acoustic_dim,
                "audio_encoding_args": {
                    "num_codebooks": codec.num_codebooks,
                    "sampling_rate": codec.sampling_rate,
                    "frame_rate": codec.frame_rate,
                },
                "audio_token_id": AUDIO,
                "begin_audio_token_id": BEGIN_AUDIO,
                "acoustic_transformer_args": {
                    "input_dim": size.dim,
                    "dim": size.dim,
                    "n_layers": size.acoustic_layers,
                    "hidden_dim": size.acoustic_hidden_dim,
                    **heads,
                },
            },
            "audio_tokenizer_args": codec.model_dump(exclude_none=True) | {"voice": voices},
        },
    }
    return parse_params(values, "the mini release's settings")


def write_tekken(path: Path, voices: dict[str, int]) -> Path:
    """A tokenizer of single bytes, with the rows of each voice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    value = small_tekken(voices, special_tokens=SPECIAL_TOKENS)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path
