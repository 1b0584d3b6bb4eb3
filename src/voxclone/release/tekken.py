"""`tekken.json`, the tokenizer: its counts of frames, and its ids.

Its layout is mistral-common's (`tokens/tokenizers/tekken.py`, `audio.py`). The prompt of a speech
request is `<s>`, [BEGIN_AUDIO], [AUDIO] for each frame of the voice, [NEXT_AUDIO_TEXT], text,
[REPEAT_AUDIO_TEXT], [BEGIN_AUDIO].
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from voxclone.errors import ReleaseError
from voxclone.readers import read_json
from voxclone.records import Record, parse_record
from voxclone.release.params import Params

Count = Annotated[int, Field(ge=0, lt=2**31)]
Rate = Annotated[float, Field(gt=0, le=1e6)]


class TokenizerConfig(Record):
    """What is used of `config`."""

    default_vocab_size: Count | None = None


class SpecialToken(Record):
    """What is used of each of `special_tokens`."""

    token_str: str | None = None
    rank: Count | None = None


class AudioConfig(Record):
    """What is used of `audio`."""

    sampling_rate: Rate | None = None
    frame_rate: Rate | None = None
    voice_num_audio_tokens: dict[str, Count] | None = None


class Tekken(Record):
    """What is used of a tokenizer."""

    config: TokenizerConfig
    vocab: list[dict[str, Any]]
    special_tokens: list[SpecialToken] | None = None
    audio: AudioConfig | None = None


def read_tekken(path: str | Path) -> dict[str, Any]:
    """The value of a `tekken.json`; raises ReleaseError if it is missing or has not its layout."""
    value = read_json(path, ReleaseError, "The tokenizer")
    parse_record(Tekken, value, f"the tokenizer {path}", ReleaseError)
    return dict(value)


def voice_counts(tekken: dict[str, Any]) -> dict[str, int]:
    """Frames of each preset by `audio.voice_num_audio_tokens`; empty if the key is not there."""
    counts: dict[str, int] = (tekken.get("audio") or {}).get("voice_num_audio_tokens") or {}
    return counts


def tekken_problems(tekken: dict[str, Any], params: Params) -> list[str]:
    """A sentence for each contradiction between a tokenizer and `params.json`."""
    audio, config = tekken.get("audio") or {}, tekken["config"]
    special = {
        token.get("token_str"): token.get("rank") for token in tekken.get("special_tokens") or []
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
    if ids is None or ids > params.lm.vocab_size:
        problems.append(
            f"tekken.json has {ids} ids, but the model has only {params.lm.vocab_size} tokens."
        )
    return problems
