"""`tekken.json`, the tokenizer: what the rest of a release needs to know of it, and a small one.

Its layout is mistral-common's (`tokens/tokenizers/tekken.py`, `audio.py`). The prompt of a speech
request is `<s>`, [BEGIN_AUDIO], [AUDIO] for each row of the voice, [NEXT_AUDIO_TEXT], text,
[REPEAT_AUDIO_TEXT], [BEGIN_AUDIO].
"""

import base64
import json
from pathlib import Path
from typing import Any

from voxclone.errors import ReleaseError
from voxclone.release.params import Params
from voxclone.spec import (
    AUDIO,
    BEGIN_AUDIO,
    BOS,
    FRAME_RATE,
    NEXT_AUDIO_TEXT,
    REPEAT_AUDIO_TEXT,
    SAMPLING_RATE,
)

# Ranks of the release; those between them are filled as mistral-common does.
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


def small_tekken(
    voice_rows: dict[str, int],
    *,
    special_tokens: int = 40,
    sampling_rate: int = SAMPLING_RATE,
    frame_rate: float = FRAME_RATE,
) -> dict[str, Any]:
    """The value of a `tekken.json` whose text tokens are the 256 bytes.

    A byte b of the UTF-8 text has the id `special_tokens` + b, so the vocabulary has
    `special_tokens` + 256 ids. `voice_rows` gives the rows of each preset.
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
            # Of no use to speech requests, but mistral-common wants it.
            "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
            "voice_num_audio_tokens": dict(voice_rows),
        },
    }


def read_tekken(path: str | Path) -> dict[str, Any]:
    """The value of a `tekken.json`; raises ReleaseError if it is missing or has not its layout."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ReleaseError(f"The tokenizer {path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"{path} is not valid JSON: {error}; fetch it again.") from None
    layout = {"config": dict, "vocab": list}
    for key, kind in layout.items():
        if not isinstance(value, dict) or not isinstance(value.get(key), kind):
            raise ReleaseError(f"{path} has no {key!r}: it is no tekken tokenizer; fetch it again.")
    if not isinstance(value.get("audio", {}), dict):
        raise ReleaseError(f"In {path}, 'audio' is no mapping: fetch it again.")
    return dict(value)


def voice_counts(path: str | Path) -> dict[str, int]:
    """Rows of each preset by the file's `audio.voice_num_audio_tokens` (see `row_counts`)."""
    return row_counts(read_tekken(path))


def row_counts(tekken: dict[str, Any]) -> dict[str, int]:
    """Rows of each preset by `audio.voice_num_audio_tokens`; empty if the key is not there."""
    counts = tekken.get("audio", {}).get("voice_num_audio_tokens") or {}
    if not isinstance(counts, dict) or any(type(count) is not int for count in counts.values()):
        raise ReleaseError("In tekken.json, voice_num_audio_tokens must map names to integers.")
    return counts


def tekken_problems(tekken: dict[str, Any], params: Params) -> list[str]:
    """A sentence for each point in which a tokenizer and `params.json` contradict each other."""
    audio, config = tekken.get("audio", {}), tekken["config"]
    special = {
        token.get("token_str"): token.get("rank")
        for token in tekken.get("special_tokens") or []
        if isinstance(token, dict)
    }
    pairs = [
        ("audio.sampling_rate", audio.get("sampling_rate"), params.audio.sampling_rate),
        ("audio.frame_rate", audio.get("frame_rate"), params.audio.frame_rate),
        ("the id of <s>", special.get("<s>"), params.bos_token_id),
        ("the id of [AUDIO]", special.get("[AUDIO]"), params.audio.audio_token_id),
        (
            "the id of [BEGIN_AUDIO]",
            special.get("[BEGIN_AUDIO]"),
            params.audio.begin_audio_token_id,
        ),
    ]
    problems = [
        f"In tekken.json, {what} is {found}, but params.json says {wanted}."
        for what, found, wanted in pairs
        if found != wanted
    ]
    ids = config.get("default_vocab_size")
    if type(ids) is not int or ids > params.lm.vocab_size:
        problems.append(
            f"tekken.json has {ids} ids, but the model has only {params.lm.vocab_size} tokens."
        )
    return problems
