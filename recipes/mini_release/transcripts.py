"""Whisper's transcripts of the English clips: they fill in missing texts and check given ones.

The result is one JSON file, id -> text, written as it grows, so that an interrupted run goes on.

Shapes: S samples at 24 kHz.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from voxclone.audio.files import read_wave
from voxclone.audio.loudness import check_wave
from voxclone.audio.resample import MODEL_RATE, to_16k
from voxclone.data.corpus import Corpus
from voxclone.data.manifest import Clip
from voxclone.errors import AudioError
from voxclone.evaluate.wer import word_error_rate
from voxclone.io import atomic_file
from voxclone.models.transcribers import WhisperTranscriber

BATCH = 8
SAVE_EVERY = 10  # batches
MAX_LENGTH = 124
"""Tokens of a transcript: what is longer repeats itself."""
CONTRADICTED = 0.5
"""Word error rate above which Whisper's transcript replaces a given text."""
LANGUAGES = ("en", "de", "nl", "pl")


class BatchTranscriber(WhisperTranscriber):
    """Whisper, greedy, several clips of at most 30 s at a time."""

    @torch.inference_mode()
    def transcribe_all(self, waves: Sequence[torch.Tensor]) -> list[str]:
        """Transcripts of waveforms [S]; "" for one without sound."""
        texts = [""] * len(waves)
        audible = [number for number, wave_S in enumerate(waves) if _is_audible(wave_S)]
        for start in range(0, len(audible), BATCH):
            batch = audible[start : start + BATCH]
            found = self._transcribe_batch([waves[number] for number in batch])
            for number, text in zip(batch, found, strict=True):
                texts[number] = text.strip()
        return texts

    def _transcribe_batch(self, waves: Sequence[torch.Tensor]) -> list[str]:
        short = [to_16k(wave_S[None].float().cpu())[0].numpy() for wave_S in waves]
        inputs = self._processor(
            short, sampling_rate=MODEL_RATE, return_tensors="pt", return_attention_mask=True
        )
        ids = self._model.generate(
            inputs["input_features"].to(self._model.device, self._model.dtype),
            attention_mask=inputs["attention_mask"].to(self._model.device),
            num_beams=1,
            do_sample=False,
            language=self.language,
            task="transcribe",
            max_length=min(MAX_LENGTH, self._model.config.max_target_positions),
        )
        texts: list[str] = self._processor.batch_decode(ids, skip_special_tokens=True)
        return texts


def _is_audible(wave_S: torch.Tensor) -> bool:
    try:
        check_wave(wave_S)
    except AudioError:
        return False
    return True


def transcribe(
    clips: Sequence[Clip],
    load: Callable[[], BatchTranscriber],
    path: Path,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, str]:
    """Transcripts by clip id; those that `path` holds already are not made again."""
    known: dict[str, str] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    missing = sorted((c for c in clips if c.id not in known), key=lambda c: c.duration)
    transcriber = load() if missing else None
    for number, start in enumerate(track(range(0, len(missing), BATCH)), 1):
        assert transcriber is not None
        batch = missing[start : start + BATCH]
        waves = [torch.from_numpy(read_wave(clip.path)) for clip in batch]
        texts = transcriber.transcribe_all(waves)
        known |= {clip.id: text for clip, text in zip(batch, texts, strict=True)}
        if number % SAVE_EVERY == 0 or start + BATCH >= len(missing):
            with atomic_file(path) as file:
                file.write(json.dumps(known, indent=0, ensure_ascii=False).encode())
    return known


def texts_of(
    corpus: Corpus, indices: Sequence[int], transcripts: Mapping[str, str]
) -> dict[int, str]:
    """Texts by clip index: a clip's own, or Whisper's transcript where it has none or where Whisper
    contradicts it. Clips without either, or in other languages, are left out."""
    texts = {}
    for index in indices:
        clip = corpus.clips[index]
        if (clip.language or "").partition("-")[0] not in LANGUAGES:
            continue
        text, other = clip.text or "", transcripts.get(clip.id, "")
        if other and (not text or word_error_rate([(text, other)]) > CONTRADICTED):
            text = other
        if text:
            texts[index] = text
    return texts
