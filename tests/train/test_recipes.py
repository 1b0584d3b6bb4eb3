"""Every recipe that is shipped trains, at a tiny size."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny_whisper import save_tiny_whisper
from tests.train.tiny import CPU, ctc_teacher, tiny_material
from voxclone.config import load_settings
from voxclone.data.corpus import Corpus
from voxclone.data.labels import Label
from voxclone.models.whisper import TargetStore, WhisperTeacher
from voxclone.train.encoder import EncoderTraining, build
from voxclone.train.encoder_config import EncoderConfig, packaged_config

CONFIGS = packaged_config("mini").parent
TINY = [
    "run.autocast=false", "run.steps=40", "optimizer.warmup_steps=1", "frames=25", "real_batch=2",
    "pair_batch=2", "pseudo_labels.batch=2", "real_from=0", "discriminators.channels=2",
    "discriminators.start=0",
    "pseudo_labels.label_steps=[39]",  # labels are held from the beginning
    "weights.speaker_contrastive=0",  # it needs a model of the same sizes: test_speaker_loss
]  # fmt: skip


def tiny_training(name: str, corpus: Corpus, folder: Path) -> EncoderTraining:
    config = load_settings(EncoderConfig, CONFIGS / f"{name}.yaml", TINY)
    teacher: Any = ctc_teacher()
    if config.teacher is not None and "whisper" in config.teacher:
        save_tiny_whisper(folder)
        teacher = TargetStore(WhisperTeacher(str(folder)), folder / "targets")
    # The labels are there already, so no model is asked.
    model: Any = object()
    speech = corpus.subset(lambda clip: True)
    material = tiny_material(speech, teacher=teacher, language_model=model, labels=folder)
    training = build(config, material, CPU)
    if training.objective.labels is not None:
        label = Label(torch.zeros(30, 1, dtype=torch.long), torch.ones(30, 1))
        training.objective.labels.hold({0: label, 1: label})
    return training


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_every_recipe_trains(name: str, corpus: Corpus, tmp_path: Path) -> None:
    training = tiny_training(name, corpus, tmp_path)
    encoder = training.encoder
    before = torch.cat([p.detach().flatten().clone() for p in encoder.parameters()])
    rows = [training.train_step(step) for step in range(2)]
    found = {key.removeprefix("loss/") for row in rows for key in row}
    wanted = {key for key, value in training.config.weights.model_dump().items() if value}
    assert wanted <= found, wanted - found
    assert all(bool(torch.isfinite(value).all()) for row in rows for value in row.values())
    after = torch.cat([p.detach().flatten() for p in encoder.parameters()])
    assert not torch.equal(before, after)


def test_a_recipe_with_the_speaker_loss_names_a_speaker_encoder() -> None:
    found = [load_settings(EncoderConfig, path) for path in CONFIGS.glob("*.yaml")]
    cloning = [config for config in found if config.weights.speaker_contrastive]
    assert cloning
    for config in cloning:
        assert config.speaker_loss.speaker_encoder is not None
        assert config.speaker_loss.start < config.run.steps
