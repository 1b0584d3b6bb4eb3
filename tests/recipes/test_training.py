"""A step of a stage of the mini release."""

import torch
from torch import nn

from recipes.mini_release.training import OptimiserSettings, apply_gradients, learners
from voxclone.train.checkpoint import TrainState
from voxclone.train.optim import build_optimizers


def test_gradients_that_are_not_finite_change_nothing() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
    settings = OptimiserSettings(lr=1e-2, warmup_steps=3)
    state = TrainState({"model": model}, build_optimizers(model, settings))
    before = [p.detach().clone() for p in model.parameters()]
    (model(torch.full((1, 4), torch.inf)) * 0).sum().backward()
    norm = apply_gradients(learners(state), settings, 0, 10)
    assert not torch.isfinite(norm)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    assert torch.isfinite(apply_gradients(learners(state), settings, 0, 10))
    assert not torch.equal(before[0], model.weight)
