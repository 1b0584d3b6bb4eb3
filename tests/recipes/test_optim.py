"""Optimizers of the mini release: bad steps change no weight."""

import pytest
import torch
from torch import nn

from recipes.mini_release.optim import (
    OptimizerSettings,
    build_optimizers,
    clear_gradients,
    clip_gradients,
    rate_share,
    set_rates,
)
from voxclone.train.checkpoint import TrainState


def model() -> nn.ModuleDict:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 4)])})


def state_of(module: nn.Module) -> TrainState:
    settings = OptimizerSettings(lr=1e-2, muon=True)
    named = {f"model.{name}": p for name, p in module.named_parameters()}
    return TrainState({"model": module}, build_optimizers(named, settings))


def step(state: TrainState, module: nn.Module, number: int, factor: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    optimizers = list(state.optimizers.values())
    set_rates(optimizers, 0.5)
    clear_gradients(optimizers)
    x = torch.randn(8, 4, generator=generator)
    for layer in module["layers"]:  # type: ignore[index]
        x = layer(x)
    (factor * x.square().mean()).backward()
    norm = clip_gradients(optimizers)
    for optimizer in optimizers:
        optimizer.step()
    return norm


def test_matrices_of_layers_go_to_muon_and_all_else_to_adamw() -> None:
    optimizers = state_of(model()).optimizers
    ndims = {
        name: {p.ndim for group in each.param_groups for p in group["params"]}
        for name, each in optimizers.items()
    }
    assert ndims == {"adamw": {1}, "muon": {2}}


def test_a_restored_state_goes_on_as_if_never_stopped() -> None:
    whole, parts = model(), model()
    state, first = state_of(whole), state_of(parts)
    for number in range(4):
        step(state, whole, number)
    for number in range(2):
        step(first, parts, number)
    again = model()
    second = state_of(again)
    second.load_tensors({name: tensor.clone() for name, tensor in first.tensors().items()})
    for number in range(2, 4):
        step(second, again, number)
    for name, tensor in state.tensors().items():
        assert torch.equal(tensor, second.tensors()[name]), name


def test_gradients_that_are_not_finite_change_no_weight() -> None:
    module = model()
    state = state_of(module)
    step(state, module, 0)
    before = [p.detach().clone() for p in module.parameters()]
    assert not step(state, module, 1, factor=torch.inf).isfinite()
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert step(state, module, 2).isfinite()
    assert not any(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_rates_warm_up_are_held_and_fall() -> None:
    settings = OptimizerSettings(hold=0.5, final=0.1)
    shares = [rate_share(step, 100, settings, warmup=10) for step in range(101)]
    assert shares[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert shares[10:51] == [1.0] * 41
    assert shares[75] == pytest.approx(0.55) and shares[100] == pytest.approx(0.1)
    assert rate_share(0, 100, settings, warmup=0) == 1.0
