"""A step that fails leaves the state as it was before it, or says that it does not."""

import pytest
import torch
from torch import Tensor, nn

from voxclone.train.state import TrainState
from voxclone.train.undo import undoing


def small_state() -> TrainState:
    """A learner and a judge with momentum, and a judge with a buffer."""
    modules: dict[str, nn.Module] = {"model": nn.Linear(2, 2), "judge": nn.BatchNorm1d(2)}
    optimisers: dict[str, torch.optim.Optimizer] = {
        "adamw": torch.optim.AdamW(modules["model"].parameters()),
        "judge": torch.optim.AdamW(modules["judge"].parameters()),
    }
    return TrainState(modules, optimisers, values={"means": {"mel": [1.0, 2.0]}})


def step(state: TrainState, *names: str) -> None:
    """Let optimisers step, one after another; what a forward pass changes is changed."""
    for name in names:
        for group in state.optimisers[name].param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        state.optimisers[name].step()
    state.modules["judge"](torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    state.values["means"]["mel"][0] += 1.0
    state.values["balancer"] = {}


def copied(state: TrainState) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.tensors().items()}


@pytest.mark.parametrize("begun", [False, True])
def test_judges_buffers_and_values_are_taken_back(begun: bool) -> None:
    state = small_state()
    with undoing(state) as undo:
        if begun:
            with undo.step():
                step(state, "judge", "adamw")
        before, values = copied(state), {**state.values, "means": {"mel": [1.0 + begun, 2.0]}}
        with pytest.raises(RuntimeError), undo.step():
            step(state, "judge")
            step(state, "judge")
            raise RuntimeError
    after = state.tensors()
    assert undo.sane and state.values == values and before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_the_learners_did_is_not_taken_back() -> None:
    state = small_state()
    with undoing(state) as undo, pytest.raises(RuntimeError), undo.step():
        step(state, "judge", "adamw")
        raise RuntimeError
    assert not undo.sane


def test_afterwards_optimisers_step_as_before() -> None:
    state = small_state()
    with undoing(state):
        pass
    assert not any(each._optimizer_step_pre_hooks for each in state.optimisers.values())
