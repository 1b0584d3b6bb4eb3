"""The loop: resume is bit-identical, signals save, schedules are what they say."""

import os
import signal
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from tests.helpers.disk import slow_disk
from tests.helpers.memory import needs_proc, resident_memory
from voxclone import checkpoint
from voxclone.device import PARAMETERS_A_THREAD, limit_threads, pick_device
from voxclone.errors import ConfigError
from voxclone.rng import step_generator
from voxclone.train.checkpoint import TrainState
from voxclone.train.logging import Log
from voxclone.train.loop import RunSettings, fit
from voxclone.train.optim import (
    OptimizerSettings,
    build_optimizers,
    clip_gradients,
    learning_rate,
    set_learning_rate,
)

SETTINGS = OptimizerSettings(lr=1e-2, warmup_steps=3)
WITH_MUON = OptimizerSettings(lr=1e-2, warmup_steps=3, muon=True)
QUIET = Console(quiet=True)


@dataclass
class Toy:
    """A regression whose batches depend on the step alone."""

    stop_at: int | None = None
    settings: OptimizerSettings = SETTINGS
    state: TrainState = field(init=False)

    def __post_init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        model = nn.Sequential(OrderedDict(layers=layers))
        self.state = TrainState({"model": model}, build_optimizers(model, self.settings))

    def train_step(self, step: int) -> dict[str, Tensor]:
        x = torch.randn(16, 4, generator=step_generator(0, step))
        loss = (self.state.modules["model"](x)[:, 0] - x.sum(dim=1)).square().mean()
        loss.backward()
        optimizers = [*self.state.optimizers.values()]
        clip_gradients(optimizers)
        set_learning_rate(optimizers, step, 20, self.settings.warmup_steps)
        with self.state.updating():
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"loss/toy": loss}

    def validate(self, step: int, log: Log) -> dict[str, float]:
        return {"valid/step": float(step)}


def run(task: Toy, folder: Path, *, resume: bool = True, steps: int = 20, **more: object) -> str:
    settings = RunSettings(steps=steps, save_every=5, validate_every=10, **more)
    config = {"steps": steps}
    outcome = fit(task, settings, folder, resume=resume, config=config, console=QUIET)
    return outcome.reason


def weights(task: Toy) -> Tensor:
    return torch.cat([p.detach().flatten() for p in task.state.modules["model"].parameters()])


@pytest.mark.parametrize("settings", [SETTINGS, WITH_MUON])
@pytest.mark.parametrize("stop_at", [0, 3, 4, 9, 13, 18])
def test_interrupted_and_resumed_is_bit_identical(
    stop_at: int, settings: OptimizerSettings, tmp_path: Path
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


def test_muon_steps_the_matrices_of_layers_and_nothing_else() -> None:
    task = Toy(settings=WITH_MUON)
    names = {id(p): n for n, p in task.state.modules["model"].named_parameters()}
    stepped = {
        kind: {names[id(p)] for group in optimizer.param_groups for p in group["params"]}
        for kind, optimizer in task.state.optimizers.items()
    }
    assert stepped == {
        "muon": {"layers.0.weight", "layers.2.weight"},
        "adamw": {"layers.0.bias", "layers.2.bias"},
    }


def test_the_rate_warms_up_and_falls_to_its_end() -> None:
    rates = [learning_rate(1.0, step, 100, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert rates[10] == pytest.approx(1.0) and rates[100] == pytest.approx(0.05)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_devices_that_are_not_there_are_named() -> None:
    assert pick_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA"):
            pick_device("cuda")
    with pytest.raises(ConfigError, match="not a device"):
        pick_device("gpu")


def test_a_small_model_computes_with_one_thread_and_a_large_one_with_all() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(8)
        limit_threads(100 * PARAMETERS_A_THREAD)
        assert torch.get_num_threads() == 8
        limit_threads(3 * PARAMETERS_A_THREAD)
        assert torch.get_num_threads() == 3
        limit_threads(PARAMETERS_A_THREAD // 10)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_checkpoint_of_an_older_version_is_refused(tmp_path: Path) -> None:
    run(Toy(), tmp_path)
    (newest,) = [p for p in (tmp_path / "checkpoints").iterdir() if p.name == "step-0000020"]
    found = checkpoint.load(newest)
    old = {k.replace("optimizer.", "optimiser."): v for k, v in found.tensors.items()}
    checkpoint.save(tmp_path / "checkpoints", checkpoint.Checkpoint(20, old, found.values))
    with pytest.raises(ConfigError, match=r"older version.*`--init FILE`"):
        run(Toy(), tmp_path)


SOAK, WARM_UP = 10_000, 1_000


@needs_proc
@pytest.mark.slow
def test_10_000_steps_keep_memory_and_open_files(tmp_path: Path) -> None:
    """With 20 checkpoints and 20 validations; the first 1,000 steps warm up."""
    memory: list[int] = []
    files: list[int] = []

    def measure(step: int) -> None:
        if step % WARM_UP == 0:
            memory.append(resident_memory())
            files.append(len(os.listdir("/proc/self/fd")))

    settings = RunSettings(steps=SOAK)
    outcome = fit(
        Toy(), settings, tmp_path, resume=False, config={}, console=QUIET, on_step=measure
    )
    assert outcome.step == SOAK and len(memory) == SOAK / WARM_UP
    print(f"\nR10: {[round(each / 1e6, 1) for each in memory]} MB, {files} open files")
    assert memory[-1] < 1.05 * memory[0] and max(memory) < 1.05 * memory[0]
    assert set(files) == {files[0]}


def test_a_training_goes_on_over_a_slow_disk(tmp_path: Path) -> None:
    whole, slow = Toy(), Toy()
    run(whole, tmp_path / "whole")
    begun = time.monotonic()
    with slow_disk(0.1):
        assert run(slow, tmp_path / "slow") == "done"
    assert time.monotonic() - begun > 4 * 5 * 0.1  # five flushes in each of four checkpoints
    assert torch.equal(weights(whole), weights(slow))


def test_a_signal_while_a_slow_disk_writes_is_obeyed_after_it(tmp_path: Path) -> None:
    """And a second one at once: the checkpoint before is kept, and the run goes on from there."""
    whole = Toy()
    run(whole, tmp_path / "whole")
    with slow_disk(0.02, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            run(Toy(), tmp_path / "twice")
        assert time.monotonic() - began < 5
    assert not list((tmp_path / "twice" / "checkpoints").glob("step-*"))
    signals = iter([signal.SIGTERM])

    def once() -> None:
        for number in signals:
            os.kill(os.getpid(), number)

    first = Toy()
    with slow_disk(0.1, once):
        assert run(first, tmp_path / "once") == "interrupted"
    assert first.state.step == 6  # the first checkpoint was of step 5
    for folder in ("once", "twice"):
        second = Toy()
        assert run(second, tmp_path / folder) == "done"
        assert torch.equal(weights(whole), weights(second))
