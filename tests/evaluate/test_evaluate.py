"""Reconstruction, encoders and cloned voices measured, on speech of the mini release itself."""

import copy
import html
import json
import math
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor
from typer.testing import CliRunner

from tests.helpers.fake_device import FAKE_DEVICE, fake_device
from voxclone.audio.files import read_wave
from voxclone.cli.app import app
from voxclone.codec.model import Codec
from voxclone.data.manifest import Clip
from voxclone.errors import ConfigError, UsageError, VoxcloneError
from voxclone.evaluate import encoder as encoders
from voxclone.evaluate.cloning import CloningPlan, evaluate_cloning, join_reference
from voxclone.evaluate.encoder import evaluate_encoder
from voxclone.evaluate.metric_models import MetricModels, mean_mos
from voxclone.evaluate.reconstruction import (
    MimiReconstructor,
    VoxtralReconstructor,
    evaluate_codec,
)
from voxclone.evaluate.report.contents import tables_of
from voxclone.evaluate.report.page import page
from voxclone.evaluate.report.summaries import summary_of
from voxclone.evaluate.report.tables import Cell, Row, Table, compare
from voxclone.evaluate.speechset import SpeechSet, Utterance
from voxclone.evaluate.statistics import bootstrap
from voxclone.models.dnsmos import Dnsmos
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.release.release import Release
from voxclone.spec import SAMPLING_RATE
from voxclone.tts.tts import TTS
from voxclone.voice.presets import Inversion, PresetCodes

NAMES = 3
GE2E = MetricModels([Ge2eEmbedder.load()])
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def speech(oracle: Codec, mini_inversions: dict[str, Inversion]) -> SpeechSet:
    """Some presets as speakers with two clips each."""
    utterances = []
    for name in list(mini_inversions)[:NAMES]:
        codes_KT = mini_inversions[name].codes_KT[:, :64]
        with torch.inference_mode():
            wave_S = oracle.decode(codes_KT[None])[0].clone()
        for turn, part_S in enumerate(wave_S.split(32 * oracle.frame_size)):
            clip = Clip(f"{name}-{turn}", Path("x"), name, 2.5, language="en", text="we went home")
            utterances.append(Utterance(clip, part_S))
    return SpeechSet(utterances)


@pytest.fixture(autouse=True)
def _preset_codes(mini_inversions: dict[str, Inversion], monkeypatch: pytest.MonkeyPatch) -> None:
    """The presets are inverted once a session."""
    codes = {name: each.codes_KT for name, each in mini_inversions.items()}
    monkeypatch.setattr(encoders, "preset_codes", lambda release: PresetCodes(codes, {}))


def test_an_interval_is_of_speakers_and_holds_their_mean() -> None:
    found = bootstrap([1.0, 1.0, 1.0, 2.0], ["a", "a", "a", "b"])
    assert found.mean == 1.5 and found.groups == 2 and found.values == 4
    assert found.low == 1.0 and found.high == 2.0
    alone = bootstrap([1.0, 3.0], ["a", "a"])
    assert alone.mean == 2.0 and alone.low is None and not alone.above(0) and not alone.below(9)
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(200):
        values = torch.randn(20, generator=generator).tolist()
        drawn = bootstrap(values, [str(i) for i in range(20)])
        covered += not (drawn.above(0.0) or drawn.below(0.0))
    assert 170 <= covered <= 200  # 95 % of 200, less what twenty values cost
    with pytest.raises(ValueError, match="as many groups"):
        bootstrap([], [])


def test_a_codec_is_measured_with_intervals(oracle: Codec, speech: SpeechSet) -> None:
    class Constant:
        name = "constant"

        def transcribe(self, wave_S: Tensor) -> str:
            return "we went"

    codec = VoxtralReconstructor(oracle, "mini")
    found = evaluate_codec(codec, speech, MetricModels([Ge2eEmbedder.load()], [Constant()]))
    assert found.kbps == pytest.approx((10 + 36 * math.log2(21)) * 12.5 / 1000)
    assert found.mel_distance.mean > 0 and found.mel_distance.groups == NAMES
    assert 0 < found.similarity["ge2e"].mean <= 1
    assert found.cer["constant"] == found.recordings_cer["constant"] == pytest.approx(5 / 12)
    assert found.wer["constant"] == pytest.approx(1 / 3)
    assert json.loads(json.dumps(found.to_json()))["schema"] == "voxclone.reconstruction/2"

    class Perfect:
        name, kbps = "perfect", 384.0

        def reconstruct(self, wave_S: Tensor) -> Tensor:
            return wave_S

    assert evaluate_codec(Perfect(), speech, MetricModels()).mel_distance.mean == 0


@pytest.mark.slow
def test_another_device_has_the_same_scores(
    release: Release, oracle: Codec, speech: SpeechSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encoders._encoded  # in fp32, since the fake device has no modules in bf16
    monkeypatch.setattr(encoders, "_encoded", lambda codec, wave_BS, *_: encoded(codec, wave_BS))
    few = SpeechSet(speech.utterances[:2])

    def scores(device: str) -> list[object]:
        codec = copy.deepcopy(oracle).to(device)
        report = evaluate_encoder(release, codec, few, codec, name="x")
        again_S = VoxtralReconstructor(codec, "x").reconstruct(few.utterances[0].wave_S)
        return [report, again_S.device.type, round(float(again_S.norm()), 3)]

    near = scores("cpu")
    with fake_device():
        far = scores(FAKE_DEVICE)
    assert near == far


def test_the_oracle_has_every_score_of_an_oracle(
    release: Release, oracle: Codec, speech: SpeechSet
) -> None:
    found = evaluate_encoder(release, oracle, speech, oracle, name="oracle")
    assert found.oracle is not None
    assert (
        found.oracle.real.semantic.mean == found.oracle.embedding_cosine.mean == pytest.approx(1.0)
    )
    assert found.oracle.decoded == found.oracle.bound
    assert found.oracle.normalized["within_one"].mean >= 1.0
    assert found.presets.within_one.mean > found.presets_by_chance.within_one.mean + 0.2
    assert evaluate_encoder(release, oracle, speech, None, name="x").oracle is None


def test_voices_are_measured_by_length_of_reference(
    release: Release, oracle: Codec, mini_tts: TTS, speech: SpeechSet
) -> None:
    plan = CloningPlan(lengths=(2.0, 60.0), sentences=1, seeds=(0,))
    found = evaluate_cloning(release, oracle, mini_tts, speech, GE2E, plan, name="oracle")
    assert [scores.seconds for scores in found.scores] == [2.0] and "60 s" in found.missing
    scores = found.scores[0]
    assert scores.speakers == NAMES and scores.utterances == NAMES
    similarity = scores.similarity["ge2e"]
    assert similarity.cross_speaker is not None and similarity.difference is not None
    assert similarity.difference.mean == pytest.approx(
        similarity.same_speaker.mean - similarity.cross_speaker.mean
    )
    assert 0 <= scores.ended.mean <= 1 and scores.pace.mean > 0
    assert [each.seconds for each in found.examples] == [2.0] * NAMES
    (table,) = [each for each in tables_of(found.to_json()) if each.title == "Speech"]
    pace = {row.label: row for row in table.rows}["pace"]
    assert table.headings == ("2 s",)
    assert pace.cells[0].text.startswith(f"{scores.pace.mean:.2f} (")
    alone = SpeechSet(speech.utterances[:2])
    with pytest.raises(ConfigError, match="two speakers"):
        evaluate_cloning(release, oracle, mini_tts, alone, MetricModels(), plan, name="x")
    reference_S, used = join_reference(speech.utterances[:2], 3.0)
    assert reference_S is not None and len(reference_S) == 72000 and used == 2


def test_the_commands_write_their_reports(speech: SpeechSet, tmp_path: Path) -> None:
    for each in speech.utterances[:4]:
        path = tmp_path / "speech" / each.speaker / f"{each.clip.id}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, each.wave_S.numpy(), 24000)
    given = ["--speech", str(tmp_path / "speech"), "--out", str(tmp_path / "found")]
    result = CliRunner().invoke(app, ["evaluate", "codec", *given])
    assert result.exit_code == 0, result.output
    assert "mel distance" in result.output
    stored = json.loads((tmp_path / "found" / "report.json").read_text(encoding="utf-8"))
    assert stored["speakers"] == 2 and stored["wer"] == {}
    shown = (tmp_path / "found" / "report.html").read_text(encoding="utf-8")
    assert shown.count("<audio") == 4 and "Mel distance" in shown
    given[-1] = str(tmp_path / "again")
    before = [*given, "--baseline", str(tmp_path / "found" / "report.json")]
    result = CliRunner().invoke(app, ["evaluate", "codec", *before])
    assert result.exit_code == 0 and "before" in result.output
    result = CliRunner().invoke(app, ["evaluate", "encoder", *before])
    assert isinstance(result.exception, UsageError)
    assert "exists and is no report of the kind voxclone.encoder" in str(result.exception)
    given[-1] = before[3] = str(tmp_path / "other")
    result = CliRunner().invoke(app, ["evaluate", "encoder", *before])
    assert isinstance(result.exception, UsageError)
    assert "voxclone.encoder/2" in str(result.exception)
    wrong = CliRunner().invoke(app, ["evaluate", "codec", *given, "--embedder", "nobody"])
    assert isinstance(wrong.exception, UsageError) and "ge2e" in str(wrong.exception)


@pytest.mark.slow
def test_reports_of_every_kind_become_tables_and_pages(
    release: Release, oracle: Codec, mini_tts: TTS, speech: SpeechSet
) -> None:
    few = SpeechSet(speech.utterances[:4])
    plan = CloningPlan(lengths=(1.0, 2.0), sentences=1, seeds=(0,))
    reports = [
        evaluate_cloning(release, oracle, mini_tts, few, GE2E, plan, name="x").to_json(),
        evaluate_encoder(release, oracle, few, oracle, name="x").to_json(),
        evaluate_codec(VoxtralReconstructor(oracle, "mini"), few, GE2E).to_json(),
    ]
    for report in reports:
        report = json.loads(json.dumps(report))
        cells = [c for table in tables_of(report) for row in table.rows for c in row.cells]
        assert cells and any("(" in cell.text for cell in cells)
        text = page(report)
        assert all(html.escape(sentence) in text for sentence in summary_of(report))
        assert 'class="changed"' not in page(report, (), report)
    assert "<polyline" in page(json.loads(json.dumps(reports[0])))


def test_values_that_differ_are_marked() -> None:
    def table(low: float, high: float) -> Table:
        value = {"mean": (low + high) / 2, "low": low, "high": high}
        return Table("t", (), (Row("a", (Cell(value),)), Row("b", (Cell(1.0, "{:.0f}"),))))

    beside, marks = compare(table(0.1, 0.2), [table(0.3, 0.4)])
    assert beside.headings == ("now", "before")
    assert beside.rows[0].cells[1].text == "0.350 (0.300 to 0.400)"
    assert marks == [[False, True], [False, False]]
    assert compare(table(0.1, 0.2), [table(0.15, 0.4)])[1][0] == [False, False]
    assert compare(table(0.1, 0.2), [])[0].rows[1].cells[1].text == "not measured"


@pytest.mark.slow
def test_dnsmos_rates_noise() -> None:
    predictor = Dnsmos()
    clean_S = torch.from_numpy(read_wave(ROOT / "examples" / "reference.flac"))[: 9 * SAMPLING_RATE]
    noise_S = torch.randn(clean_S.shape, generator=torch.Generator().manual_seed(0))
    clean, noisy = (predictor.predict(each) for each in (clean_S, clean_S + 0.1 * noise_S))
    assert set(clean) == {"overall", "speech", "background", "p808"}
    assert all(1 <= value <= 5 for value in [*clean.values(), *noisy.values()])
    assert clean["background"] > noisy["background"] + 0.5
    missing: dict[str, str] = {}
    found = mean_mos(predictor, [clean_S, torch.zeros(100)], ["a", "b"], missing)
    assert found["overall"].mean == pytest.approx(clean["overall"]) and not missing


def test_an_absent_predictor_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "speechmos", None)
    missing: dict[str, str] = {}
    assert mean_mos(Dnsmos(), [torch.ones(24000)], ["a"], missing) == {}
    assert "voxclone[eval]" in missing["dnsmos"]


def test_mimi_is_measured_by_the_same_table(tmp_path: Path, speech: SpeechSet) -> None:
    """A tiny random Mimi: its length and its bit rate."""
    transformers = pytest.importorskip("transformers")
    config = transformers.MimiConfig(
        hidden_size=16, num_filters=2, num_residual_layers=1, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, head_dim=8, intermediate_size=16,
        codebook_size=2048, codebook_dim=8, vector_quantization_hidden_dimension=8,
        num_quantizers=4, upsample_groups=16,
    )  # fmt: skip
    transformers.MimiModel(config).save_pretrained(tmp_path)
    codec = MimiReconstructor(str(tmp_path), codebooks=4)
    assert codec.kbps == pytest.approx(4 * 11 * 12.5 / 1000)
    wave_S = speech.utterances[0].wave_S[:30001]
    assert codec.reconstruct(wave_S).shape == wave_S.shape
    found = evaluate_codec(codec, SpeechSet(speech.utterances[:2]), MetricModels())
    assert found.codec == "mimi-4" and found.mel_distance.mean > 0
    with pytest.raises(VoxcloneError, match="Comparing with Mimi"):
        MimiReconstructor(str(tmp_path / "nowhere"))
