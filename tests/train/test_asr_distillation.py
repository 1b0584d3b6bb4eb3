"""Targets of Whisper teach an encoder, in the place where each word was said."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.evaluate.test_wer import _save_whisper
from tests.models.test_whisper import diagonal
from tests.train.test_tasks import encoder_task, mean, steps
from voxclone.data.corpus import Corpus
from voxclone.errors import ConfigError
from voxclone.models.whisper import SpokenTargets, WhisperTeacher, token_shares
from voxclone.train.asr_distillation import TargetStore, spoken_loss
from voxclone.train.encoder import EncoderTask


def test_the_loss_is_zero_for_the_states_themselves_and_sees_a_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    state_LE = torch.randn(4, 8, generator=generator)
    share_LT = token_shares(diagonal(4, 80, 80), 80, 20)
    share_LT = (share_LT == share_LT.amax(dim=0)).float()
    target = SpokenTargets(state_LE, share_LT / share_LT.sum(dim=1, keepdim=True))
    projection = nn.Linear(8, 8, bias=False)
    nn.init.eye_(projection.weight)

    def loss(given_BDT: torch.Tensor, start: int, history: int = 0) -> float:
        return spoken_loss(projection, given_BDT, [target], [start], history).item()

    said_BDT = (share_LT.T @ state_LE).T[None]
    assert loss(said_BDT, 0) < 1e-5
    assert loss(said_BDT.roll(5, dims=-1), 0) > 0.3
    crop_BDT = said_BDT[..., 5:15]
    assert loss(crop_BDT, 5) < 1e-5
    assert loss(crop_BDT, 0) > 0.3
    crop_BDT[..., :4] = -crop_BDT[..., :4]  # without a past
    assert loss(crop_BDT, 5) > 0.3 and loss(crop_BDT, 5, 3) > 0.05
    assert loss(crop_BDT, 5, 4) < 1e-5
    said_BDT[..., :4] = -said_BDT[..., :4]
    assert loss(said_BDT, 0, 4) > 0.1  # a clip's beginning has all the past that there is


def test_an_encoder_learns_from_whisper(tmp_path: Path, corpus: Corpus) -> None:
    (tmp_path / "model").mkdir()
    _save_whisper(tmp_path / "model")
    store = TargetStore(WhisperTeacher(str(tmp_path / "model")), tmp_path / "targets")
    base = encoder_task(corpus, pair_semantic=0, pair_levels=0, cycle_semantic=0, cycle_levels=0,
                        mel=0, distil=1.0)  # fmt: skip
    settings = base.settings.model_copy(
        update={
            "whisper": str(tmp_path / "model"), "real_from": 0, "cycle_from": 99, "history": 2,
        }
    )  # fmt: skip
    with pytest.raises(ConfigError, match="of 6 nothing is left"):
        EncoderTask.create(
            settings.model_copy(update={"history": None}), base.codec, base.genuine, {}, corpus,
            base.train, whisper=store,
        )  # fmt: skip
    task = EncoderTask.create(
        settings, base.codec, base.genuine, {}, corpus, base.train, whisper=store
    )
    rows = steps(task, 30)
    assert mean(rows[-8:], "loss/distil") < mean(rows[:8], "loss/distil")
    assert isinstance(task.real.distillation, nn.Linear)
