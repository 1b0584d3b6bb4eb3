"""The words of a recording, by the packaged recognizer, which knows English.

Words are needed to compare likelihoods of the same speech. A misheard text is the same in both
terms of a difference.

Shapes: S samples.
"""

from collections.abc import Callable

from torch import Tensor

from voxclone.models.ctc_asr import load_packaged_recognizer
from voxclone.models.transcribers import CharacterTranscriber, transcribe_or_empty

PLACEHOLDER = "a"  # for a recording without words


def load_transcriber() -> Callable[[Tensor], str]:
    """A function from a clip [S] at 24 kHz to its words."""
    transcriber = CharacterTranscriber(load_packaged_recognizer())

    def transcribe(wave_S: Tensor) -> str:
        return transcribe_or_empty(transcriber, wave_S).strip() or PLACEHOLDER

    return transcribe
