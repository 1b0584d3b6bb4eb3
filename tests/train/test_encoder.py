"""A training runs and learns with every loss, on a tiny corpus."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.helpers.random_weights import drawn_codec
from tests.train.tiny import CODEC, CPU, config_of, mean, steps, tiny_material, training_of
from voxclone.data.corpus import Corpus
from voxclone.errors import ConfigError
from voxclone.train.encoder import build
from voxclone.train.logging import Log


def test_a_bridge_needs_a_teacher(corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="needs a `teacher`"):
        training_of(corpus, {"teacher": None}, weights={"bridge": 0.5})


def test_an_encoder_learns_from_pairs_and_real_speech(corpus: Corpus, tmp_path: Path) -> None:
    weights = {"level_prior": 0.5, "commitment": 0.1, "stft": 0.1, "low": 0.1, "bridge": 0.1}
    training = training_of(corpus, weights=weights, real_from=3)
    codec = training.objective.codec
    before = {k: v.clone() for k, v in codec.decoder.state_dict().items()}
    rows = steps(training, 40)
    assert mean(rows[-10:], "loss/pair_semantic") < 0.7 * mean(rows[:10], "loss/pair_semantic")
    used = training.config.weights.model_dump()
    assert {f"loss/{name}" for name, value in used.items() if value} <= set(rows[-1])
    after = codec.decoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "the decoder moved"
    metrics = training.validate(40, Log(tmp_path))
    assert 0 <= metrics["preset/within_one"] <= 1 and metrics["real/codes_in_use"] >= 1


def test_a_fresh_encoder_has_nothing_of_the_release_s_own(corpus: Corpus) -> None:
    training = training_of(corpus)
    given = drawn_codec(CODEC).require_encoder().state_dict()
    made = training.encoder.state_dict()
    assert not any(torch.equal(given[name], made[name]) for name in given if "original1" in name)


def test_first_weights_are_where_the_encoder_begins(corpus: Corpus) -> None:
    given = drawn_codec(CODEC).require_encoder()
    training = training_of(corpus, {"init": given}, run={"ema": 0.9})
    for name, value in given.state_dict().items():
        assert torch.equal(training.encoder.state_dict()[name], value)
        assert torch.equal(training.state.modules["encoder_ema"].state_dict()[name], value)


def test_losses_through_the_waveform_are_balanced_and_learn(corpus: Corpus) -> None:
    training = training_of(
        corpus,
        weights={
            "pair_semantic": 0, "pair_levels": 0, "mel": 2.0, "l1": 1.0, "stft": 1.0,
            "feature_matching": 1.0, "asr_distillation": 1.0, "diversity": 0.1, "scale": 0.1,
        },
        balance=True, decay=0.9, discriminators={"channels": 2, "start": 2},
    )  # fmt: skip
    distillation = training.state.modules["distillation"]
    before = [p.detach().clone() for p in distillation.parameters()]
    rows = steps(training, 30)
    names = {"mel", "l1", "stft", "asr_distillation", "diversity", "scale"}
    assert {f"loss/{name}" for name in names} <= set(rows[0])
    assert "loss/feature_matching" not in rows[1] and "loss/discriminator" in rows[2]
    assert mean(rows[-5:], "loss/scale") < mean(rows[:5], "loss/scale")
    after = distillation.parameters()
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert set(training.state.values["balancer"]) == {"mel", "l1", "stft", "feature_matching"}
    json.dumps(training.state.values)


def test_gradient_checkpointing_gives_the_same_step_with_less_memory(corpus: Corpus) -> None:
    """Kept for the backward pass are the inputs of blocks instead of all within them; what is
    left are the spectrograms of the losses."""

    def trained(run: dict[str, bool]) -> tuple[list[Tensor], int]:
        training, kept = training_of(corpus, run=run), 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            training.train_step(0)
        return [p.detach() for p in training.encoder.parameters()], kept

    whole, again = trained({}), trained({"gradient_checkpointing": True})
    assert all(torch.equal(a, b) for a, b in zip(whole[0], again[0], strict=True))
    assert again[1] < 0.7 * whole[1]


def test_before_real_speech_there_must_be_pairs(corpus: Corpus) -> None:
    weights = {"pair_semantic": 0, "pair_levels": 0}
    with pytest.raises(ConfigError, match=r"Before step 3 .* set `real_from` to 0"):
        training_of(corpus, weights=weights, real_from=3)


def test_a_bridge_needs_pairs(corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="`bridge` needs pairs"):
        training_of(corpus, weights={"bridge": 0.1, "pair_semantic": 0, "pair_levels": 0})


def test_a_step_may_be_of_pairs_alone(corpus: Corpus) -> None:
    speech = corpus.subset(lambda clip: True)
    training = build(config_of(real_from=9), tiny_material(speech), CPU)
    (row,) = steps(training, 1)
    assert {name for name in row if name.startswith("loss/")} == {
        "loss/pair_semantic", "loss/pair_levels", "loss/total",
    }  # fmt: skip
