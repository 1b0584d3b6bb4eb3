"""A training step as a CUDA graph: captured once, replayed for all steps that follow.

The step is a function of tensors whose shapes never change. It draws no random number, so that a
step depends on its inputs and the state alone. On other devices it runs eagerly.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from voxclone.train.checkpoint import TrainState

Tensors = dict[str, Tensor]
WARMUP_STEPS = 3


class GraphedStep:
    """`function` gets inputs, changes the tensors of `state` in place, and returns metrics."""

    def __init__(self, function: Callable[[Tensors], Tensors], state: TrainState) -> None:
        self._function, self._state = function, state
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: Tensors = {}
        self._metrics: Tensors = {}

    def __call__(self, inputs: Tensors) -> Tensors:
        device = next(iter(inputs.values())).device
        if device.type != "cuda":
            return self._function(inputs)
        if self._graph is None:
            self._capture(inputs)
        assert self._graph is not None
        for name, tensor in inputs.items():
            self._inputs[name].copy_(tensor)
        self._graph.replay()
        return {name: metric.clone() for name, metric in self._metrics.items()}

    def _capture(self, inputs: Tensors) -> None:
        """Run a few steps, as capturing asks for, undo them, and record one."""
        self._inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        before = {key: tensor.clone() for key, tensor in _tensors(self._state)}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARMUP_STEPS):
                self._function(self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Threads that pin the memory of batches may go on meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._metrics = self._function(self._inputs)
        for key, tensor in _tensors(self._state):
            if key in before:
                tensor.copy_(before[key])
            else:
                tensor.zero_()  # what an optimizer begins with
        self._graph = graph


@torch.no_grad()
def _tensors(state: TrainState) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a state and the rates of its optimizers, not copied."""
    for name, module in state.modules.items():
        for key, tensor in module.state_dict().items():
            yield f"module.{name}.{key}", tensor
    for name, optimizer in state.optimizers.items():
        for number, group in enumerate(optimizer.param_groups):
            yield f"rate.{name}.{number}", group["lr"]
            for index, parameter in enumerate(group["params"]):
                for key, value in optimizer.state[parameter].items():
                    yield f"optimizer.{name}.{number}.{index}.{key}", value
