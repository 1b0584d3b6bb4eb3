"""Prompt ids through mistral-common: 1, 25, 24 x N, 36, text, 35, 25.

Shapes: L prompt positions, N frames of a voice embedding.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxclone.errors import MissingExtraError, ReleaseError, shorten

_VOICE = "voxclone-prompt"


class PromptMaker:
    """Builds prompts with the tokenizer of one release (`tekken.json`)."""

    def __init__(self, tekken: Path) -> None:
        self._tokenizer = _tokenizer(str(tekken))

    def ids(self, text: str, voice_frames: int) -> Tensor:
        """Ids [L] for a text and a voice of N frames (the END frame counts)."""
        from mistral_common.protocol.speech.request import SpeechRequest

        audio = self._tokenizer.instruct_tokenizer.audio_encoder.audio_config
        # mistral-common has counts by the names of voices only; this one is for any voice.
        audio.voice_num_audio_tokens = (audio.voice_num_audio_tokens or {}) | {_VOICE: voice_frames}
        request = SpeechRequest(input=text, voice=_VOICE)
        return torch.tensor(self._tokenizer.encode_speech_request(request).tokens)

    def around_text(self, text_ids: list[int]) -> list[int]:
        """[NEXT_AUDIO_TEXT], text, [REPEAT_AUDIO_TEXT], [BEGIN_AUDIO]: what follows the voice."""
        audio = self._tokenizer.instruct_tokenizer.audio_encoder
        begin: list[int] = [audio.text_to_audio_token]
        return begin + text_ids + [audio.audio_to_text_token, audio.begin_audio_token]

    def text_ids(self, text: str) -> list[int]:
        """Ids of the text alone, without beginning or end."""
        ids: list[int] = self._tokenizer.instruct_tokenizer.tokenizer.encode(text, False, False)
        return ids


@functools.lru_cache(maxsize=4)
def _tokenizer(path: str) -> Any:
    try:
        from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
    except ImportError:
        raise MissingExtraError("mistral-common", "speech", "Making prompts") from None
    try:
        tokenizer = MistralTokenizer.from_file(path)
    except Exception as error:  # mistral-common raises assertions, key and value errors alike
        raise ReleaseError(
            f"The tokenizer {path} cannot be used: {shorten(repr(error))}."
        ) from None
    if getattr(tokenizer.instruct_tokenizer, "audio_encoder", None) is None:
        raise ReleaseError(f"The tokenizer {path} has no audio section, so it makes no prompts.")
    return tokenizer
