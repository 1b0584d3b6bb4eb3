"""On which device, in which precision, and by how many threads, a command computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from voxclone.errors import ConfigError

PARAMETERS_A_THREAD = 100_000_000
"""Below it a second thread costs more than it brings: on busy cores, the threads of a small model
wait for each other (docs/PERFORMANCE.md)."""


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU. Raises ConfigError for what is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"The device {name!r} was asked for, but this machine has no CUDA GPU.")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{name!r} is not a device: use cpu, cuda or auto.") from None
    count = torch.cuda.device_count()
    if device.type == "cuda" and device.index is not None and device.index >= count:
        raise ConfigError(f"The device {name!r} was asked for, but this machine has {count} GPUs.")
    return device


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bf16. CPUs without AVX-512 (and ARM's without their
    like) emulate it: a step of the mini release takes 14 times as long as in fp32."""
    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and bool(
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def precision_note(device: torch.device, *, wanted: bool) -> str | None:
    """What to tell who wanted bf16 and does not get it."""
    if not wanted or multiplies_bf16(device):
        return None
    return "This CPU has no instructions for bf16, so the training computes in fp32."


def autocast(device: torch.device, *, enabled: bool, cache_enabled: bool = True) -> torch.autocast:
    """bf16 where it is `enabled`, and where the device multiplies it; else fp32."""
    enabled = enabled and multiplies_bf16(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=cache_enabled)


def limit_threads(parameters: int) -> None:
    """Let PyTorch compute by at most one thread for so many parameters of a model. A smaller number
    stays. It holds for the whole process, so commands call it and the library does not."""
    wanted = max(1, parameters // PARAMETERS_A_THREAD)
    torch.set_num_threads(min(wanted, torch.get_num_threads()))


@contextmanager
def few_threads(parameters: int) -> Iterator[None]:
    """Within, what `limit_threads` says; then as many threads as before. For what computes in tiny
    products within a command whose other parts are worth more threads."""
    before = torch.get_num_threads()
    limit_threads(parameters)
    try:
        yield
    finally:
        torch.set_num_threads(before)
