"""Transcribers behind one protocol; the tiny Whisper is random, so only its plumbing is tested."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.evaluate import draw
from voxclone.errors import AudioError, MissingExtraError
from voxclone.evaluate.wer import word_error
from voxclone.models.ctc_asr import Recogniser, RecogniserConfig
from voxclone.models.transcribers import (
    CharacterTranscriber,
    PocketsphinxTranscriber,
    Transcriber,
    WhisperTranscriber,
)


def test_word_error_compares_normalised_words() -> None:
    assert word_error([("Hello, World!", "hello world")]) == 0
    assert word_error([("one two three four", "one too three"), ("five", "five")]) == 2 / 5
    assert word_error([("abc", "abd")], characters=True) == pytest.approx(1 / 3)
    assert word_error([("It\u2019s", "it's")]) == 0


def test_characters_wrap_the_recogniser() -> None:
    torch.manual_seed(0)
    recogniser = Recogniser(RecogniserConfig(characters="ab ", dim=16, blocks=1))
    transcriber: Transcriber = CharacterTranscriber(recogniser.train())
    heard = transcriber.transcribe(draw.voice(1.0))
    assert set(heard) <= set("ab ") and heard == transcriber.transcribe(draw.voice(1.0))


def test_pocketsphinx_hears_words_and_forgets_the_clip_before() -> None:
    pytest.importorskip("pocketsphinx")
    transcriber: Transcriber = PocketsphinxTranscriber()
    first = transcriber.transcribe(draw.voice(0.8))
    transcriber.transcribe(draw.voice(0.8, 220, 0.01) + draw.noise(19200, 0.1))
    assert transcriber.transcribe(draw.voice(0.8)) == first
    with pytest.raises(AudioError, match="silent"):
        transcriber.transcribe(torch.zeros(24000))


def test_absent_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(MissingExtraError, match="pocketsphinx"):
        PocketsphinxTranscriber()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="transformers"):
        WhisperTranscriber()


def _save_whisper(folder: Path) -> None:
    """A random Whisper of a few thousand weights, with a tokenizer of single bytes."""
    transformers = pytest.importorskip("transformers")
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>"]
    special += ["<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    special += ["<|notimestamps|>", *(f"<|{i * 0.02:.2f}|>" for i in range(1501))]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + ["\u0120"]
    tokens = letters + special
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    index = {token: i for i, token in enumerate(tokens)}
    tokenizer = transformers.WhisperTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")
    )
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:10]})
    features = transformers.WhisperFeatureExtractor(feature_size=20)
    transformers.WhisperProcessor(features, tokenizer).save_pretrained(folder)
    config = transformers.WhisperConfig(
        vocab_size=len(tokens),
        num_mel_bins=20,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_target_positions=40,
        pad_token_id=index["<|endoftext|>"],
        bos_token_id=index["<|endoftext|>"],
        eos_token_id=index["<|endoftext|>"],
        decoder_start_token_id=index["<|startoftranscript|>"],
    )
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(config)
    model.save_pretrained(folder)
    # What published Whispers carry in this file beyond the fields of the library.
    generation = {
        "is_multilingual": True,
        "lang_to_id": {token: index[token] for token in ("<|en|>", "<|de|>")},
        "task_to_id": {task: index[f"<|{task}|>"] for task in ("translate", "transcribe")},
        "no_timestamps_token_id": index["<|notimestamps|>"],
        "max_initial_timestamp_index": 50,
        "max_length": 24,
        "pad_token_id": index["<|endoftext|>"],
        "eos_token_id": index["<|endoftext|>"],
        "decoder_start_token_id": index["<|startoftranscript|>"],
    }
    (folder / "generation_config.json").write_text(json.dumps(generation))


def test_whisper_generates_for_short_and_long_clips(tmp_path: Path) -> None:
    _save_whisper(tmp_path)
    for language, seconds in (("de", 1.0), (None, 1.0), ("de", 32.0)):
        transcriber: Transcriber = WhisperTranscriber(str(tmp_path), language)
        wave_S = draw.noise(round(24000 * seconds), 0.1)
        heard = transcriber.transcribe(wave_S)
        assert "<|" not in heard and heard == transcriber.transcribe(wave_S)
    with pytest.raises(AudioError, match="empty"):
        transcriber.transcribe(torch.zeros(0))
