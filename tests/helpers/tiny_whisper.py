"""A Whisper checkpoint in the layout of transformers, random and tiny."""

import json
from pathlib import Path

import pytest
import torch


def save_tiny_whisper(folder: Path) -> None:
    """Write a random Whisper of a few thousand weights, with a tokenizer of single characters."""
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
