"""Distillation targets from Whisper: known attention maps, and a tiny random model end to end."""

import json
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_whisper import save_tiny_whisper
from voxclone.errors import AudioError, ConfigError
from voxclone.models.whisper import TargetStore, WhisperTeacher, token_shares


def diagonal(tokens: int, audio_frames: int, padded: int) -> torch.Tensor:
    """Attention [1, L, F] of consecutive tokens, none beyond the audio."""
    attention = torch.full((1, tokens, padded), 1e-4)
    each = audio_frames // tokens
    for token in range(tokens):
        attention[0, token, token * each : (token + 1) * each] = 1.0
    return attention


def test_token_positions_do_not_depend_on_padding() -> None:
    for padded in (80, 1500):
        share_LT = token_shares(diagonal(4, 80, padded), 80, 20)
        assert torch.allclose(share_LT.sum(dim=1), torch.ones(4), atol=1e-5)
        middle_L = (share_LT * torch.arange(20)).sum(dim=1)
        assert torch.allclose(middle_L, torch.tensor([2.0, 7.0, 12.0, 17.0]), atol=0.3)


def test_a_uniform_attention_head_does_not_move_tokens() -> None:
    sharp = diagonal(4, 80, 80)
    both = torch.cat([sharp, torch.full((1, 4, 80), 0.01)])
    shares = [token_shares(each, 80, 20) for each in (sharp, both)]
    assert torch.equal(shares[0].argmax(dim=1), shares[1].argmax(dim=1))


def test_targets_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    save_tiny_whisper(tmp_path / "model")
    teacher = WhisperTeacher(str(tmp_path / "model"))
    store = TargetStore(teacher, tmp_path / "targets")
    wave_S = torch.sin(torch.arange(48000) * 0.05) * 0.3
    made = store.of(wave_S, 25, "we went")
    assert made.state_LE.shape[1] == teacher.width and made.share_LT.shape[1] == 25
    assert made.state_LE.shape[0] == made.share_LT.shape[0] > len("we went")
    assert torch.allclose(made.share_LT.sum(dim=1), torch.ones(len(made.share_LT)), atol=1e-2)
    transcribed = store.of(wave_S, 25)
    assert transcribed.state_LE.shape[1] == teacher.width
    monkeypatch.setattr(teacher, "targets", None)
    assert torch.equal(store.of(wave_S, 25, "we went").state_LE, made.state_LE)
    with pytest.raises(TypeError):
        store.of(wave_S * 0.5, 25, "we went")


def test_the_decoder_input_is_that_of_whispers_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start, language and task, then the words; only words have targets."""
    save_tiny_whisper(tmp_path)
    teacher = WhisperTeacher(str(tmp_path))
    tokenizer = teacher._processor.tokenizer
    forward, asked = type(teacher._model).forward, []

    def recording(self, *args, **options):  # type: ignore[no-untyped-def]
        asked.append(tokenizer.convert_ids_to_tokens(options["decoder_input_ids"][0].tolist()))
        return forward(self, *args, **options)

    monkeypatch.setattr(teacher._model, "forward", recording.__get__(teacher._model))
    wave_S = torch.sin(torch.arange(48000) * 0.05) * 0.3
    end = "<|endoftext|>"
    opening = ["<|startoftranscript|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    words = ["\u0120", "w", "e", "\u0120", "w", "e", "n", "t"]
    made = teacher.targets(wave_S, 25, "we went ", "de-AT")
    assert asked == [[*opening, *words, end]]
    assert made.state_LE.shape[0] == made.share_LT.shape[0] == len(words)
    detected = torch.tensor([tokenizer.convert_tokens_to_ids("<|de|>")])
    monkeypatch.setattr(teacher._model, "detect_language", lambda given: detected)
    for unknown in (None, "xx"):
        asked.clear()
        assert torch.equal(teacher.targets(wave_S, 25, "we went", unknown).state_LE, made.state_LE)
        assert asked[-1][:4] == opening
    asked.clear()
    transcribed = teacher.targets(wave_S, 25)
    assert asked[-1][:4] == opening and asked[-1][-1] == end
    tokens = asked[-1][4:-1]  # of random weights: perhaps none
    assert len(tokens) == len(transcribed.state_LE)
    assert not any(each.startswith("<|") for each in tokens)


def test_a_text_beyond_whispers_positions_is_cut(tmp_path: Path) -> None:
    save_tiny_whisper(tmp_path)
    teacher = WhisperTeacher(str(tmp_path))
    wave_S = torch.sin(torch.arange(48000) * 0.05) * 0.3
    made = teacher.targets(wave_S, 25, "we went " * 60, "en")
    assert len(made.state_LE) == 40 - 5  # of its positions, prefix and end
    assert torch.isfinite(made.share_LT).all()


def test_targets_are_stored_by_language(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save_tiny_whisper(tmp_path / "model")
    store = TargetStore(WhisperTeacher(str(tmp_path / "model")), tmp_path / "targets")
    wave_S = torch.sin(torch.arange(48000) * 0.05) * 0.3
    english, german = (store.of(wave_S, 25, "we went", each) for each in ("en", "de"))
    assert not torch.equal(english.state_LE, german.state_LE)


def test_a_generation_config_without_prompt_tokens_is_refused(tmp_path: Path) -> None:
    save_tiny_whisper(tmp_path)
    path = tmp_path / "generation_config.json"
    named = json.loads(path.read_text())
    del named["no_timestamps_token_id"], named["task_to_id"]
    path.write_text(json.dumps(named))
    with pytest.raises(ConfigError, match="no no_timestamps_token_id and no task_to_id"):
        WhisperTeacher(str(tmp_path))


def test_silent_and_long_clips_are_refused(tmp_path: Path) -> None:
    save_tiny_whisper(tmp_path)
    teacher = WhisperTeacher(str(tmp_path), heads=[(0, 0)])
    assert teacher.heads == [(0, 0)]
    with pytest.raises(AudioError, match="silent"):
        teacher.targets(torch.zeros(24000), 12)
    with pytest.raises(ValueError, match="longer than 30 s"):
        teacher.targets(torch.ones(24000 * 31), 400)
