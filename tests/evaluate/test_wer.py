"""Error rates, and transcribers behind one protocol; Whisper is tiny and random."""

import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.synthetic_voice import noise, voice
from tests.helpers.tiny_whisper import save_tiny_whisper
from voxclone.errors import AudioError, MissingExtraError
from voxclone.evaluate.wer import character_error_rate, word_error_rate
from voxclone.models.ctc_asr import Recognizer, RecognizerConfig
from voxclone.models.transcribers import (
    CharacterTranscriber,
    PocketsphinxTranscriber,
    Transcriber,
    WhisperTranscriber,
)


def test_error_rates_compare_normalized_texts() -> None:
    assert word_error_rate([("Hello, World!", "hello world")]) == 0
    assert word_error_rate([("one two three four", "one too three"), ("five", "five")]) == 2 / 5
    assert character_error_rate([("abc", "abd")]) == pytest.approx(1 / 3)
    assert word_error_rate([("It\u2019s", "it's")]) == 0


def test_the_character_transcriber_wraps_the_recognizer() -> None:
    torch.manual_seed(0)
    recognizer = Recognizer(RecognizerConfig(characters="ab ", dim=16, blocks=1))
    transcriber: Transcriber = CharacterTranscriber(recognizer.train())
    transcript = transcriber.transcribe(voice(1.0))
    assert set(transcript) <= set("ab ") and transcript == transcriber.transcribe(voice(1.0))


def test_pocketsphinx_does_not_depend_on_the_clip_before() -> None:
    pytest.importorskip("pocketsphinx")
    transcriber: Transcriber = PocketsphinxTranscriber()
    first = transcriber.transcribe(voice(0.8))
    transcriber.transcribe(voice(0.8, 220, 0.01) + noise(19200, 0.1))
    assert transcriber.transcribe(voice(0.8)) == first
    with pytest.raises(AudioError, match="silent"):
        transcriber.transcribe(torch.zeros(24000))


def test_absent_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(MissingExtraError, match="pocketsphinx"):
        PocketsphinxTranscriber()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="transformers"):
        WhisperTranscriber()


def test_whisper_generates_for_short_and_long_clips(tmp_path: Path) -> None:
    save_tiny_whisper(tmp_path)
    for language, seconds in (("de", 1.0), (None, 1.0), ("de", 32.0)):
        transcriber: Transcriber = WhisperTranscriber(str(tmp_path), language)
        wave_S = noise(round(24000 * seconds), 0.1)
        transcript = transcriber.transcribe(wave_S)
        assert "<|" not in transcript and transcript == transcriber.transcribe(wave_S)
    with pytest.raises(AudioError, match="empty"):
        transcriber.transcribe(torch.zeros(0))
