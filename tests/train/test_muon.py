"""Muon is PyTorch's, in bf16 and in fp32."""

import copy

import pytest
import torch
from torch import nn

from voxclone.train import muon
from voxclone.train.muon import Muon

SHAPES = ((16, 24), (24, 16), (16, 24), (8, 8))
LR = 0.01


def stepped(lr: float | torch.Tensor) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices after five steps of ours and of PyTorch's, from the same ones."""
    generator = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    theirs = copy.deepcopy(ours)
    together = Muon(ours, lr, 0.05)
    single = torch.optim.Muon(theirs, lr=LR, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        together.step()
        single.step()
    return ours, theirs


@pytest.mark.parametrize(
    ("bf16", "atol"), [(True, 1e-5), (False, 1e-3)], ids=["as PyTorch, in bf16", "in fp32"]
)
def test_it_is_pytorchs(bf16: bool, atol: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp32 it differs by what PyTorch's rounds to bf16; five steps move values by 0.05."""
    monkeypatch.setattr(muon, "multiplies_bf16", lambda _: bf16)
    for lr in (LR, torch.tensor(LR)):
        for a, b in zip(*stepped(lr), strict=True):
            torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)


def test_matrices_without_gradients_stay() -> None:
    still, moved = (nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    moved.grad = torch.eye(4)
    Muon([still, moved], LR, 0.0).step()
    assert torch.equal(still, torch.ones(4, 4)) and not torch.equal(moved, still)
