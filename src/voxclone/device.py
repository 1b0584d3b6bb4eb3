"""On which device a command runs."""

import torch

from voxclone.errors import ConfigError


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
