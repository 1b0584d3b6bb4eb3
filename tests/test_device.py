"""In which precision a device computes."""

import pytest
import torch

from voxclone import device
from voxclone.device import autocast, multiplies_bf16, precision_note

CPU, CARD = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("has", [True, False])
def test_bf16_is_taken_where_the_device_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    monkeypatch.setattr(device, "multiplies_bf16", lambda _: has)
    x = torch.ones(4, 4)
    with autocast(CPU, enabled=True):
        assert (x @ x).dtype == (torch.bfloat16 if has else torch.float32)
    with autocast(CPU, enabled=False):
        assert (x @ x).dtype == torch.float32
    assert precision_note(CPU, wanted=False) is None
    assert (precision_note(CPU, wanted=True) is None) == has


def test_the_cpu_says_what_it_has() -> None:
    """AVX-512 or what comes after it; a card is not asked."""
    capability = torch.backends.cpu.get_cpu_capability()
    if capability in ("AVX2", "DEFAULT"):
        assert not multiplies_bf16(CPU)
    elif capability == "AVX512":
        assert multiplies_bf16(CPU)
    assert multiplies_bf16(CARD)
