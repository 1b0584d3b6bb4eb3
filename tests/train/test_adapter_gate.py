"""The gate of adapters, and the speech that they are trained on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from tests.helpers.signals import speech
from tests.train.tiny import QUIET
from voxclone.errors import ConfigError
from voxclone.train.adapter.gate import HIGHER, LOWER, Measured, Sample, compare, read_split
from voxclone.train.adapter.speech import contradicts, open_fit_speech, unfit_wave

GROUPS = ["a", "a", "b", "b", "c", "c", "d", "d"]


def measured(similarity: float = 0.0, wer: float = 0.0, preset: float = 0.0) -> Measured:
    """Metrics that are this much above those of a base."""
    spread = [0.1 * (i % 4) for i in range(8)]
    small = [0.001 * i for i in range(8)]
    return {
        "clone/similarity_one": Sample(
            [0.5 + s + similarity + e for s, e in zip(spread, small, strict=True)], GROUPS, HIGHER
        ),
        "clone/similarity_two": Sample([0.6 + s + similarity for s in spread], GROUPS, HIGHER),
        "clone/wer": Sample([0.2 + s + wer for s in spread], GROUPS, LOWER),
        "preset/similarity_one": Sample([0.8 + s + preset for s in spread], GROUPS, HIGHER),
    }


def test_an_adapter_passes_that_improves_clones_and_keeps_presets() -> None:
    verdict = compare(measured(), measured(similarity=0.05))
    assert verdict.passed and verdict.score == pytest.approx(0.05)
    row = verdict.rows["clone/similarity_two"]
    assert row["difference_low"] == pytest.approx(0.05) and row["base_low"] < row["base"]
    assert json.loads(json.dumps(verdict.to_json()))["passed"] is True


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"similarity": 0.0}, "clone/similarity_one of unseen speakers does not improve"),
        ({"similarity": 0.05, "preset": -0.3}, "preset/similarity_one is 0.650, and was 0.950"),
        ({"similarity": 0.05, "wer": 0.3}, "clone/wer is 0.650"),
        ({"similarity": -0.3}, "clone/similarity_two is"),
    ],
)
def test_an_adapter_fails_for_what_it_loses(changes: dict[str, float], lost: str) -> None:
    verdict = compare(measured(), measured(**changes))
    assert not verdict.passed and any(each.startswith(lost) for each in verdict.lost)


def test_both_embedders_must_agree() -> None:
    adapted = measured(similarity=0.05)
    adapted["clone/similarity_two"] = measured()["clone/similarity_two"]
    (lost,) = compare(measured(), adapted).lost
    assert "similarity_two" in lost


def test_unfit_recordings_are_named() -> None:
    good = torch.from_numpy(speech([1.0, 0.8], [0.05, 0.1, 0.1])).float()
    cases: dict[str, Tensor] = {
        "long": good[:12000],
        "without sound": torch.zeros(48000),
        "dBFS": good * 0.01,
        "clipped": (good * 50).clamp(-1, 1),
    }
    assert unfit_wave(good) is None
    for word, wave_S in cases.items():
        assert word in str(unfit_wave(wave_S))


def test_a_text_is_contradicted_by_a_nearer_one() -> None:
    others = ["the dog sat down", "we go home"]
    assert contradicts("the dok sat", "it is raining today", others)
    assert not contradicts("it is rayning", "it is raining today", others)
    assert not contradicts("", "it is raining", others)
    assert not contradicts("the dog", "the dog sat down", [])


def write_manifest(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A manifest of two-second recordings, another one for each `sound`."""
    lines = []
    for number, row in enumerate(rows):
        seed = row.pop("sound", number)
        wave = speech([1.0, 0.7], [0.05, 0.1 + 0.01 * seed, 0.1]) * (1 - 0.01 * seed)
        soundfile.write(folder / f"{number}.wav", wave.astype(np.float32), 24000)
        given = {"id": f"c{number}", "path": f"{number}.wav", "duration": len(wave) / 24000}
        lines.append(json.dumps(given | {"split": "train"} | row))
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_fit_speech_is_kept_and_the_rest_is_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"speaker": name, "text": "a"} for name in ("a", "a", "b", "b", "lonely")
    ]
    rows.append({"speaker": "a", "text": "a", "sound": 0})  # the first one again
    path = write_manifest(tmp_path, rows)
    subset, notes = open_fit_speech(path, None, 10.0, tmp_path / "packed", QUIET)
    assert notes["clips"] == 4 and notes["speakers"] == 2 and notes["licenses"] == {"unknown": 4}
    assert notes["left_out"] == {"of speakers with one clip": 1, "that occur twice": 1}
    assert sorted(subset.by_speaker()) == ["a", "b"]
    short, _ = open_fit_speech(path, None, 4 * 1.9 / 60, tmp_path / "packed", QUIET)
    assert len(short.indices) == 4 and sorted(short.by_speaker()) == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"speaker": "a"}, {"speaker": "b"}], "No clip of .* has a text"),
        ([{"speaker": "a", "text": "x"}, {"speaker": "b", "text": "x"}],
         "Every speaker of .* has one clip"),
        ([{"speaker": s, "text": "x", "sound": 0} for s in "aabb"],
         "No clip of .* is fit .*1 of speakers with one clip"),
        ([{"speaker": "a", "text": "x"}, {"speaker": "a", "text": "y"}], "of 1 speaker"),
        ([{"speaker": "a", "text": "x", "split": "test"}], "no clip of the split `train`"),
    ],
)  # fmt: skip
def test_unfit_speech_is_refused(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    path = write_manifest(tmp_path, [dict(row) for row in rows])
    with pytest.raises(ConfigError, match=message) as caught:
        open_fit_speech(path, None, 10.0, tmp_path / "packed", QUIET)
    assert "\n" not in str(caught.value)


def test_texts_of_other_recordings_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["one dog", "two cats", "three birds", "four mice", "five cows", "six hens"]
    rows = [{"speaker": "ab"[i % 2], "text": text} for i, text in enumerate(texts)]
    path = write_manifest(tmp_path, rows)
    heads = iter(texts[1:] + texts[:1])
    module = "voxclone.train.adapter.speech.transcribe_or_empty"
    monkeypatch.setattr(module, lambda transcriber, wave_S: next(heads))
    with pytest.raises(ConfigError, match=r"6 of 6 texts .* are contradicted"):
        open_fit_speech(path, None, 10.0, tmp_path / "packed", QUIET)


def test_the_gate_needs_speakers_that_were_not_learned(tmp_path: Path) -> None:
    rows = [{"speaker": name, "text": "x", "split": "test"} for name in ("a", "b", "c")]
    path = write_manifest(tmp_path, rows)
    assert len(read_split(path, "test", {"a"}, None).utterances) == 2
    assert len(read_split(path, "test", set(), 2).utterances) == 2
    with pytest.raises(ConfigError, match=r"has 1 speakers with texts in the split 'test'"):
        read_split(path, "test", {"a", "b"}, None)
