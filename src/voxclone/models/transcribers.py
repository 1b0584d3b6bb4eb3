"""Speech recognizers behind one protocol, for error rates.

Whisper is the yardstick of published error rates. Pocketsphinx (English) and the project's own
character recognizer are offline; their error rates compare sounds only with each other.

Shapes: B batch, S samples at 24 kHz, R samples at 16 kHz, T tokens.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from voxclone.audio.loudness import check_wave
from voxclone.audio.resample import MODEL_RATE
from voxclone.errors import AudioError, MissingExtraError
from voxclone.io import tensor_hash
from voxclone.models.ctc_asr import Recognizer
from voxclone.models.pretrained import clip_at_16k, load_pretrained

WHISPER_SECONDS = 30  # longer clips go through its own windowed decoding


class Transcriber(Protocol):
    """A speech recognizer; `name` stands in reports."""

    name: str

    def transcribe(self, wave_S: Tensor) -> str:
        """The transcript of one clip [S] at 24 kHz, "" without words.

        Raises AudioError for a clip that is empty, silent or not finite.
        """
        ...


def transcribe_or_empty(transcriber: Transcriber, wave_S: Tensor) -> str:
    """The transcript of a clip, "" for one without sound."""
    try:
        check_wave(wave_S)
        return transcriber.transcribe(wave_S)
    except AudioError:
        return ""


class WhisperTranscriber:
    """Whisper through transformers, with greedy decoding in one fixed language."""

    def __init__(
        self,
        model_id_or_path: str = "openai/whisper-large-v3",
        language: str | None = "en",
        device: str = "cpu",
    ) -> None:
        """`language` is a code such as "en", or None for English-only models, which take none.

        Raises MissingExtraError without transformers, VoxcloneError if the model does not load.
        """
        self.name = f"whisper:{model_id_or_path}"
        self.language = language
        self._processor = load_pretrained("WhisperProcessor", model_id_or_path, "Whisper")
        self._model = load_pretrained(
            "WhisperForConditionalGeneration", model_id_or_path, "Whisper"
        )
        self._model.to(device).eval().requires_grad_(False)

    def transcribe(self, wave_S: Tensor) -> str:
        """The transcript of one clip of any length at 24 kHz. Raises AudioError."""
        wave_R = clip_at_16k(wave_S)
        long = len(wave_R) > WHISPER_SECONDS * MODEL_RATE
        # A short clip is padded to one window of 30 s. A long one keeps its length, and generate()
        # moves from window to window by timestamps.
        extent = {"truncation": False, "padding": "longest"} if long else {}
        inputs = self._processor(
            wave_R.numpy(),
            sampling_rate=MODEL_RATE,
            return_tensors="pt",
            return_attention_mask=True,
            **extent,
        )
        language = {} if self.language is None else {"language": self.language}
        with torch.no_grad():
            tokens_BT = self._model.generate(
                inputs["input_features"].to(self._model.device, self._model.dtype),
                attention_mask=inputs["attention_mask"].to(self._model.device),
                return_timestamps=long,
                task=None if self.language is None else "transcribe",
                num_beams=1,
                do_sample=False,
                **language,
            )
        words: str = self._processor.batch_decode(tokens_BT, skip_special_tokens=True)[0]
        return words.strip()


class PocketsphinxTranscriber:
    """CMU Pocketsphinx with the US English model of its package: offline, small and weak."""

    name = "pocketsphinx"

    def __init__(self) -> None:
        """Loads the model (a fraction of a second). Raises MissingExtraError."""
        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise MissingExtraError("pocketsphinx", "eval", "Offline transcription") from None
        self._decoder: Any = Decoder(samprate=float(MODEL_RATE), loglevel="FATAL")

    def transcribe(self, wave_S: Tensor) -> str:
        """The lower-case transcript of one clip at 24 kHz. Raises AudioError."""
        wave_R = clip_at_16k(wave_S).clamp(-1, 1)
        pcm_R = (wave_R * 32767).round().to(torch.int16)
        self._decoder.start_utt()
        # As one utterance: its own mean is subtracted, and not that of earlier clips.
        self._decoder.process_raw(pcm_R.numpy().tobytes(), no_search=False, full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return "" if hypothesis is None else str(hypothesis.hypstr)


class CharacterTranscriber:
    """The project's own CTC recognizer, for the languages of its training."""

    def __init__(self, recognizer: Recognizer) -> None:
        """The name contains a hash of the weights: every run of the recipe trains its own."""
        self._recognizer = recognizer.eval()
        self.name = f"characters-{tensor_hash(*recognizer.state_dict().values())[:8]}"

    def transcribe(self, wave_S: Tensor) -> str:
        """The transcript of one clip at 24 kHz in lower-case letters. Raises AudioError."""
        check_wave(wave_S)
        device = self._recognizer.output.weight.device
        return self._recognizer.transcribe(wave_S.detach().float().to(device)).strip()
