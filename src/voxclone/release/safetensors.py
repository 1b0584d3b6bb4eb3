"""Safetensors files: a strict header reader, and lazy loading. `safetensors_writer` writes them.

Format: 8 bytes with the length of the header, little-endian; the header, JSON that maps each name
to dtype, shape and range of bytes; the bytes of all tensors, without gaps
(https://github.com/huggingface/safetensors).
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxclone.errors import ReleaseError, VoxcloneError, os_errors, shorten
from voxclone.readers import load_json, open_file, read_json
from voxclone.records import PathText, Record, parse_record

if TYPE_CHECKING:
    import torch
    from torch import Tensor

INDEX = "consolidated.safetensors.index.json"
HEADER_LIMIT = 100_000_000
MAX_DIMS = 8
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
OTHERS = {"F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1, "C64": 8}
INTEGERS = {f"{sign}{8 * size}": size for sign in "IU" for size in (1, 2, 4, 8)}
DTYPE_BYTES = FLOATS | OTHERS | INTEGERS


@dataclass(frozen=True)
class TensorInfo:
    """A tensor in a file; `start` and `stop` are bytes from the start of the file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def values(self) -> int:
        """How many numbers the tensor holds."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Header:
    """The header of one safetensors file of `size` bytes."""

    path: Path
    size: int
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(path: str | Path) -> Header:
    """Read the header of a safetensors file; no data is read or mapped, and torch is not needed.

    Raises ReleaseError if the file is missing, cut short, or not exactly what its header says.
    """
    path = Path(path)
    with open_file(path, ReleaseError) as file, os_errors(f"{path} cannot be read", ReleaseError):
        size = os.fstat(file.fileno()).st_size
        begin = file.read(8)
        length = int.from_bytes(begin, "little")
        if length > min(HEADER_LIMIT, size - 8):
            raise ReleaseError(
                f"{path} has {size} bytes and claims a header of {length}: it is cut short, or no "
                "safetensors file; fetch it again."
            )
        text = file.read(length)
    try:
        values = load_json(text.decode())
    except ValueError as error:
        raise ReleaseError(
            f"The header of {path} is damaged: {shorten(error)}; fetch it again."
        ) from None
    if not isinstance(values, dict):
        raise ReleaseError(f"The header of {path} is no mapping: fetch the file again.")
    metadata = values.pop("__metadata__", {})
    strings = isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
    if not strings:
        raise ReleaseError(f"The metadata of {path} maps names to something else than text.")
    tensors = {name: _read_entry(path, name, entry, 8 + length) for name, entry in values.items()}
    end = 8 + length
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if tensor.start != end:
            raise ReleaseError(
                f"In {path}, the bytes of {name!r} start at {tensor.start} instead of {end}: "
                "tensors overlap or leave a gap, so the file is damaged; fetch it again."
            )
        end = tensor.stop
    if size != end:
        what = f"{end - size} bytes are missing" if size < end else f"{size - end} are too many"
        raise ReleaseError(
            f"{path} has {size} bytes but its header describes {end}: {what}; fetch it again."
        )
    return Header(path, size, tensors, metadata)


class TensorFiles:
    """The tensors of several safetensors files; only what is asked for is read (memory-mapped).

    Raises ReleaseError if a name occurs twice and `index` (name -> file name) does not decide.
    """

    def __init__(self, headers: Iterable[Header], index: dict[str, str] | None = None) -> None:
        self.headers = tuple(headers)
        self._where: dict[str, Header] = {}
        files = index or {}
        for header in self.headers:
            for name in header.tensors:
                if files.get(name, header.path.name) != header.path.name:
                    continue
                if name in self._where:
                    raise ReleaseError(
                        f"{name!r} is in both {self._where[name].path} and {header.path}: "
                        "remove one of the files."
                    )
                self._where[name] = header
        for name, file in files.items():
            if name not in self._where:
                raise ReleaseError(f"{INDEX} says that {name!r} is in {file}, but it is not.")

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """The entries of the headers, by name."""
        return {name: header.tensors[name] for name, header in self._where.items()}

    def header_of(self, name: str) -> Header:
        """The header of the file that holds a tensor. Raises ReleaseError for an unknown name."""
        if name not in self._where:
            near = get_close_matches(name, self._where, n=1)
            hint = f"; the nearest name is {near[0]!r}" if near else ""
            raise ReleaseError(f"There is no tensor {name!r} in this release{hint}.")
        return self._where[name]

    def load(self, name: str, dtype: "torch.dtype | None" = None) -> "Tensor":
        """One tensor, in `dtype` or as it is stored. Raises ReleaseError for an unknown name, and
        for values that are not finite."""
        return self.load_many([name], dtype)[name]

    def map(self, name: str) -> "Tensor":
        """One tensor as it is stored, of which memory holds only what is read; errors as for
        `load`, which checks all of it through a mapping of its own."""
        from safetensors import safe_open

        self.load(name)
        with safe_open(self.header_of(name).path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor

    def load_many(
        self, names: list[str], dtype: "torch.dtype | None" = None
    ) -> "dict[str, Tensor]":
        """The tensors of these names, each file being opened once; errors as for `load`."""
        from safetensors import SafetensorError, safe_open

        tensors: dict[str, Tensor] = {}
        for header in self.headers:
            here = [name for name in names if self.header_of(name) is header]
            if not here:
                continue
            try:
                with safe_open(header.path, framework="pt") as file:
                    for name in here:
                        tensor = file.get_tensor(name)
                        require_finite(name, tensor, header.path)
                        tensors[name] = tensor if dtype is None else tensor.to(dtype)
            except (SafetensorError, OSError, UnicodeError) as error:
                raise ReleaseError(f"{header.path} cannot be read: {error}.") from None
        return {name: tensors[name] for name in names}


def require_finite(name: str, tensor: "Tensor", path: Path) -> None:
    """Raise ReleaseError for a tensor with values that are not finite."""
    import torch

    if not tensor.dtype.is_floating_point or not tensor.numel():
        return
    # The sum is not finite if any value is not, and takes a fifth of the time and no memory.
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    if not bool(tensor.sum(dtype=wide).isfinite()) and not bool(tensor.isfinite().all()):
        raise ReleaseError(
            f"In {path}, {name!r} has values that are not finite: what made it had failed, or the "
            "file is damaged. Take an earlier checkpoint, or fetch it again."
        )


def load_tensors(path: Path, kind: type[VoxcloneError] = ReleaseError) -> "dict[str, Tensor]":
    """All tensors of a safetensors file. Raises `kind` for a file that is missing or damaged, and
    for values that are not finite."""
    try:
        header = read_header(path)
        return TensorFiles([header]).load_many(list(header.tensors))
    except ReleaseError as error:
        raise kind(str(error)) from None


def find_shards(folder: Path) -> TensorFiles:
    """The safetensors files of a release: those that the index names if there is one, otherwise
    all of `consolidated*.safetensors` (the rule of vLLM's loader). Only headers are read."""
    index = _read_index(folder / INDEX)
    if index is None:
        paths = sorted(folder.glob("consolidated*.safetensors"))
    else:
        paths = [folder / name for name in sorted(set(index.values()))]
    if not paths:
        raise ReleaseError(f"There is no consolidated*.safetensors in {folder}: fetch it again.")
    for path in paths:
        if not path.is_file():
            raise ReleaseError(f"{folder / INDEX} names {path.name}, which is missing: fetch it.")
    return TensorFiles([read_header(path) for path in paths], index)


def _read_entry(path: Path, name: str, entry: Any, data: int) -> TensorInfo:
    damaged = ReleaseError(
        f"In the header of {path}, the entry {name!r} is damaged: fetch it again."
    )
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise damaged
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise ReleaseError(f"In {path}, {name!r} is of the dtype {dtype!r}, which is not known.")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise damaged
    if offsets[1] - offsets[0] != prod(shape) * DTYPE_BYTES[dtype]:
        raise ReleaseError(
            f"In {path}, {name!r} has {offsets[1] - offsets[0]} bytes, but its shape {shape} in "
            f"{dtype} needs {prod(shape) * DTYPE_BYTES[dtype]}: fetch the file again."
        )
    return TensorInfo(path, dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _are_sizes(values: Any) -> bool:
    if not isinstance(values, list) or len(values) > MAX_DIMS:
        return False
    return all(type(value) is int and 0 <= value < 2**63 for value in values)


def _read_index(path: Path) -> dict[str, str] | None:
    if not os.path.lexists(path):
        return None
    index = parse_record(_Index, read_json(path, ReleaseError), str(path), ReleaseError).weight_map
    if any(Path(file).name != file for file in index.values()):
        raise ReleaseError(f"{path} names a file outside its own folder: fetch it again.")
    return index


class _Index(Record):
    weight_map: dict[str, PathText]
