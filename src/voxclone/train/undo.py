"""Steps that are done as a whole or not at all.

Judges (bridge, critic, discriminators) step in the middle of a step, and what may fail comes after
them: recordings are read, memory is asked for. Going on from judges that are a step ahead of the
encoder would be another training. So what an optimiser is about to change is copied, for as long as
the step lasts: but not for the learners, which are the largest part by far and step last.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from voxclone.train.state import TrainState


@dataclass(frozen=True)
class _Judge:
    """The weights that an optimiser steps, and what it remembers of them."""

    optimiser: torch.optim.Optimizer
    weights: list[tuple[Tensor, Tensor]]
    moments: dict[Tensor, dict[str, Any]]

    @classmethod
    def of(cls, optimiser: torch.optim.Optimizer) -> "_Judge":
        weights = [p for group in optimiser.param_groups for p in group["params"]]
        moments = {
            weight: {key: _copied(value) for key, value in entry.items()}
            for weight, entry in optimiser.state.items()
        }
        return cls(optimiser, [(weight, _copied(weight)) for weight in weights], moments)

    def put_back(self) -> None:
        for weight, before in self.weights:
            weight.copy_(before)
        self.optimiser.state.clear()
        self.optimiser.state.update(self.moments)


@dataclass
class Undo:
    """`sane` tells whether the state is that of before or after a step: also where a step failed,
    unless that was after the learners had begun to step."""

    state: TrainState
    sane: bool = True
    _judges: dict[str, _Judge] = field(default_factory=dict)
    _learned: bool = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """Within, a step is done; an error there takes it back."""
        values = copy.deepcopy(self.state.values)
        buffers = [(b, b.clone()) for m in self.state.modules.values() for b in m.buffers()]
        self._judges, self._learned = {}, False
        try:
            yield
        except BaseException:
            self.sane = not self._learned
            if self.sane:
                self._put_back(buffers)
                self.state.values = values
            raise
        finally:
            self._judges = {}

    @torch.no_grad()
    def _put_back(self, buffers: list[tuple[Tensor, Tensor]]) -> None:
        for judge in self._judges.values():
            judge.put_back()
        for buffer, before in buffers:
            buffer.copy_(before)

    def _before(self, name: str, optimiser: torch.optim.Optimizer, *given: Any) -> None:
        """Called before an optimiser steps."""
        if optimiser in self.state.learners:
            self._learned, self._judges = True, {}
        elif not self._learned and name not in self._judges:
            self._judges[name] = _Judge.of(optimiser)


@contextmanager
def undoing(state: TrainState) -> Iterator[Undo]:
    """Within, the steps of a training can be taken back (`Undo.step`)."""
    undo = Undo(state)
    handles = [
        optimiser.register_step_pre_hook(partial(undo._before, name))
        for name, optimiser in state.optimisers.items()
    ]
    try:
        yield undo
    finally:
        for handle in handles:
            handle.remove()


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
