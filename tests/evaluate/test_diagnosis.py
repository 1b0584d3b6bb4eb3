"""Diagnoses: the true encoder end to end by the command, altered encoders in slow tests."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

from tests.helpers.altered_encoder import ALTERED
from tests.helpers.command import Command
from tests.helpers.diagnoses import (
    ORACLE,
    SPEAKERS,
    from_json,
    generated_speech,
    load_diagnosis,
    measure,
    preset_speech,
)
from voxclone.codec.model import Codec
from voxclone.errors import ConfigError
from voxclone.evaluate import diagnosis
from voxclone.evaluate.checks import run_checks
from voxclone.evaluate.report.page import page
from voxclone.evaluate.report.tables import Cell
from voxclone.evaluate.speechset import list_clips, load_speech, select_clips
from voxclone.evaluate.voice_embeddings import inversion_stats
from voxclone.mini.oracle import ASSETS
from voxclone.release.release import Release, load_preset, load_table
from voxclone.release.tensors import codebook_offsets
from voxclone.tts.tts import TTS
from voxclone.voice.presets import Inversion


def test_the_command_diagnoses_the_true_encoder(
    mini_release: Release, mini_tts: TTS, mini_inversions: dict[str, Inversion],
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Speech with texts in a folder, the language model, the report, the page, and the baseline."""
    speech = generated_speech(mini_tts, mini_release)
    for each in speech.utterances:
        path = tmp_path / "speech" / each.speaker / f"{each.clip.id}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, each.wave_S.numpy(), 24000)
        path.with_suffix(".txt").write_text(each.clip.text or "", encoding="utf-8")
    few = {name: mini_inversions[name] for name in list(mini_inversions)[:SPEAKERS]}
    monkeypatch.setattr(diagnosis, "preset_names", lambda release: list(few))
    monkeypatch.setattr(diagnosis, "invert_presets", lambda *_: few)
    options = ["diagnose", "--speech", tmp_path / "speech", "--encoder",
               ASSETS / "oracle" / "encoder.safetensors"]  # fmt: skip
    code, printed, error = command(*options, "-o", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert code == (0 if report["checks"]["passed"] else 3), error
    assert report["schema"] == "voxclone.diagnosis/2" and report["clips"] == 8
    assert report["checks"]["summary"] in printed.replace("\n", " ")
    assert report["missing"] == {} and "data:audio/ogg" in (tmp_path / "out/report.html").read_text(
        encoding="utf-8"
    )
    found = from_json(report)
    assert found.preset_inversion.exact == 1.0 and found.preset_inversion.no_end == []
    assert found.round_trip.batched.exact > 0.999
    assert found.language_model is not None
    gain = found.language_model.conditioning_gain
    assert gain is not None and gain.speakers == 4 and gain.trials == 8
    assert gain.semantic_nll.mean > 0 and gain.semantic_gain.low is not None
    assert "permuted semantic codes" not in [each.name for each in run_checks(found).failed]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(report | {"schema": "voxclone.diagnosis/1"}), encoding="utf-8")
    code, _, error = command(*options, "--baseline", old)
    assert code == 2 and "measure the baseline again" in error


@pytest.mark.slow
def test_the_true_encoder_passes(
    mini_release: Release, mini_tts: TTS, mini_inversions: dict[str, Inversion]
) -> None:
    found = run_checks(measure(ORACLE, mini_release, mini_tts, mini_inversions))
    assert found.passed, found.summary


@pytest.mark.slow
@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_encoder_fails_its_check(
    name: str, mini_release: Release, mini_tts: TTS, mini_inversions: dict[str, Inversion]
) -> None:
    found = run_checks(measure(name, mini_release, mini_tts, mini_inversions))
    assert name in [each.name for each in found.failed], found.summary


def test_a_voice_without_its_end_embedding_is_counted(
    mini_release: Release, mini_inversions: dict[str, Inversion]
) -> None:
    names = list(mini_inversions)[:3]
    presets = {name: load_preset(mini_release, name) for name in names}
    some = {name: mini_inversions[name] for name in names}
    some[names[0]] = replace(some[names[0]], has_end=False)
    found = inversion_stats(
        some, presets, load_table(mini_release), codebook_offsets(mini_release.params),
        mini_release.params.audio.acoustic_codebook_size,
    )  # fmt: skip
    assert found.no_end == [names[0]] and found.exact == 1.0


def test_one_speaker_has_no_conditioning_gain(
    mini_release: Release, oracle_of_mini: Codec, mini_tts: TTS,
    mini_inversions: dict[str, Inversion], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    few = {name: mini_inversions[name] for name in list(mini_inversions)[:2]}
    monkeypatch.setattr(diagnosis, "preset_names", lambda release: list(few))
    speech = preset_speech(oracle_of_mini, few, list(few)[:1])
    found = diagnosis.diagnose(
        mini_release, oracle_of_mini, speech, encoder="x", model=mini_tts, inversions=few
    )
    assert found.language_model is not None and found.language_model.conditioning_gain is None
    assert "two speakers" in found.missing["conditioning gain"]
    assert run_checks(found).skipped[-1] == "conditioning gain"
    assert Cell(None).text == "not measured"


def test_a_folder_of_speakers_is_read_and_unreadable_clips_are_listed(tmp_path: Path) -> None:
    tone = 0.1 * torch.sin(torch.arange(36000) * 0.05).numpy()
    for name in ("ada/one", "ada/two", "ben/one"):
        path = tmp_path / f"{name}.flac"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, tone, 24000)
    (tmp_path / "ada" / "one.txt").write_text("Hello there.", encoding="utf-8")
    (tmp_path / "ben" / "two.wav").write_bytes(b"no sound at all")
    soundfile.write(tmp_path / "ben" / "short.wav", tone[:2400], 24000)
    clips = list_clips(tmp_path)
    assert [clip.speaker for clip in clips] == ["ada", "ada", "ben", "ben", "ben"]
    assert clips[0].text == "Hello there."
    found = load_speech(clips)
    assert len(found.utterances) == 3 and set(found.unreadable) == {"ben/short.wav", "ben/two.wav"}
    assert "shorter than" in found.unreadable["ben/short.wav"]
    assert [clip.id for clip in select_clips(clips, 2.0)] == ["ada/one.flac", "ben/one.flac"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no sound file"):
        list_clips(tmp_path / "empty")


def test_the_page_is_self_contained() -> None:
    found = replace(load_diagnosis(ORACLE), language_model=None)
    report = json.loads(json.dumps(found.to_json() | {"checks": run_checks(found).to_json()}))
    codes, embeddings = report["semantic_codes"], report["voice_embeddings"]
    codes |= {"counts": [3, 1, 0], "prior": [0.5, 0.3, 0.2]}
    embeddings |= {"names": ["a", "b"], "cosines": [[1, 0.5], [0.5, 1]]}
    embeddings["map"] = [{"name": n, "preset": n == "a", "x": 0.1, "y": 0.2} for n in "ab"]
    text = page(report)
    assert "http" not in text.replace("http-equiv", "") and "<script" not in text
    assert "All checks passed" in text and "not measured" in text
    assert "prefers-color-scheme" in text and "<polyline" in text
    changed = json.loads(json.dumps(report))
    for name in ("mean", "low", "high"):
        changed["round_trip"]["mel_distance"][name] += 1.0
    mark = 'class="changed"'
    assert mark in page(report, (), changed) and mark not in page(report)
