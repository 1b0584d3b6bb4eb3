"""The tokenizer file: mistral-common reads the small one and makes the prompt of a release."""

import json
from pathlib import Path
from typing import Any

import pytest

from recipes.mini_release.layout import small_tekken
from tests.helpers.tiny_release import SPECIAL_TOKENS, VOICES, tiny_params
from voxclone.errors import ReleaseError
from voxclone.release.tekken import read_tekken, tekken_problems, voice_counts


def _write(folder: Path, value: Any) -> Path:
    path = folder / "tekken.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_frame_counts_are_read_back(tmp_path: Path) -> None:
    path = _write(tmp_path, small_tekken(VOICES))
    assert voice_counts(read_tekken(path)) == VOICES
    assert read_tekken(path) == small_tekken(VOICES)
    without = small_tekken(VOICES)
    del without["audio"]["voice_num_audio_tokens"]
    assert voice_counts(read_tekken(_write(tmp_path, without))) == {}
    del without["audio"]
    assert voice_counts(read_tekken(_write(tmp_path, without))) == {}


def test_special_tokens_must_have_room() -> None:
    with pytest.raises(ValueError, match="must be above 36"):
        small_tekken({}, special_tokens=36)
    assert small_tekken({}, special_tokens=37)["config"]["default_vocab_size"] == 293


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("{", "not valid JSON"),
        ("[]", "valid dictionary"),
        ({"config": {}}, "'vocab' is missing"),
        (small_tekken({}) | {"audio": 3}, "'audio' is 3"),
        (small_tekken({"anna": "9"}), "valid integer"),  # type: ignore[dict-item]
        (small_tekken({"anna": True}), "valid integer"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, value: Any, sentence: str) -> None:
    with pytest.raises(ReleaseError, match=sentence):
        voice_counts(read_tekken(_write(tmp_path, value)))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="cannot be read"):
        read_tekken(tmp_path / "tekken.json")


def _good() -> dict[str, Any]:
    rates = tiny_params().audio
    return small_tekken(
        VOICES,
        special_tokens=SPECIAL_TOKENS,
        sampling_rate=rates.sampling_rate,
        frame_rate=rates.frame_rate,
    )


def test_contradictions_with_params_are_named() -> None:
    params = tiny_params()
    assert tekken_problems(_good(), params) == []
    tekken = _good()
    tekken["audio"]["frame_rate"] = 12.5
    tekken["special_tokens"][24]["token_str"] = "[SOUND]"
    tekken["config"]["default_vocab_size"] = 131072
    problems = tekken_problems(tekken, params)
    assert [next(word for word in p.split() if word in _WORDS) for p in problems] == _WORDS
    assert all(problem.endswith(".") for problem in problems)
    assert len(tekken_problems({"config": {}, "vocab": []}, params)) == 6


_WORDS = ["audio.frame_rate", "[AUDIO]", "ids,"]


def test_mistral_common_reads_it_and_makes_the_prompt(tmp_path: Path) -> None:
    pytest.importorskip("mistral_common")
    from mistral_common.protocol.speech.request import SpeechRequest
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    path = _write(tmp_path, _good())
    text = "Grüße, Anna!\n  Two  spaces…"
    tekkenizer = Tekkenizer.from_file(path)
    assert tekkenizer.n_words == SPECIAL_TOKENS + 256
    ids = tekkenizer.encode(text, bos=False, eos=False)
    assert ids == [SPECIAL_TOKENS + byte for byte in text.encode()]
    assert tekkenizer.decode(ids) == text

    tokenizer = MistralTokenizer.from_file(path)
    for voice, rows in VOICES.items():
        prompt = tokenizer.encode_speech_request(SpeechRequest(input=text, voice=voice)).tokens
        assert prompt == [1, 25, *[24] * rows, 36, *ids, 35, 25]
