"""Write a safetensors file (see `safetensors`) with one tensor in memory at a time."""

import json
from collections.abc import Callable, Iterable, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from voxclone.io import atomic_file
from voxclone.release.safetensors import DTYPE_BYTES

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Entry(NamedTuple):
    """A tensor to be written; `make` is called when its turn comes."""

    name: str
    dtype: "torch.dtype"
    shape: tuple[int, ...]
    make: "Callable[[], Tensor]"


def encode_header(
    tensors: Iterable[tuple[str, str, Sequence[int]]], metadata: dict[str, str] | None = None
) -> bytes:
    """The length and the header of a file with tensors (name, dtype, shape) in this order. Wide
    numbers first keep every tensor aligned to its own size. Raises ValueError for a name that is
    given twice."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, dtype, shape in tensors:
        if name in header:
            raise ValueError(f"{name!r} is given twice")
        start, end = end, end + prod(shape) * DTYPE_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_safetensors(
    path: str | Path, entries: Iterable[Entry], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all, with one tensor in memory at a time. Raises
    ValueError if `make` gives another dtype or shape than announced."""
    import torch

    names = {getattr(torch, full): short for short, full in _TORCH_NAMES.items()}
    ordered = sorted((Entry(*entry) for entry in entries), key=lambda entry: -entry.dtype.itemsize)
    described = [(entry.name, names[entry.dtype], entry.shape) for entry in ordered]
    with atomic_file(Path(path)) as file:
        file.write(encode_header(described, metadata))
        for entry in ordered:
            tensor = entry.make()
            if tensor.dtype != entry.dtype or tuple(tensor.shape) != tuple(entry.shape):
                raise ValueError(
                    f"{entry.name!r} was announced as {entry.dtype} {list(entry.shape)} but is "
                    f"{tensor.dtype} {list(tensor.shape)}"
                )
            flat = tensor.detach().cpu().contiguous().flatten()
            file.write(flat.view(torch.uint8).numpy().data)


def torch_dtype(dtype: str) -> "torch.dtype":
    """The dtype of a header, as torch's."""
    import torch

    found: torch.dtype = getattr(torch, _TORCH_NAMES[dtype])
    return found


_TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
