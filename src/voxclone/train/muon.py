"""Muon (Jordan et al. 2024), its steps of AdamW's size as in arXiv 2502.16982.

It is `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, but for three things. Matrices of
one shape are orthogonalized together, since a GPU waits for the launches of single ones. The rate
may be a tensor, as a CUDA graph needs it. And a CPU without instructions for bf16 computes in fp32:
emulated bf16 is 75 times as slow.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from voxclone.device import multiplies_bf16

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
UPDATE_RMS = 0.2  # of AdamW's steps


class Muon(Optimizer):
    """Steps matrices along their momentum, its singular values brought near 1."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float | Tensor, weight_decay: float
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})
        for group in self.param_groups:
            for matrix in group["params"]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes.setdefault((min(matrix.shape), max(matrix.shape)), []).append(matrix)
            for (_, longer), matrices in shapes.items():
                momenta = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
                updates = _orthogonalized([m.grad for m in matrices if m.grad is not None], momenta)
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                size = group["lr"] * (UPDATE_RMS * math.sqrt(longer))
                sized = torch._foreach_mul(updates, size)
                torch._foreach_sub_(matrices, sized)


def _orthogonalized(gradients: list[Tensor], momenta: list[Tensor]) -> list[Tensor]:
    """Nesterov momentum of gradients, its singular values brought near 1."""
    torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
    updates = torch._foreach_lerp(gradients, momenta, MOMENTUM)
    wide = [u if u.shape[0] <= u.shape[1] else u.T for u in updates]
    x = torch.stack(wide)
    if multiplies_bf16(x.device):
        x = x.bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    found = x.float().unbind(0)
    return [f if u.shape[0] <= u.shape[1] else f.T for f, u in zip(found, updates, strict=True)]
