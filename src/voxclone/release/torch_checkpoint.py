"""Files that `torch.save` made of mappings of tensors, read without unpickling.

Public attempts keep an encoder so: `best_encoder.pt` is a mapping name -> tensor (the trainer of
Al0olo/voxtral-voice-clone). A checkpoint has such mappings in others, beside numbers and the states
of optimizers.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxclone.errors import ReleaseError
from voxclone.readers import Kind, open_file, read_head
from voxclone.release.safetensors import DTYPE_BYTES, TensorInfo, require_finite
from voxclone.release.torch_zip import (
    ZIP_ERRORS,
    TensorView,
    UnsupportedPickle,
    read_torch_zip,
)

if TYPE_CHECKING:
    from torch import Tensor

MAX_ENTRIES = 16384
MAX_PICKLE = 4 * 2**20
MAX_DEPTH, MAX_VALUES = 6, 65536
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


@dataclass(frozen=True)
class Checkpoint:
    """The floating-point tensors of such a file; names in nested mappings are joined by dots. In
    `tensors`, `start` and `stop` are bytes within the entry of the zip that holds the tensor's
    storage (`entries`)."""

    tensors: dict[str, TensorInfo]
    entries: dict[str, str]

    def load(self, name: str) -> "Tensor":
        """One tensor, as it is stored; its checksum is compared. Raises ReleaseError if damaged."""
        import torch

        info = self.tensors[name]
        try:
            with open_file(info.path, ReleaseError) as file, zipfile.ZipFile(file) as archive:
                data = bytearray(archive.read(self.entries[name])[info.start : info.stop])
        except ZIP_ERRORS as error:
            raise _damaged(info.path, error) from None
        flat = torch.frombuffer(data, dtype=getattr(torch, DTYPES[info.dtype]))
        require_finite(name, flat, info.path)
        return flat.view(info.shape)


def is_torch_file(path: Path) -> bool:
    """Whether a file begins as those of `torch.save` do, now (a zip) or before 2020 (a pickle)."""
    begin = read_head(path, 9, ReleaseError)
    return begin[8:] != b"{" and begin.startswith((b"PK\x03\x04", b"\x80"))


def read_checkpoint(path: Path) -> Checkpoint:
    """The content of a file that `torch.save` made of mappings of tensors; no tensor is read.

    Raises ReleaseError for anything else: a file without tensors, other objects, views that are not
    contiguous, compressed or damaged zips.
    """
    refuse_old_format(path, "the encoder's tensors as safetensors")
    try:
        with open_file(path, ReleaseError) as file, zipfile.ZipFile(file) as archive:
            return _read(archive, path)
    except UnsupportedPickle as error:
        raise ReleaseError(
            f"{path} is not made of mappings of tensors alone: {error}. Nothing in it was run. "
            "Save the encoder's tensors as safetensors."
        ) from None
    except ZIP_ERRORS as error:
        raise _damaged(path, error) from None


def _read(archive: zipfile.ZipFile, path: Path) -> Checkpoint:
    found = read_torch_zip(archive, MAX_ENTRIES, MAX_PICKLE)
    if not isinstance(found.value, dict):
        raise UnsupportedPickle("its data.pkl describes something else")
    tensors: dict[str, TensorInfo] = {}
    entries: dict[str, str] = {}
    for name, view in _views(found.value):
        size, entry = DTYPE_BYTES[view.storage.dtype], f"{found.root}/data/{view.storage.key}"
        held = found.entries[entry].file_size if entry in found.entries else 0
        start = view.offset * size
        stop = start + prod(view.shape) * size
        if held != view.storage.values * size or stop > held:
            raise UnsupportedPickle(f"{name!r} needs {stop} bytes of {entry}, which has {held}")
        if view.storage.dtype in DTYPES:
            tensors[name] = TensorInfo(path, view.storage.dtype, view.shape, start, stop)
            entries[name] = entry
    if not tensors:
        raise UnsupportedPickle("it holds no tensor of floating-point numbers")
    return Checkpoint(tensors, entries)


def _views(value: dict[Any, Any]) -> Iterator[tuple[str, TensorView]]:
    """The tensors in nested mappings, by their names joined with dots."""
    seen = 0
    waiting: list[tuple[str, Any, int]] = [("", value, 0)]
    while waiting:
        prefix, mapping, depth = waiting.pop(0)
        for key, item in mapping.items():
            seen += 1
            if seen > MAX_VALUES or depth > MAX_DEPTH:
                raise UnsupportedPickle("its mappings are nested too deep, or too many")
            if isinstance(item, TensorView):
                yield f"{prefix}{key}", item
            elif isinstance(item, dict):
                waiting.append((f"{prefix}{key}.", item, depth + 1))


def refuse_old_format(path: Path, remedy: str, kind: Kind = ReleaseError) -> None:
    """Raise the error, with what to save instead, for a file of torch.save that is no zip."""
    if read_head(path, 1, kind) == b"\x80":
        raise kind(
            f"{path} is a pickle in the format of PyTorch before 1.6, which is not read: load it "
            f"where you trust it, and save {remedy}."
        )


def _damaged(path: Path, error: Exception) -> ReleaseError:
    return ReleaseError(
        f"{path} is damaged or no zip as torch.save writes it ({error}): fetch it again, or save "
        "the encoder's tensors as safetensors."
    )
