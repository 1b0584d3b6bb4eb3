"""Coding in pieces, with exactly the result of coding at once.

The codec is causal, and its layers can store what the next stretch needs of this one (`Past`), so
nothing is computed twice and memory does not grow with the length of the input.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from voxclone.codec.layers import Past


def stream(
    function: Callable[[Tensor, Past | None], Tensor], stretches: Iterable[Tensor]
) -> Iterator[Tensor]:
    """Apply a causal function to consecutive stretches of one signal (the last axis is time).

    Every stretch but the last must be a whole number of frames, and the first longer than the
    reflection at the beginning (seven patches, one frame of the release).
    """
    past: Past = {}
    for stretch in stretches:
        yield function(stretch, past)


def in_pieces(
    function: Callable[[Tensor, Past | None], Tensor], input_BxT: Tensor, size: int
) -> Tensor:
    """Apply a causal function along the last axis, `size` elements at a time, and join."""
    if input_BxT.shape[-1] <= size:
        return function(input_BxT, None)
    return torch.cat(list(stream(function, input_BxT.split(size, dim=-1))), dim=-1)
