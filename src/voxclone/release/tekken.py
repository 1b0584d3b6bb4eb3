"""`tekken.json`, the tokenizer: its counts of frames, and its ids.

Its layout is mistral-common's (`tokens/tokenizers/tekken.py`, `audio.py`). The prompt of a speech
request is `<s>`, [BEGIN_AUDIO], [AUDIO] for each frame of the voice, [NEXT_AUDIO_TEXT], text,
[REPEAT_AUDIO_TEXT], [BEGIN_AUDIO].
"""

import json
from pathlib import Path
from typing import Any

from voxclone.errors import ReleaseError
from voxclone.release.params import Params


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


def voice_counts(tekken: dict[str, Any]) -> dict[str, int]:
    """Frames of each preset by `audio.voice_num_audio_tokens`; empty if the key is not there.
    Raises ReleaseError for anything but a mapping to integers."""
    counts = tekken.get("audio", {}).get("voice_num_audio_tokens") or {}
    if not isinstance(counts, dict) or any(type(count) is not int for count in counts.values()):
        raise ReleaseError("In tekken.json, voice_num_audio_tokens must map names to integers.")
    return counts


def tekken_problems(tekken: dict[str, Any], params: Params) -> list[str]:
    """A sentence for each contradiction between a tokenizer and `params.json`."""
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
