"""Random numbers for a batch: from one generator, or for each item from its own.

With its own generator, an item gets the same numbers in every batch: a batch may be divided over
processes.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator]


def uniform(shape: Sequence[int], generators: Generators) -> Tensor:
    """Numbers between 0 and 1; the first dimension is the batch."""
    if isinstance(generators, torch.Generator):
        return torch.rand(*shape, generator=generators)
    return torch.stack([torch.rand(*shape[1:], generator=each) for each in generators])


def normal(shape: Sequence[int], generators: Generators) -> Tensor:
    """Numbers of mean 0 and variance 1; the first dimension is the batch."""
    if isinstance(generators, torch.Generator):
        return torch.randn(*shape, generator=generators)
    return torch.stack([torch.randn(*shape[1:], generator=each) for each in generators])


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """The random numbers of one step: a function of (seed, step, stream) and nothing else."""
    digest = hashlib.sha256(f"{seed}/{step}/{stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
