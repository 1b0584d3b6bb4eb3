"""The whole recipe at a tiny size: every stage, resuming, publishing, and a recovery."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from recipes.mini_release import recipe
from recipes.mini_release import run as runs
from recipes.mini_release.language_model import fresh_model
from recipes.mini_release.layout import mini_params
from recipes.mini_release.publish import publish
from recipes.mini_release.recipe import make
from recipes.mini_release.run import (
    InterruptedRecipe,
    MiniSettings,
    Options,
    Run,
    module_of,
    open_run,
    read_weights,
)
from recipes.mini_release.synthetic import SyntheticVoice, synthesize
from recipes.mini_release.teacher import PER_FRAME
from recipes.mini_release.transcripts import texts_of
from tests.helpers.signals import speech
from tests.recipes.conftest import MODEL
from voxclone.codec.model import Codec
from voxclone.config import load_settings
from voxclone.data.corpus import Corpus
from voxclone.data.pairs import PairSettings, speak_pairs
from voxclone.errors import ConfigError
from voxclone.evaluate.encoder import evaluate_encoder
from voxclone.evaluate.speechset import list_clips, load_speech
from voxclone.mini.oracle import oracle_codec
from voxclone.models.ctc_asr import load_recognizer
from voxclone.models.speaker_network import load_speaker_network
from voxclone.release.encoder_file import codebook_hash, open_codec
from voxclone.release.inspection import inspect_release
from voxclone.release.release import Release, load_preset, preset_names
from voxclone.train import encoder
from voxclone.train.encoder_config import EncoderConfig
from voxclone.train.material import Inputs
from voxclone.tts.tts import TTS
from voxclone.voice.presets import preset_codes

QUIET = Console(quiet=True)
WEIGHTS = Path(recipe.__file__).parent / "weights"
SPEAKERS = {"ada": "train", "ben": "train", "cid": "valid", "dan": "test", "eve": "test"}
SETS = {
    "release": ["ada", "ben"], "validation": ["cid"], "test": ["dan", "eve"], "recovery": ["gil"],
}  # fmt: skip
TEXTS = ("we went along", "a dog sat down", "no more of it", "so it is then")
FEW = {"steps": 2, "validate_every": 2, "save_every": 2, "autocast": False}
RATES = {"lr": 1e-3, "warmup_steps": 1}
CODEC = {
    "run": FEW, "optimizer": RATES | {"muon": True}, "crops": {"batch": 2, "frames": 4},
    "quantize_from": 1, "discriminators_from": 1,
    "discriminators": {"n_ffts": [256], "channels": 4, "frames": 2},
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "licenses": ["CC0-1.0"],
    "recognizer": {
        "run": FEW, "optimizer": RATES, "batch_seconds": 4, "min_character_count": 1, "dim": 16,
        "blocks": 1,
    },
    "speaker_network": {
        "run": FEW, "optimizer": RATES, "batch": 2, "seconds": 0.5, "dim": 8, "blocks": 1,
    },
    "codec": {
        "semantic_codebook_size": 16, "semantic_dim": 6, "acoustic_dim": 3, "dim": 16,
        "hidden_dim": 24, "head_dim": 8, "n_heads": 2, "n_kv_heads": 2,
    },
    "codec_training": CODEC,
    "decoder_training": CODEC | {"decoder_only": True, "discriminators_from": 0},
    "speeds": [1.0, 0.9],
    "language_model": MODEL.model_dump(),
    "speech": {
        "run": FEW, "optimizer": RATES | {"muon": True}, "flow_frames": 50, "sampled_frames": 4,
        "examples": {"voice_frames": [4, 10], "target_frames": [4, 60], "shapes": [[3, 60]]},
    },
    "presets": {"en_one": "ada", "en_two": "ben"},
    "preset_seconds": 1,
}  # fmt: skip
STAGES = list(recipe.STAGES)


def robot(name: str) -> SyntheticVoice:
    def speak(text: str, length: float) -> np.ndarray:
        return speech([0.05 * len(text) * length], [0.1, 0.1])

    return SyntheticVoice(name, "CC0-1.0", speak)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, whisper: Path) -> Options:
    """Speech, its sets of speakers, Whisper, and the folder of a run."""
    folder = tmp_path_factory.mktemp("mini")
    rows = []
    for s, (speaker, split) in enumerate(SPEAKERS.items()):
        for c, text in enumerate(TEXTS):
            wave = speech([1.2 + 0.1 * c, 0.6 + 0.1 * s], [0.05, 0.1, 0.1])
            path = folder / f"{speaker}-{c}.flac"
            soundfile.write(path, wave, 24000)
            row = {"id": path.stem, "path": path.name, "speaker": speaker, "text": text}
            row |= {"duration": len(wave) / 24000, "split": split, "language": "en"}
            rows.append(row | {"license": "GPL-3.0" if (speaker, c) == ("ada", 3) else "CC0-1.0"})
    manifest, sets = folder / "manifest.jsonl", folder / "speakers.json"
    manifest.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    sets.write_text(json.dumps(SETS), encoding="utf-8")
    return Options(manifest, whisper, folder / "run", sets, kokoro=folder, device="cpu")


@pytest.fixture(scope="module")
def small(options: Options) -> Any:
    """Two synthetic voices, few sentences, and few clips to measure; no speech is generated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "joe", lambda: robot("joe"))
        patch.setattr(recipe, "kokoro", lambda folder, blends: [robot("a"), robot("b")])
        path = options.out.parent / "sentences.txt"
        path.write_text("the sun is up\nit was a dog\n", encoding="utf-8")
        patch.setattr(recipe, "SENTENCES", path)
        patch.setattr(recipe, "READER", "ada")
        patch.setattr(
            "recipes.mini_release.progress.SETS", (("dan", "test", 2), ("eve", "test", 2))
        )
        patch.setattr(
            "recipes.mini_release.progress.VOICES", {"presets": ("ada",), "clones": ("dan", "eve")}
        )
        (options.out.parent / "texts.txt").write_text("it is\na dog\n", encoding="utf-8")
        patch.setattr("recipes.mini_release.progress.TEXTS", options.out.parent / "texts.txt")
        yield None


@pytest.fixture(scope="module")
def finished(options: Options, small: None) -> Run:
    """A finished run, whose stages were first asked for out of order."""
    run = open_run(MiniSettings.model_validate(SETTINGS), options, QUIET)
    for needed, stage in (
        ("recognizer", "codec"), ("speaker_network", "codec"), ("transcripts", "codec"),
        ("codec", "decoder"),
        ("codec", "speech"),
    ):  # fmt: skip
        for earlier in STAGES[: STAGES.index(needed)]:
            make(run, earlier)
        with pytest.raises(ConfigError, match=f"stage {needed}.*has not begun.*finish it first"):
            make(run, stage)
    make(run)
    return run


@pytest.fixture(scope="module")
def published(finished: Run) -> Path:
    folder = finished.folder.parent / "assets"
    publish(finished, folder)
    (folder / "release" / "stray").write_text("of an earlier call")
    publish(finished, folder)
    return folder


def test_only_licensed_speech_of_the_release_s_speakers_is_trained_on(finished: Run) -> None:
    assert all(clip.license == "CC0-1.0" for clip in finished.corpus.clips)
    clips = [finished.corpus.clips[i] for i in finished.split("train").indices]
    assert {clip.speaker for clip in clips} == {"ada", "ben"} and len(clips) == 7
    spoken = recipe.spoken_corpus(finished).clips
    assert {clip.speaker for clip in spoken} == {"ada", "ben", "cid", "joe", "a", "b"}
    assert sum(clip.speaker == "joe" for clip in spoken) == 2 + 3
    assert not (finished.folder / "recordings" / "left_out.json").read_text().strip("{}")


def test_a_finished_stage_is_left_alone(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "fit", None)  # nobody may train
    monkeypatch.setattr(recipe, "align_corpus", None)
    make(finished)
    other = finished.settings.model_copy(update={"codec": finished.settings.codec.model_copy(
        update={"semantic_dim": 8}
    )})  # fmt: skip
    with pytest.raises(ConfigError, match="semantic_dim"):
        make(replace(finished, settings=other), "codec")


def test_there_is_a_line_for_each_validation(finished: Run) -> None:
    for name in ("codec", "speech"):
        lines = (finished.folder / f"progress-{name}.tsv").read_text().splitlines()
        rows = [line.split("\t") for line in lines]
        assert len(rows) == (3 if name == "codec" else 2)  # codec and decoder share a table
        assert len({len(row) for row in rows}) == 1 and rows[0][:2] == ["time", "step"]
        assert all(np.isfinite([float(value) for value in row[1:]]).all() for row in rows[1:])


def test_a_stage_stops_in_time_and_goes_on(finished: Run, tmp_path: Path) -> None:
    settings = finished.settings.model_copy(
        update={"recognizer": finished.settings.recognizer.model_copy(
            update={"run": finished.settings.recognizer.run.model_copy(update={"steps": 3})}
        )}
    )  # fmt: skip
    options = replace(finished.options, out=tmp_path, minutes=0.0)
    for step in (1, 2):
        with pytest.raises(InterruptedRecipe, match=rf"stopped at step {step} \(time\)"):
            make(open_run(settings, options, QUIET), "recognizer")
    run = open_run(settings, replace(options, minutes=None), QUIET)
    make(run, "recognizer")
    assert run.finished("recognizer").step == 3


def test_whisper_s_states_are_made_in_time_and_gone_on_with(finished: Run, tmp_path: Path) -> None:
    (tmp_path / "transcripts.json").symlink_to(finished.folder / "transcripts.json")
    run = replace(finished, options=replace(finished.options, out=tmp_path), deadline=0.0)
    with pytest.raises(InterruptedRecipe, match="stopped after 1 of 2"):
        make(run, "teacher")
    assert len(list((tmp_path / "teacher").iterdir())) == 1
    make(replace(run, deadline=None), "teacher")
    assert len(list((tmp_path / "teacher").iterdir())) == 2


def test_a_stage_starts_from_weights(finished: Run, tmp_path: Path) -> None:
    """With no steps to go, the stage holds the weights of the file."""
    given = {
        name: tensor + 0.25 if "codec.decoder" in name else tensor
        for name, tensor in finished.finished("codec").tensors.items()
        if name.startswith("module.")
    }
    save_file(given, tmp_path / "weights.safetensors")
    settings = MiniSettings.model_validate(
        SETTINGS | {"codec_training": CODEC | {"run": FEW | {"steps": 0}}}
    )
    options = replace(finished.options, start={"codec": tmp_path / "weights.safetensors"})
    run = replace(finished, settings=settings, options=options)
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("recognizer", "speaker_network", "teacher", "transcripts.json"):
        (folder / name).symlink_to(finished.folder / name)
    run = replace(run, options=replace(options, out=folder))
    make(run, "codec")
    found = run.finished("codec").tensors
    assert all(torch.equal(found[name], tensor) for name, tensor in given.items())
    with pytest.raises(ConfigError, match="stages are recognizer"):
        make(replace(run, options=replace(options, start={"codex": folder})), "codec")


def test_whisper_fills_in_and_contradicts(corpus: Corpus) -> None:
    transcripts = {"ada-0": "we go", "ada-1": "something else entirely", "ada-2": ""}
    texts = texts_of(corpus, [0, 1, 2, 3], transcripts)
    assert texts == {0: "we go", 1: "something else entirely", 2: "no more", 3: "so it is"}


def test_synthetic_speech_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    asked = []

    def speak(text: str, length: float) -> np.ndarray:
        asked.append(text)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return speech([0.5 * length], [0.1, 0.1])

    voices = [SyntheticVoice(name, "CC0-1.0", speak) for name in ("x", "y")]
    with pytest.raises(KeyboardInterrupt):
        synthesize(["a", "b", "c"], voices, tmp_path)
    manifest = synthesize(["a", "b", "c"], voices, tmp_path)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert asked == ["a", "b", "c", "c"]
    assert [(row["speaker"], row["text"]) for row in rows] == [("x", "a"), ("y", "b"), ("x", "c")]


def test_a_published_release_withholds_its_encoder(published: Path) -> None:
    release = Release.open(published / "release")
    found = inspect_release(release)
    assert found.encoder == "withheld" and not found.problems
    assert preset_names(release) == ["en_one", "en_two"]
    assert load_preset(release, "en_one").dtype == torch.bfloat16
    assert load_recognizer(published / "recognizer").config.dim == 16
    assert load_speaker_network(published / "voices").trunk.config.dim == 8
    assert not (published / "release" / "stray").exists()
    assert {path.name for path in published.parent.glob(".*")} == set()


def test_presets_are_the_oracle_s_codes(published: Path) -> None:
    """Rows of a preset invert to codes exactly, and the oracle belongs to this codebook."""
    release = Release.open(published / "release")
    assert set(preset_codes(release).exact.values()) == {1.0}
    assert oracle_codec(release, published).encoder is not None
    assert len(codebook_hash(release)) == 64


def test_publishing_leaves_all_or_nothing(
    published: Path, finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.read_bytes() for p in published.rglob("*") if p.is_file()}
    monkeypatch.setattr("recipes.mini_release.publish.save_speaker_network", None)
    with pytest.raises(TypeError):
        publish(finished, published)
    assert {p: p.read_bytes() for p in published.rglob("*") if p.is_file()} == before
    assert {path.name for path in published.parent.glob(".*")} == set()


def test_an_encoder_is_recovered_for_it(published: Path, options: Options, tmp_path: Path) -> None:
    release = Release.open(published / "release")
    few = PairSettings(batch=2, min_frames=1)
    speak_pairs(release, TTS.load(release), TEXTS, few, 0.02, tmp_path / "pairs")
    config = EncoderConfig.model_validate(
        {
            "run": FEW, "licenses": ["CC0-1.0"], "pairs": {"folder": str(tmp_path / "pairs")},
            "pair_batch": 2, "real_batch": 2, "frames": 4, "real_from": 0,
        }
    )  # fmt: skip
    inputs = Inputs(str(published / "release"), options.speech)
    assert encoder.main(config, inputs, tmp_path / "run", QUIET, resume=False) == 0
    recovered = open_codec(release, tmp_path / "run" / "encoder.safetensors")
    oracle = oracle_codec(release, published)
    given = load_speech(list_clips(options.speech))
    report = evaluate_encoder(release, recovered, given, oracle, name="ours").to_json()
    assert 0 <= report["oracle"]["real"]["semantic"]["mean"] <= 1
    names = load_file(published / "release" / "consolidated.safetensors").keys()
    assert not any("encoder" in name for name in names)


@pytest.mark.parametrize("path", sorted(WEIGHTS.glob("*.safetensors")), ids=lambda p: p.stem)
def test_the_weights_to_go_on_from_are_of_the_config(path: Path) -> None:
    settings = load_settings(MiniSettings, WEIGHTS.parent / "mini.yaml")
    found = read_weights(path)
    if path.stem == "codec":
        codec = Codec(settings.codec)
        codec.load_state_dict(module_of(found, "codec"))
        width, dim = settings.codec.semantic_dim, 512  # of Whisper base
        assert found["module.projections.asr.weight"].shape == (dim, width)
        assert found["module.projections.states.weight"].shape == (PER_FRAME * dim, width)
    else:
        params = mini_params(settings.language_model, settings.codec, {})
        for name, module in zip(("backbone", "head"), fresh_model(params, 0), strict=True):
            module.load_state_dict(module_of(found, name))


def test_weights_in_eight_bits_have_a_scale_for_each_row(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    codes, scale = torch.tensor([[1, -2], [127, 0]], dtype=torch.int8), torch.tensor([0.5, 0.01])
    save_file({"m.weight": codes, "m.weight.scale": scale, "m.bias": torch.ones(2)}, path)
    found = read_weights(path)
    assert found.keys() == {"m.weight", "m.bias"}
    torch.testing.assert_close(found["m.weight"], torch.tensor([[0.5, -1.0], [1.27, 0.0]]))
    save_file({"m.weight": codes}, path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_weights(path)
