"""Encoders made sick on purpose are told apart, and a healthy one is not accused.

The healthy one is the mini release's withheld encoder; what it hears is speech that the release
decodes from its presets.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from voxclone.cli.app import app
from voxclone.codec.model import Codec
from voxclone.data.manifest import Clip
from voxclone.errors import ConfigError
from voxclone.evaluate.acceptance import Trial
from voxclone.evaluate.checks import verdict
from voxclone.evaluate.diagnosis import Diagnosis, diagnose, speak_with_presets
from voxclone.evaluate.geometry import inversion_health
from voxclone.evaluate.report.page import page
from voxclone.evaluate.report.tables import Cell
from voxclone.evaluate.speechset import SpeechSet, Utterance, choose, list_clips, load_speech
from voxclone.release.release import Release, load_preset, load_table, preset_names
from voxclone.release.tensors import codebook_offsets
from voxclone.tts.tts import TTS
from voxclone.voice.presets import preset_inversions
from voxclone.voice.rows import Inversion


class Sick(nn.Module):
    """An encoder whose latents [B, D, T] are changed."""

    def __init__(self, encoder: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder = encoder
        self.change = change

    def forward(self, wave_BS: Tensor, past: object = None) -> Tensor:
        return self.change(self.encoder(wave_BS, past))


@pytest.fixture(scope="module")
def inversions(release: Release) -> dict[str, Inversion]:
    return preset_inversions(release)


@pytest.fixture(scope="module")
def speech(oracle: Codec, inversions: dict[str, Inversion]) -> SpeechSet:
    """Three seconds of each preset, in two utterances."""
    utterances = []
    for name, found in inversions.items():
        with torch.inference_mode():
            wave_S = oracle.decode(found.codes_KT[None, :, :40])[0].clone()
        for turn, part_S in enumerate(wave_S.split(20 * oracle.frame_size)):
            clip = Clip(f"{name}-{turn}", Path("none"), name, 1.6)
            utterances.append(Utterance(clip, part_S))
    return SpeechSet(utterances)


Examine = Callable[[Codec], Diagnosis]


@pytest.fixture(scope="module")
def examine(release: Release, speech: SpeechSet, inversions: dict[str, Inversion]) -> Examine:
    def measure(codec: Codec) -> Diagnosis:
        return diagnose(release, codec, speech, encoder="test", model=None, inversions=inversions)

    return measure


def sick(oracle: Codec, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Codec:
    """A copy of the oracle whose semantic and acoustic latents are changed."""
    codec = copy.deepcopy(oracle)
    split = codec.quantizer.split
    encoder: nn.Module = Sick(
        codec.require_encoder(), lambda latent: torch.cat(change(*split(latent)), dim=1)
    )
    codec.encoder = encoder  # type: ignore[assignment]
    return codec


def one_cell(semantic: Tensor, acoustic: Tensor, oracle: Codec) -> tuple[Tensor, Tensor]:
    vector = oracle.quantizer.semantic_codebook.vectors()[7][:, None].to(semantic)
    return vector + 0.01 * semantic, acoustic


def out_of_step(acoustic: Tensor) -> Tensor:
    """Every channel as it was, but some frames later, each by its own number."""
    return torch.stack([row.roll(3 * i, -1) for i, row in enumerate(acoustic.unbind(1))], dim=1)


def moved(acoustic: Tensor) -> Tensor:
    return torch.cat([acoustic[:, :3] + 1, acoustic[:, 3:]], dim=1)


def leaking(x: Tensor) -> Tensor:
    return x + 0.5 * (x.mean(dim=0, keepdim=True) - x)


@pytest.fixture(scope="module")
def healthy(examine: Examine, oracle: Codec) -> Diagnosis:
    return examine(oracle)


def test_the_true_encoder_is_not_accused(healthy: Diagnosis) -> None:
    found = verdict(healthy)
    assert found.healthy, [finding.figure for finding in found.findings]
    assert found.unsure == ["acceptance by the model"]
    assert "Healthy" in found.summary and healthy.missing["acceptance"]
    assert healthy.inversion.exact == 1.0 and healthy.inversion.no_end == []
    assert healthy.passage.batched.exact > 0.999


@pytest.mark.parametrize(
    ("illness", "change"),
    [
        ("collapse by scale mismatch", lambda oracle: lambda s, a: (0.02 * s, a)),
        ("collapse into one cell", lambda oracle: lambda s, a: one_cell(s, a, oracle)),
        ("saturation", lambda oracle: lambda s, a: (s, 20 * a)),
        ("double tanh", lambda oracle: lambda s, a: (s, torch.tanh(a))),
        ("offset channels", lambda oracle: lambda s, a: (s, moved(a))),
        ("off-manifold", lambda oracle: lambda s, a: (s, out_of_step(a))),
        ("batch leakage", lambda oracle: lambda s, a: (leaking(s), leaking(a))),
        ("bf16 drift", lambda oracle: lambda s, a: ((s + 64) - 64, (a + 64) - 64)),
    ],
)
def test_an_illness_is_named(
    illness: str,
    change: Callable[[Codec], Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]],
    examine: Examine,
    oracle: Codec,
) -> None:
    found = verdict(examine(sick(oracle, change(oracle))))
    assert illness in [finding.name for finding in found.findings], found.findings
    assert not found.healthy and illness in found.summary


def test_wrong_loudness_is_named(examine: Examine, oracle: Codec) -> None:
    class Deaf(nn.Module):
        def __init__(self, encoder: nn.Module) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, wave_BS: Tensor, past: object = None) -> Tensor:
            return self.encoder(0.1 * wave_BS, past)

    codec = copy.deepcopy(oracle)
    codec.encoder = Deaf(codec.require_encoder())  # type: ignore[assignment]
    found = examine(codec)
    assert found.passage.loudness.mean < -4
    assert "wrong loudness" in [finding.name for finding in verdict(found).findings]


def test_a_voice_without_its_end_row_is_named(
    release: Release, healthy: Diagnosis, inversions: dict[str, Inversion]
) -> None:
    rows = {name: load_preset(release, name) for name in preset_names(release)[:3]}
    cut = next(iter(rows))
    some = {name: inversions[name] for name in rows}
    some[cut] = replace(some[cut], has_end=False)
    levels = release.params.audio.acoustic_codebook_size
    offsets = codebook_offsets(release.params)
    found = inversion_health(some, rows, load_table(release), offsets, levels)
    assert found.no_end == [cut]
    finding = verdict(replace(healthy, inversion=found)).findings[0]
    assert finding.name == "missing END row" and cut in finding.figure


def test_with_the_model_acceptance_is_measured(
    release: Release, oracle: Codec, inversions: dict[str, Inversion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model = TTS.load(release, codec=oracle)
    names = preset_names(release)[:4]
    utterances = []
    own: list[list[Trial]] = []

    def speak_once(model: TTS, presets: dict[str, Tensor], seed: int) -> list[Trial]:
        """With the first few presets, and in the first of the diagnoses below."""
        if not own:
            few = {name: rows_ND for name, rows_ND in presets.items() if name in names}
            own.append(speak_with_presets(model, few, seed))
        return own[0]

    monkeypatch.setattr("voxclone.evaluate.diagnosis.speak_with_presets", speak_once)
    for seed in (1, 2):
        presets = {name: load_preset(release, name) for name in names}
        for trial in speak_with_presets(model, presets, seed):
            with torch.inference_mode():
                wave_S = oracle.decode(trial.codes_KT[None])[0].clone()
            clip = Clip(f"{trial.speaker}-{seed}", Path("x"), trial.speaker, 1.0, text=trial.text)
            utterances.append(Utterance(clip, wave_S))

    def measure(chosen: list[Utterance]) -> Diagnosis:
        return diagnose(
            release, oracle, SpeechSet(chosen), encoder="x", model=model, inversions=inversions
        )

    found = measure(utterances)
    assert found.acceptance is not None and found.own_acceptance is not None
    assert found.acceptance.speakers == 4 and found.acceptance.trials == 8
    assert found.acceptance.semantic.mean > 0 and found.acceptance.semantic_gain.low is not None
    assert found.missing == {}
    names_of = [finding.name for finding in verdict(found).findings]
    assert "foreign semantic codes" not in names_of
    vectors_VD = oracle.quantizer.semantic_codebook.vectors()

    def other_words(semantic: Tensor, acoustic: Tensor) -> tuple[Tensor, Tensor]:
        codes_BT = oracle.quantizer.semantic_codebook.encode(semantic)
        return vectors_VD[(codes_BT * 5 + 3) % len(vectors_VD)].mT.to(semantic), acoustic

    foreign = diagnose(
        release, sick(oracle, other_words), SpeechSet(utterances), encoder="x", model=model,
        inversions=inversions,
    )  # fmt: skip
    assert "foreign semantic codes" in [finding.name for finding in verdict(foreign).findings]
    lonely = measure([each for each in utterances if each.speaker == names[0]])
    assert lonely.acceptance is None and "two speakers" in lonely.missing["acceptance"]
    assert Cell(None).text == "not measured"


def test_a_folder_of_speakers_is_read_and_what_cannot_be_is_told(tmp_path: Path) -> None:
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
    assert [clip.id for clip in choose(clips, 2.0)] == ["ada/one.flac", "ben/one.flac"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no sound file"):
        list_clips(tmp_path / "empty")


def test_the_page_holds_everything_itself(healthy: Diagnosis) -> None:
    report = json.loads(json.dumps(healthy.to_json() | {"verdict": verdict(healthy).to_json()}))
    text = page(report)
    assert "http" not in text.replace("http-equiv", "") and "<script" not in text
    assert "Healthy" in text and "not measured" in text and "prefers-color-scheme" in text
    moved = copy.deepcopy(report)
    for name in ("mean", "low", "high"):
        moved["passage"]["mel"][name] += 1.0
    assert 'class="moved"' in page(report, (), moved) and 'class="moved"' not in page(report)


def test_the_command_ends_with_its_verdict(release: Release, oracle: Codec, speech: SpeechSet,
                                           tmp_path: Path) -> None:  # fmt: skip
    for each in speech.utterances[:8]:
        path = tmp_path / "speech" / each.speaker / f"{each.clip.id}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, each.wave_S.numpy(), 24000)
    command = ["diagnose", "mini", "--speech", str(tmp_path / "speech"), "--no-model"]
    result = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert result.exit_code == (0 if report["verdict"]["healthy"] else 3), result.output
    assert report["schema"] == "voxclone.diagnosis/1" and report["clips"] == 8
    assert "data:audio/ogg" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    old = tmp_path / "old.json"
    old.write_text(json.dumps(report | {"schema": "voxclone.diagnosis/0"}), encoding="utf-8")
    refused = CliRunner().invoke(app, [*command, "--baseline", str(old)])
    assert refused.exit_code == 1 or "schema" in str(refused.exception)
