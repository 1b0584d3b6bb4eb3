"""Every recipe that is shipped trains, at a tiny size."""

from pathlib import Path

import pytest
import torch

from tests.evaluate.test_wer import _save_whisper
from tests.golden.draw import drawn_codec
from tests.train.test_tasks import CODEC
from voxclone.config import load_settings
from voxclone.data.corpus import Corpus
from voxclone.models.ctc_asr import Recogniser, RecogniserConfig
from voxclone.models.whisper import WhisperTeacher
from voxclone.train.asr_distillation import TargetStore
from voxclone.train.channel import Label
from voxclone.train.defects import Defects, misalign
from voxclone.train.encoder import EncoderTask
from voxclone.train.encoder_settings import EncoderTraining

CONFIGS = Path(__file__).parents[2] / "configs" / "encoder"
TINY = [
    "run.autocast=false", "run.steps=40", "optimiser.warmup_steps=1", "frames=25", "real_batch=2",
    "pair_batch=2", "told_batch=2", "real_from=0", "adversary.channels=2", "adversary_from=0",
    "adversary.n_ffts=[334, 76]",
    "channel.at=[39]",  # labels are held from the beginning
    "weights.cloned=0",  # it needs a language model of the same sizes: test_cloned
]  # fmt: skip
EVERY = {"pair_semantic", "pair_levels", "cycle_semantic", "cycle_levels"}


def tiny_task(name: str, corpus: Corpus, folder: Path, *overrides: str) -> EncoderTask:
    settings = load_settings(EncoderTraining, CONFIGS / f"{name}.yaml", [*TINY, *overrides])
    codec = drawn_codec(CODEC)
    generator = torch.Generator().manual_seed(0)
    genuine = [
        torch.cat(
            [
                torch.randint(16, (1, 9), generator=generator),
                torch.randint(5, 16, (3, 9), generator=generator),
            ]
        )
        for _ in range(6)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher = Recogniser(RecogniserConfig(characters=" abc", dim=8, blocks=1))
    whisper = None
    if settings.whisper:
        model = folder / "model"
        if not model.exists():
            model.mkdir()
            _save_whisper(model)
        whisper = TargetStore(misalign(WhisperTeacher(str(model)), settings.defects), folder)
    # The labels are there already, so no model is asked.
    model_stub = object() if settings.weights.told else None
    subset = corpus.subset(lambda clip: True)
    task = EncoderTask.create(
        settings, codec, genuine, {"p": genuine[0]}, corpus, subset, teacher, model_stub, folder,  # type: ignore[arg-type]
        whisper,
    )  # fmt: skip
    if task.told is not None:
        frames = 30
        label = Label(torch.zeros(frames, 1, dtype=torch.long), torch.ones(frames, 1))
        task.told.hold({0: label, 1: label})
    return task


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_every_recipe_trains(name: str, corpus: Corpus, tmp_path: Path) -> None:
    task = tiny_task(name, corpus, tmp_path)
    encoder = task.codec.require_encoder()
    before = torch.cat([p.detach().flatten().clone() for p in encoder.parameters()])
    rows = [task.train_step(step) for step in range(2)]
    told = {key.removeprefix("loss/") for row in rows for key in row}
    weights = task.settings.weights.model_dump(exclude={"waveform"})
    wanted = {key for key, value in weights.items() if value} - EVERY
    assert wanted <= told, wanted - told
    assert all(bool(torch.isfinite(value).all()) for row in rows for value in row.values())
    after = torch.cat([p.detach().flatten() for p in encoder.parameters()])
    assert not torch.equal(before, after)


def test_the_mended_recipe_differs_from_the_published_one_by_what_was_mended() -> None:
    published, mended = (
        load_settings(EncoderTraining, CONFIGS / f"{name}.yaml")
        for name in ("community_v3", "community_v3_mended")
    )
    assert mended.defects == Defects()
    changed = {
        key
        for key, value in published.model_dump().items()
        if value != mended.model_dump()[key] and key not in ("defects", "weights")
    }
    assert changed == {"match_codebook"}
    moved = {
        key
        for key, value in published.weights.model_dump().items()
        if value != mended.weights.model_dump()[key]
    }
    assert moved == {"diversity", "usage_prior", "shaping", "level_prior"}


def test_a_recipe_that_hears_clones_says_who_listens() -> None:
    found = [load_settings(EncoderTraining, path) for path in CONFIGS.glob("*.yaml")]
    hearing = [settings for settings in found if settings.weights.cloned]
    assert hearing
    for settings in hearing:
        assert settings.listener is not None and settings.cloned_from < settings.run.steps


def test_no_other_recipe_has_a_defect() -> None:
    for path in CONFIGS.glob("*.yaml"):
        if path.stem != "community_v3":
            assert load_settings(EncoderTraining, path).defects == Defects(), path


def test_the_speaker_loss_is_heard_every_fourth_step(corpus: Corpus, tmp_path: Path) -> None:
    task = tiny_task("community_v3", corpus, tmp_path)
    heard = ["loss/speaker" in task.train_step(step) for step in range(6)]
    assert heard == [True, False, False, False, True, False]
    assert set(task.state.values["balancer"]) == {"mel", "l1", "magnitude", "speaker", "feature"}
