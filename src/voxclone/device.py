"""On which device, and by how many threads, a command runs."""

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


def limit_threads(parameters: int) -> None:
    """Let PyTorch compute by at most one thread for so many parameters of a model. A smaller number
    stays. It holds for the whole process, so commands call it and the library does not."""
    wanted = max(1, parameters // PARAMETERS_A_THREAD)
    torch.set_num_threads(min(wanted, torch.get_num_threads()))
