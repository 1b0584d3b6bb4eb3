"""Params that hold the three golden configs (language model, acoustic head, codec)."""

import json
from pathlib import Path

from voxclone.release.params import Params, parse_params

DATA = Path(__file__).parent / "data"


def golden_params() -> Params:
    """The small model of the golden vectors as one params.json."""
    codec, acoustic, lm = (
        json.loads((DATA / f"{name}_small.config.json").read_text())
        for name in ("codec", "acoustic", "lm")
    )
    audio = {
        **acoustic,
        "audio_encoding_args": {"num_codebooks": 7, "sampling_rate": 24000, "frame_rate": 125.0},
        "audio_token_id": 24,
        "begin_audio_token_id": 25,
    }
    multimodal = {
        "bos_token_id": 1,
        "audio_model_args": audio,
        "audio_tokenizer_args": codec,
    }
    return parse_params({**lm, "multimodal": multimodal}, "the golden configs")
