"""Optimizers that step within a CUDA graph as they do without: their rates are tensors.

Matrices of transformer layers are stepped by Muon, all else by AdamW.
A step whose gradients are not finite gets the rate 0, since a graph cannot leave it out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from voxclone.train import optim
from voxclone.train.muon import Muon
from voxclone.train.optim import GRAD_CLIP, parameters_of


class OptimizerSettings(optim.OptimizerSettings):
    """The rate is `lr` for the share `hold` of the steps, then falls along a cosine to the share
    `final` of `lr`."""

    hold: float = 0.0
    final: float = 0.05


def build_optimizers(
    named: Mapping[str, nn.Parameter], settings: OptimizerSettings
) -> dict[str, Optimizer]:
    """`adamw` and `muon` for parameters by name."""
    matrices = [p for name, p in named.items() if p.ndim == 2 and ".layers." in name]
    chosen = {id(matrix) for matrix in matrices} if settings.muon else set()
    others = [p for p in named.values() if id(p) not in chosen]
    optimizers: dict[str, Optimizer] = {"adamw": fused_adamw(others, settings, settings.lr)}
    if settings.muon:
        lr = torch.zeros((), device=matrices[0].device)
        optimizers["muon"] = _with_rate(Muon(matrices, lr, settings.weight_decay), settings)
    return optimizers


def fused_adamw(
    parameters: Iterable[nn.Parameter], settings: OptimizerSettings, lr: float
) -> Optimizer:
    """AdamW whose rate is a tensor on the device of the parameters."""
    kept = list(parameters)
    device = kept[0].device
    optimizer = torch.optim.AdamW(
        kept,
        lr=torch.zeros((), device=device),
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
        capturable=device.type == "cuda",
    )
    return _with_rate(optimizer, settings.model_copy(update={"lr": lr}))


def _with_rate(optimizer: Optimizer, settings: OptimizerSettings) -> Optimizer:
    for group in optimizer.param_groups:
        group["initial_lr"] = settings.lr
    return optimizer


def rate_share(step: int, steps: int, settings: OptimizerSettings, warmup: int) -> float:
    """The share of the highest rate that a step has."""
    warm = min(1.0, (step + 1) / max(1, warmup))
    done = step / max(1, steps)
    falling = max(0.0, done - settings.hold) / max(1e-9, 1 - settings.hold)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, falling)))
    return warm * (settings.final + (1 - settings.final) * cosine)


def set_rates(optimizers: Iterable[Optimizer], share: float) -> None:
    """Give every group its highest rate times `share`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"].fill_(group["initial_lr"] * share)


@torch.no_grad()
def clip_gradients(optimizers: Sequence[Optimizer]) -> Tensor:
    """Scale the gradients of what steps together down to `GRAD_CLIP`. Returns their norm before.
    If that is not finite, gradients and rates become 0."""
    gradients = [p.grad for p in parameters_of(optimizers) if p.grad is not None]
    norm = torch.stack(torch._foreach_norm(gradients)).norm()
    finite = norm.isfinite()
    scale = torch.where(finite, (GRAD_CLIP / (norm + 1e-6)).clamp(max=1.0), 0.0)
    torch._foreach_mul_(gradients, scale)
    for gradient in gradients:
        gradient.nan_to_num_(0.0, 0.0, 0.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"].mul_(finite)
    return norm


def clear_gradients(optimizers: Iterable[Optimizer]) -> None:
    """Before a step; within a graph, gradients are then written anew and not added up."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
