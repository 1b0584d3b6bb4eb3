"""Whisper's targets train an encoder, in the place where each word was spoken."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.tiny_whisper import save_tiny_whisper
from tests.models.test_whisper import diagonal
from tests.train.tiny import mean, steps, training_of
from voxclone.data.corpus import Corpus
from voxclone.errors import ConfigError
from voxclone.models.whisper import AsrTargets, TargetStore, WhisperTeacher, token_shares
from voxclone.train.asr_distillation import WhisperDistillation, token_loss


def test_the_loss_is_zero_for_the_states_themselves_and_sees_a_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    state_LE = torch.randn(4, 8, generator=generator)
    share_LT = token_shares(diagonal(4, 80, 80), 80, 20)
    share_LT = (share_LT == share_LT.amax(dim=0)).float()
    target = AsrTargets(state_LE, share_LT / share_LT.sum(dim=1, keepdim=True))
    projection = nn.Linear(8, 8, bias=False)
    nn.init.eye_(projection.weight)

    def loss(given_BDT: torch.Tensor, start: int, left_context: int = 0) -> float:
        return token_loss(projection, given_BDT, [target], [start], left_context).item()

    spoken_BDT = (share_LT.T @ state_LE).T[None]
    assert loss(spoken_BDT, 0) < 1e-5
    assert loss(spoken_BDT.roll(5, dims=-1), 0) > 0.3
    crop_BDT = spoken_BDT[..., 5:15]
    assert loss(crop_BDT, 5) < 1e-5
    assert loss(crop_BDT, 0) > 0.3
    crop_BDT[..., :4] = -crop_BDT[..., :4]  # without a past
    assert loss(crop_BDT, 5) > 0.3 and loss(crop_BDT, 5, 3) > 0.05
    assert loss(crop_BDT, 5, 4) < 1e-5
    spoken_BDT[..., :4] = -spoken_BDT[..., :4]
    assert loss(spoken_BDT, 0, 4) > 0.1  # a clip's beginning has all the past that there is


@pytest.mark.parametrize("autocast", [False, True])
def test_an_encoder_learns_from_whisper(autocast: bool, tmp_path: Path, corpus: Corpus) -> None:
    (tmp_path / "model").mkdir()
    save_tiny_whisper(tmp_path / "model")
    store = TargetStore(WhisperTeacher(str(tmp_path / "model")), tmp_path / "targets")
    values: dict[str, Any] = {
        "weights": {"pair_semantic": 0, "pair_levels": 0, "mel": 0, "asr_distillation": 1.0},
        "run": {"autocast": autocast},
    }
    with pytest.raises(ConfigError, match="of 6 nothing is left"):
        training_of(corpus, {"teacher": store}, **values)
    training = training_of(corpus, {"teacher": store}, left_context=2, **values)
    rows = steps(training, 30)
    name = "loss/asr_distillation"
    assert mean(rows[-8:], name) < mean(rows[:8], name)
    assert isinstance(training.objective.distillation, WhisperDistillation)
