"""Random numbers for a batch, of which each item has a generator of its own.

So an item gets the same numbers in every batch: a batch may be divided over processes.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def uniform(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Numbers between 0 and 1 of this shape for each generator, in a batch."""
    return torch.stack([torch.rand(*shape, generator=each) for each in generators])


def normal(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Numbers of mean 0 and variance 1 of this shape for each generator, in a batch."""
    return torch.stack([torch.randn(*shape, generator=each) for each in generators])


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """The random numbers of one step: a function of (seed, step, stream) and nothing else."""
    digest = hashlib.sha256(f"{seed}/{step}/{stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
