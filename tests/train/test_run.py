"""The loop: resume is bit-identical, signals save, schedules are what they say."""

import os
import signal
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from voxclone.device import pick_device
from voxclone.errors import ConfigError
from voxclone.rng import step_generator
from voxclone.train.log import Log
from voxclone.train.run import (
    OptimiserSettings,
    RunSettings,
    apply_gradients,
    fit,
    learners_of,
    learning_rate,
)
from voxclone.train.state import TrainState

SETTINGS = OptimiserSettings(lr=1e-2, warmup_steps=3)
WITH_MUON = OptimiserSettings(lr=1e-2, warmup_steps=3, muon=True)
QUIET = Console(quiet=True)


@dataclass
class Toy:
    """A regression whose batches depend on the step alone."""

    stop_at: int | None = None
    settings: OptimiserSettings = SETTINGS
    state: TrainState = field(init=False)

    def __post_init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        model = nn.Sequential(OrderedDict(layers=layers))
        self.state = TrainState({"model": model}, learners_of(model, self.settings))

    def train_step(self, step: int) -> dict[str, Tensor]:
        x = torch.randn(16, 4, generator=step_generator(0, step))
        loss = (self.state.modules["model"](x)[:, 0] - x.sum(dim=1)).square().mean()
        loss.backward()
        apply_gradients(self.state.learners, self.settings, step, 20)
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"loss/toy": loss}

    def validate(self, step: int, log: Log) -> dict[str, float]:
        return {"valid/step": float(step)}


def run(task: Toy, folder: Path, *, resume: bool = True, steps: int = 20, **more: object) -> str:
    settings = RunSettings(steps=steps, save_every=5, validate_every=10, log_every=5, **more)
    config = {"steps": steps}
    outcome = fit(task, settings, folder, resume=resume, config=config, console=QUIET)
    return outcome.reason


def weights(task: Toy) -> Tensor:
    return torch.cat([p.detach().flatten() for p in task.state.modules["model"].parameters()])


@pytest.mark.parametrize("settings", [SETTINGS, WITH_MUON])
@pytest.mark.parametrize("stop_at", [0, 3, 4, 9, 13, 18])
def test_interrupted_and_resumed_is_bit_identical(
    stop_at: int, settings: OptimiserSettings, tmp_path: Path
) -> None:
    whole = Toy(settings=settings)
    assert run(whole, tmp_path / "whole") == "done"
    first = Toy(stop_at=stop_at, settings=settings)
    assert run(first, tmp_path / "parts") == "interrupted"
    assert first.state.step == stop_at + 1
    second = Toy(settings=settings)
    assert run(second, tmp_path / "parts") == "done"
    assert torch.equal(weights(whole), weights(second))
    for key, value in whole.state.tensors().items():
        assert torch.equal(value, second.state.tensors()[key]), key


def test_a_fresh_run_refuses_a_used_folder(tmp_path: Path) -> None:
    run(Toy(), tmp_path, resume=False)
    with pytest.raises(ConfigError, match="already holds checkpoints"):
        run(Toy(), tmp_path, resume=False)


def test_a_checkpoint_of_another_shape_is_named(tmp_path: Path) -> None:
    run(Toy(), tmp_path)
    other = Toy()
    other.state.modules["model"] = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="another configuration"):
        run(other, tmp_path)


def test_the_time_limit_saves_and_stops(tmp_path: Path) -> None:
    assert run(Toy(), tmp_path, max_minutes=0.0) == "time"
    again = Toy()
    assert run(again, tmp_path) == "done" and again.state.step == 20


def test_gradients_that_are_not_finite_change_nothing() -> None:
    task = Toy()
    before = weights(task)
    model = task.state.modules["model"]
    (model(torch.full((1, 4), torch.inf)) * 0).sum().backward()
    norm = apply_gradients(task.state.learners, SETTINGS, 0, 10)
    assert not torch.isfinite(norm) and torch.equal(before, weights(task))
    assert all(p.grad is None for p in model.parameters())


def test_muon_steps_the_matrices_of_layers_and_nothing_else() -> None:
    task = Toy(settings=WITH_MUON)
    names = {id(p): n for n, p in task.state.modules["model"].named_parameters()}
    stepped = {
        kind: {names[id(p)] for group in optimiser.param_groups for p in group["params"]}
        for kind, optimiser in task.state.optimisers.items()
    }
    assert stepped == {
        "muon": {"layers.0.weight", "layers.2.weight"},
        "adamw": {"layers.0.bias", "layers.2.bias"},
    }


def test_the_rate_warms_up_and_falls_to_its_end() -> None:
    settings = OptimiserSettings(lr=1.0, warmup_steps=10, final_share=0.1)
    rates = [learning_rate(settings, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert rates[10] == pytest.approx(1.0) and rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_devices_that_are_not_there_are_named() -> None:
    assert pick_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA"):
            pick_device("cuda")
    with pytest.raises(ConfigError, match="not a device"):
        pick_device("gpu")
