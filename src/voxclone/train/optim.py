"""Optimizers, their rate, gradients that are clipped, and the mean of weights."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from voxclone.config import Settings
from voxclone.train.muon import Muon

GRAD_CLIP = 1.0
"""The largest norm of the gradients that step together."""
MIN_LR_RATIO = 0.05
"""The rate of the last step over the highest one."""


class OptimizerSettings(Settings):
    """AdamW with linear warm-up and cosine decay. With `muon` the matrices of transformer layers
    are stepped by Muon, all else by AdamW."""

    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    warmup_steps: int = 200
    muon: bool = False


def adamw(
    parameters: Iterator[nn.Parameter], settings: OptimizerSettings, lr: float | None = None
) -> torch.optim.AdamW:
    """AdamW as the settings say, in one kernel on a GPU; `lr` is another rate than theirs."""
    kept = list(parameters)
    optimizer = torch.optim.AdamW(
        kept,
        lr=settings.lr if lr is None else lr,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=bool(kept) and kept[0].device.type == "cuda",
    )
    _remember_rate(optimizer)
    return optimizer


def build_optimizers(module: nn.Module, settings: OptimizerSettings) -> dict[str, Optimizer]:
    """What trains a module: `adamw`, and beside it `muon` if the settings say so."""
    if not settings.muon:
        return {"adamw": adamw(module.parameters(), settings)}
    named = dict(module.named_parameters())
    matrices = [n for n, p in named.items() if p.ndim == 2 and ".layers." in f".{n}"]
    others = (parameter for name, parameter in named.items() if name not in set(matrices))
    muon = Muon([named[name] for name in matrices], settings.lr, settings.weight_decay)
    _remember_rate(muon)
    return {"adamw": adamw(others, settings), "muon": muon}


def learning_rate(lr: float, step: int, steps: int, warmup_steps: int) -> float:
    """The rate of a step: linear warm-up to `lr`, then cosine to `MIN_LR_RATIO` of it."""
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return lr * (MIN_LR_RATIO + (1 - MIN_LR_RATIO) * cosine)


def set_learning_rate(
    optimizers: Iterable[Optimizer], step: int, steps: int, warmup_steps: int
) -> None:
    """Give each group of parameters its `learning_rate` at a step."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(group["initial_lr"], step, steps, warmup_steps)


def parameters_of(optimizers: Iterable[Optimizer]) -> list[nn.Parameter]:
    """What the optimizers step."""
    return [p for each in optimizers for group in each.param_groups for p in group["params"]]


def clip_gradients(optimizers: Iterable[Optimizer]) -> Tensor:
    """Scale the gradients of what steps together down to `GRAD_CLIP`. Returns their norm before."""
    return nn.utils.clip_grad_norm_(parameters_of(optimizers), GRAD_CLIP)


@torch.no_grad()
def update_ema(average: nn.Module, module: nn.Module, decay: float, step: int) -> None:
    """Move the exponential mean of a module's weights after a step. The first steps count for more,
    or the mean would long remember the weights that nothing had been learned by."""
    kept = min(decay, (1 + step) / (10 + step))
    for mean, now in zip(average.parameters(), module.parameters(), strict=True):
        mean.lerp_(now, 1 - kept)


def _remember_rate(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
