"""The whole recipe at a tiny size: train, go on, publish, report, recover."""

import json
from pathlib import Path

import pytest
import soundfile
import torch
from rich.console import Console
from safetensors.torch import load_file

from recipes.mini_release import recipe
from recipes.mini_release.publish import publish
from recipes.mini_release.report import ReportSizes, report
from recipes.mini_release.workshop import MiniSettings, open_workshop
from tests.helpers.signals import speech
from voxclone.data.pairs import PairSettings, speak_pairs
from voxclone.errors import ConfigError
from voxclone.evaluate.metric_models import MetricModels
from voxclone.evaluate.report.contents import tables_of
from voxclone.evaluate.speechset import list_clips, load_speech
from voxclone.mini.oracle import oracle_codec
from voxclone.models.ctc_asr import load_recognizer
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.models.transcribers import CharacterTranscriber
from voxclone.release.encoder_file import codebook_hash, open_codec
from voxclone.release.inspection import inspect_release
from voxclone.release.release import Release, load_preset, preset_names
from voxclone.train import encoder
from voxclone.train.encoder_config import EncoderConfig
from voxclone.train.material import Inputs
from voxclone.tts.tts import TTS
from voxclone.voice.presets import preset_codes

QUIET = Console(quiet=True)
SPLITS = {"ada": "train", "ben": "train", "cid": "valid", "dan": "test", "eve": "test"}
TEXTS = ("we went along", "a dog sat down", "no more of it", "so it is then")
FEW = {"steps": 2, "validate_every": 2, "save_every": 2, "autocast": False}
SETTINGS = {
    "licences": ["CC0-1.0"],
    "recogniser": {
        "run": FEW, "batch_seconds": 4, "min_character_count": 1, "dim": 16, "blocks": 1,
    },
    "voices": {"run": FEW, "batch": 2, "seconds": 0.5, "dim": 8, "blocks": 1},
    "codec": {
        "semantic_codebook_size": 16, "semantic_dim": 6, "acoustic_dim": 3, "dim": 16,
        "hidden_dim": 24, "head_dim": 8, "n_heads": 2, "n_kv_heads": 2,
    },
    "codec_training": {
        "run": FEW, "batch": 2, "frames": 4, "quantise_from": 0, "consistency_from": 0,
        "adversary_from": 0, "adversary": {"n_ffts": [256], "channels": 4},
        "weights": {"heard": 1.0},
    },
    "decoder_training": {"run": FEW, "batch": 2, "frames": 4, "weights": {"heard": 1.0}},
    "speeds": [1.0],
    "delays": [0.0],
    "language_model": {
        "dim": 16, "n_layers": 3, "head_dim": 8, "hidden_dim": 16, "n_heads": 2, "n_kv_heads": 2,
        "acoustic_layers": 1, "acoustic_hidden_dim": 16,
    },
    "speech": {
        "run": FEW, "batch_positions": 120, "voice_frames": [4, 10], "target_frames": [4, 60],
    },
    "presets": {"en_one": "ada", "en_two": "ben"},
    "preset_seconds": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    rows = []
    for s, (speaker, split) in enumerate(SPLITS.items()):
        for c, text in enumerate(TEXTS):
            wave = speech([0.7 + 0.1 * c, 0.4 + 0.1 * s], [0.05, 0.1, 0.1])
            path = folder / f"{speaker}-{c}.flac"
            soundfile.write(path, wave, 24000)
            row = {"id": path.stem, "path": path.name, "speaker": speaker, "text": text}
            row |= {"duration": len(wave) / 24000, "split": split, "language": "en"}
            rows.append(row | {"license": "GPL-3.0" if (speaker, c) == ("ada", 3) else "CC0-1.0"})
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def published(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    settings = MiniSettings.model_validate(SETTINGS)
    for needed, stage in (
        ("recogniser", "codec"),
        ("voices", "codec"),
        ("codec", "speech"),
    ):
        with pytest.raises(ConfigError, match=f"stage {needed}.*has not begun.*finish it first"):
            recipe.run(settings, manifest, folder / "run", QUIET, stage=stage)
        recipe.run(settings, manifest, folder / "run", QUIET, stage=needed)
    recipe.run(settings, manifest, folder / "run", QUIET)
    shop = open_workshop(settings, manifest, folder / "run", QUIET)
    assert all(clip.license == "CC0-1.0" for clip in shop.corpus.clips)
    publish(shop, folder / "assets")
    publish(shop, folder / "assets")
    return folder / "assets"


def test_published_release_withholds_its_encoder(published: Path) -> None:
    release = Release.open(published / "release")
    found = inspect_release(release)
    assert found.encoder == "withheld" and not found.problems
    assert preset_names(release) == ["en_one", "en_two"]
    assert load_preset(release, "en_one").dtype == torch.bfloat16


def test_presets_are_the_oracle_s_codes(published: Path) -> None:
    """Rows of a preset invert to codes exactly, and the oracle belongs to this code book."""
    release = Release.open(published / "release")
    codes = preset_codes(release)
    assert set(codes.exact.values()) == {1.0}
    assert oracle_codec(release, published).encoder is not None
    assert len(codebook_hash(release)) == 64


def test_a_run_can_go_on_from_published_weights(
    published: Path, manifest: Path, tmp_path: Path
) -> None:
    """With no steps to go, what is published again is what was published."""
    none = {"run": FEW | {"steps": 0}}
    stages = ("codec_training", "decoder_training", "speech")
    values = SETTINGS | {stage: SETTINGS[stage] | none for stage in stages}
    settings = MiniSettings.model_validate(values | {"start": str(published)})
    recipe.run(settings, manifest, tmp_path / "run", QUIET)
    publish(open_workshop(settings, manifest, tmp_path / "run", QUIET), tmp_path / "assets")
    for name in ("release/consolidated.safetensors", "oracle/encoder.safetensors"):
        before, after = (load_file(folder / name) for folder in (published, tmp_path / "assets"))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), name


def test_recovery_and_report(published: Path, manifest: Path, tmp_path: Path) -> None:
    release = Release.open(published / "release")
    few = PairSettings(minutes=0.02, batch=2, min_frames=1)
    speak_pairs(release, TTS.load(release), TEXTS, few, tmp_path / "pairs")
    config = EncoderConfig.model_validate(
        {
            "run": FEW, "licenses": ["CC0-1.0"], "pairs": {"folder": str(tmp_path / "pairs")},
            "pair_batch": 2, "real_batch": 2, "frames": 4, "real_from": 0,
        }
    )  # fmt: skip
    inputs = Inputs(str(published / "release"), manifest)
    assert encoder.main(config, inputs, tmp_path / "run", QUIET, resume=False) == 0
    made = tmp_path / "run" / "encoder.safetensors"
    release = Release.open(published / "release")
    assert open_codec(release, made).encoder is not None
    recognizer = load_recognizer(published / "recogniser")
    models = MetricModels([Ge2eEmbedder.load()], [CharacterTranscriber(recognizer)])
    figures = report(
        release, load_speech(list_clips(manifest)), {"ours": made}, models, assets=published,
        sizes=ReportSizes(lengths=(1.0,), sentences=1, seeds=(0,), preset_sentences=1),
    )  # fmt: skip
    names = ["codec", "presets", "codes of oracle", "voices of oracle", "codes of ours",
             "voices of ours"]  # fmt: skip
    assert list(figures) == names and all(tables_of(figures[name]) for name in names)
    oracle = figures["codes of oracle"]["oracle"]
    assert oracle["real"]["exact"]["mean"] == 1.0  # the truth against itself
    assert 0 <= figures["codes of ours"]["oracle"]["real"]["semantic"]["mean"] <= 1
    scores = figures["voices of oracle"]["scores"][0]
    assert -1 <= scores["similarity"]["ge2e"]["difference"]["mean"] <= 1
    json.dumps(figures)
