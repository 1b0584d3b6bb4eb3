"""A step can be captured: it draws nothing, waits for no value, and its graph does what it does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from recipes.mini_release.codec import CodecTask
from recipes.mini_release.graph import GraphedStep
from recipes.mini_release.speech import SpeechTask
from recipes.mini_release.teacher import TeacherStates
from tests.recipes.conftest import make_speech_task
from tests.recipes.test_codec import codec_task
from voxclone.data.corpus import Corpus

DATA_DEPENDENT = ("_local_scalar_dense", "nonzero", "masked_select", "unique")
RANDOM = ("rand", "normal", "uniform", "bernoulli", "multinomial", "dropout", "exponential")
CUDA = torch.device("cuda")


class Recorder(TorchDispatchMode):
    """Names of the operations within."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def recorded(task: CodecTask | SpeechTask, steps: int) -> Iterator[set[str]]:
    """Operations of the step of every graph of a training, after a first one."""
    for step in range(steps):
        task.train_step(step)
    for graphed in task._steps.values():
        inputs = graphed.last_inputs
        with Recorder() as recorder:
            graphed._function(inputs)
        yield recorder.names


def assert_capturable(names: set[str]) -> None:
    assert len(names) > 30
    assert not [name for name in names for bad in DATA_DEPENDENT if bad in name]
    assert not [name for name in names for bad in RANDOM if bad in name]


@pytest.fixture
def keep_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every graphed step remembers what it was called with."""
    original = GraphedStep.__call__

    def call(self: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.last_inputs = inputs
        return original(self, inputs)

    monkeypatch.setattr(GraphedStep, "__call__", call)


def test_a_step_of_the_codec_can_be_captured(
    corpus: Corpus, teacher: TeacherStates, keep_inputs: None
) -> None:
    names = list(recorded(codec_task(corpus, teacher), 7))
    assert len(names) == 3
    names += recorded(codec_task(corpus, None, decoder_only=True, discriminators_from=0), 1)
    for each in names:
        assert_capturable(each)


def test_a_step_of_the_language_model_can_be_captured(
    corpus: Corpus, tmp_path: Path, keep_inputs: None
) -> None:
    names = list(recorded(make_speech_task(corpus, tmp_path), 24))
    assert len(names) >= 3
    for each in names:
        assert_capturable(each)


def same_as_eager(
    graphed: CodecTask | SpeechTask, eager: CodecTask | SpeechTask, steps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The losses of some steps from the same weights, within what the order of sums may change."""
    rows = [graphed.train_step(step) for step in range(steps)]
    assert all(each._graph is not None for each in graphed._steps.values())
    monkeypatch.setattr(GraphedStep, "__call__", lambda self, inputs: self._function(inputs))
    for step, row in enumerate(rows):
        wanted = eager.train_step(step)
        assert set(row) == set(wanted)
        for name, value in row.items():
            if name.startswith("loss/"):
                assert float(value) == pytest.approx(float(wanted[name]), rel=0.02), (step, name)


@pytest.mark.gpu
def test_the_graph_of_the_codec_is_its_step(
    corpus: Corpus, states: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def task() -> CodecTask:
        return codec_task(corpus, TeacherStates(corpus, states, CUDA), CUDA)

    same_as_eager(task(), task(), 8, monkeypatch)


@pytest.mark.gpu
def test_the_graph_of_the_language_model_is_its_step(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [make_speech_task(corpus, tmp_path, CUDA) for _ in range(2)]
    same_as_eager(*tasks, 24, monkeypatch)
