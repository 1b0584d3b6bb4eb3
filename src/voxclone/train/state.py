"""What a training is at a moment: everything that a checkpoint holds."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from voxclone.checkpoint import load_optimiser, optimiser_tensors
from voxclone.errors import ConfigError


@dataclass
class TrainState:
    """Everything that a checkpoint holds: modules and optimisers by name, and the step. `followed`
    are the modules of whose weights a mean is kept, and its decay."""

    modules: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    step: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    followed: dict[str, float] = field(default_factory=dict)

    @property
    def learners(self) -> list[torch.optim.Optimizer]:
        """The optimisers that `learners_of` made, without those of judges."""
        return [self.optimisers[name] for name in ("adamw", "muon") if name in self.optimisers]

    def follow(self, name: str, decay: float) -> None:
        """Keep an exponential mean of a module's weights in the module `NAME_ema`."""
        follower = copy.deepcopy(self.modules[name]).requires_grad_(False).eval()
        self.modules[f"{name}_ema"] = follower
        self.followed[name] = decay

    @torch.no_grad()
    def update_followers(self) -> None:
        """Move the means, after a step that was not skipped. The first steps count for more, or
        the mean would long remember the weights that nothing had been taught."""
        for name, decay in self.followed.items():
            share = min(decay, (1 + self.step) / (10 + self.step))
            follower = self.modules[f"{name}_ema"]
            for mean, now in zip(
                follower.parameters(), self.modules[name].parameters(), strict=True
            ):
                mean.lerp_(now, 1 - share)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors under flat names: `module.NAME.key`, `optimiser.NAME.index.key`."""
        result = {}
        for name, module in self.modules.items():
            for key, tensor in module.state_dict().items():
                result[f"module.{name}.{key}"] = tensor
        for name, optimiser in self.optimisers.items():
            result |= optimiser_tensors(optimiser, f"optimiser.{name}.")
        return result

    def load_tensors(self, tensors: dict[str, Tensor], *, changed: bool = False) -> list[str]:
        """Put back what `tensors` gave. With `changed`, a module or an optimiser of which there is
        nothing stays as it is (a mean begins where its module is); these are returned. Raises
        ConfigError if the names or shapes do not fit."""
        absent = []
        for name, module in self.modules.items():
            prefix = f"module.{name}."
            part = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            if changed and not part and module.state_dict():
                absent.append(name)
                continue
            try:
                module.load_state_dict(part)
            except RuntimeError as error:
                first = str(error).splitlines()[-1].strip()
                raise ConfigError(f"The checkpoint is of another configuration: {first}") from None
        for name in self.followed:
            if f"{name}_ema" in absent:
                self.modules[f"{name}_ema"].load_state_dict(self.modules[name].state_dict())
        for name, optimiser in self.optimisers.items():
            prefix = f"optimiser.{name}."
            if changed and not any(full.startswith(prefix) for full in tensors):
                absent.append(f"the optimiser {name}")
                continue
            load_optimiser(optimiser, prefix, tensors)
        return absent
