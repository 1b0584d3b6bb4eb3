"""In which precision, and by how many threads, a device computes."""

import pytest
import torch

from voxclone import device
from voxclone.device import (
    PARAMETERS_A_THREAD,
    autocast,
    few_threads,
    multiplies_bf16,
    precision_note,
)

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


def test_few_threads_within_and_as_many_as_before_after() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        for parameters, threads in ((5, 1), (3 * PARAMETERS_A_THREAD, 3), (10**12, 4)):
            with pytest.raises(KeyError), few_threads(parameters):
                assert torch.get_num_threads() == threads
                raise KeyError
            assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
