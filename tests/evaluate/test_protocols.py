"""Published test lists are read in their own format and scored by their own rules."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from typer.testing import CliRunner

from voxclone.cli.app import app
from voxclone.errors import ConfigError
from voxclone.evaluate.cache import CachedEmbedder, CachedTranscriber
from voxclone.evaluate.metric_models import MetricModels
from voxclone.evaluate.protocols import read_minimax, read_seed_tts, read_syntheses, score_list
from voxclone.evaluate.report.contents import tables_of
from voxclone.evaluate.synthesis import Synthesis

ROOT = Path(__file__).parents[2]


def tone(path: Path, hertz: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.2 * np.sin(2 * np.pi * hertz * np.arange(36000) / 24000)
    soundfile.write(path, samples, 24000)


@pytest.fixture
def test_list(tmp_path: Path) -> Path:
    tone(tmp_path / "prompt-wavs" / "a.wav", 200)
    tone(tmp_path / "prompt-wavs" / "b.wav", 300)
    path = tmp_path / "meta.lst"
    path.write_text(
        "one|we met|prompt-wavs/a.wav|good morning\n"
        "two|we met|prompt-wavs/b.wav|good evening to you|wavs/two.wav\n\n",
        encoding="utf-8",
    )
    return path


class Pitch:
    """A speaker encoder for tones."""

    name = "pitch"

    def embed(self, wave_S: Tensor) -> Tensor:
        vector = torch.zeros(40)
        vector[int(torch.fft.rfft(wave_S[:24000]).abs().argmax()) // 20] = 1.0
        return vector


class Constant:
    """A recognizer with one transcript."""

    name = "constant"

    def transcribe(self, wave_S: Tensor) -> str:
        return "Good morning!"


def test_seed_tts_is_read_and_scored(test_list: Path, tmp_path: Path) -> None:
    sentences = read_seed_tts(test_list)
    assert [(s.id, s.text) for s in sentences] == [
        ("one", "good morning"),
        ("two", "good evening to you"),
    ]
    tone(tmp_path / "made" / "one.wav", 200)
    with pytest.raises(ConfigError, match=r"lacks 1 of 2 files, such as two\.wav"):
        read_syntheses(sentences, tmp_path / "made")
    tone(tmp_path / "made" / "two.wav", 200)
    syntheses = read_syntheses(sentences, tmp_path / "made")
    models = MetricModels([Pitch()], [Constant()])
    found = score_list(sentences, syntheses, models)
    similarity = found.similarity["pitch"]
    assert similarity.same_speaker.mean == similarity.cross_speaker.mean == 0.5
    assert similarity.difference.mean == 0.0 and found.silent == []
    assert found.wer["constant"].mean == pytest.approx(
        (0 + 3 / 4) / 2
    )  # of sentences, not of words
    assert found.ended is None and "ended by itself" in found.missing
    assert found.early.mean == 0 and found.level is not None
    assert found.level.mean == pytest.approx(-17, abs=0.5)
    syntheses[0] = Synthesis(sentences[0].speaker, "good morning", torch.zeros(0), ended=False)
    silent = score_list(sentences, syntheses, models)
    assert silent.silent == ["one"] and silent.wer["constant"].mean == pytest.approx(
        (1 + 3 / 4) / 2
    )
    assert silent.early.mean == 0.5 and silent.ended is not None
    assert silent.ended.mean == 0  # of the one that is known
    assert json.loads(json.dumps(silent.to_json()))["schema"] == "voxclone.protocol/3"


def test_seeds_are_scored_together_and_one_speaker_has_no_cross_similarity(test_list: Path) -> None:
    sentences = read_seed_tts(test_list)[:1]
    tone_S = 0.2 * torch.sin(2 * torch.pi * 200 * torch.arange(36000) / 24000)
    speaker, text = sentences[0].speaker, "good morning"
    syntheses = [Synthesis(speaker, text, tone_S, ended) for ended in (True, False)]
    found = score_list(sentences, syntheses, MetricModels([Pitch()]))
    assert found.seeds == 2 and found.ended is not None and found.ended.mean == 0.5
    assert found.similarity["pitch"].cross_speaker is None
    assert "cross-speaker similarity" in found.missing
    rows = {row.label: row for table in tables_of(found.to_json()) for row in table.rows}
    assert rows["pitch, same speaker"].cells[0].text.startswith("1.000")
    assert rows["pitch, difference"].cells[0].text == "not measured"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("one|we met|prompt-wavs/a.wav", "has 3 fields"),
        ("one|we met|prompt-wavs/c.wav|hello", r"c\.wav, which is not there"),
        ("", "has no sentence"),
        ("a|b|prompt-wavs/a.wav|c\na|b|prompt-wavs/a.wav|c", "'a' twice"),
    ],
)
def test_a_bad_list_is_refused_with_its_line(test_list: Path, text: str, reason: str) -> None:
    test_list.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=reason):
        read_seed_tts(test_list)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_seed_tts(test_list.with_name("none.lst"))


def test_minimax_is_read(tmp_path: Path) -> None:
    for speaker in ("dutch_female", "dutch_male"):
        tone(tmp_path / "speaker" / "dutch" / speaker / f"common_voice_{speaker}.wav", 200)
    (tmp_path / "text").mkdir()
    path = tmp_path / "text" / "dutch.txt"
    path.write_text("dutch_female|Goedemorgen.\ndutch_male|Tot ziens | dag.\n", encoding="utf-8")
    sentences = read_minimax(tmp_path, "dutch")
    assert [s.speaker for s in sentences] == ["dutch_female", "dutch_male"]
    assert sentences[1].text == "Tot ziens | dag." and sentences[0].id == "dutch_female-001"
    path.write_text("dutch_child|Hoi.\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="'dutch_child' has no recording"):
        read_minimax(tmp_path, "dutch")


def test_the_command_clones_every_prompt_of_a_list(tmp_path: Path) -> None:
    samples, rate = soundfile.read(ROOT / "examples" / "reference.flac")
    soundfile.write(tmp_path / "a.wav", samples, rate)
    test_list = tmp_path / "meta.lst"
    test_list.write_text("one|x|a.wav|we went home\ntwo|x|a.wav|never spoken", encoding="utf-8")
    command = ["evaluate", "speech", str(test_list), "--limit", "1", "--seeds", "2"]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "found")])
    assert result.exit_code == 0, (result.output, result.exception)
    stored = json.loads((tmp_path / "found" / "report.json").read_text(encoding="utf-8"))
    assert stored["sentences"] == 1 and stored["seeds"] == 2 and len(stored["similarity"]) == 1
    assert 0 <= stored["ended"]["mean"] <= 1 and stored["level"]["mean"] < 0


def test_results_are_cached_by_content(tmp_path: Path) -> None:
    class Counting(Pitch, Constant):
        name = "counting"
        calls = 0

        def embed(self, wave_S: Tensor) -> Tensor:
            self.calls += 1
            return super().embed(wave_S)

        def transcribe(self, wave_S: Tensor) -> str:
            self.calls += 1
            return super().transcribe(wave_S)

    counting = Counting()
    embedder = CachedEmbedder(counting, tmp_path)
    wave_S = 0.2 * torch.sin(torch.arange(24000) * 0.05)
    first = embedder.embed(wave_S)
    assert torch.equal(embedder.embed(wave_S.clone()), first) and counting.calls == 1
    embedder.embed(0.5 * wave_S)
    assert counting.calls == 2
    transcriber = CachedTranscriber(counting, tmp_path)
    assert transcriber.transcribe(wave_S) == "Good morning!" and counting.calls == 3
    for path in tmp_path.rglob("*.json"):
        path.write_text("{", encoding="utf-8")
    assert torch.equal(embedder.embed(wave_S), first) and counting.calls == 4
