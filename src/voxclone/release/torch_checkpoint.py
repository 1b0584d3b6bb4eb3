"""`best_encoder.pt`: the file in which public attempts keep an encoder.

`torch.save` made it of a mapping name -> tensor, with the names `input_proj.*` and
`encoder_blocks.*` (the trainer of Al0olo/voxtral-voice-clone). It is read without unpickling.
"""

import zipfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from voxclone.errors import ReleaseError
from voxclone.release.safetensors import DTYPE_BYTES, TensorInfo
from voxclone.release.torch_zip import (
    ZIP_ERRORS,
    TensorView,
    UnsupportedPickle,
    read_torch_zip,
)

if TYPE_CHECKING:
    from torch import Tensor

MAX_ENTRIES = 4096
MAX_PICKLE = 2**20


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of such a file. In `tensors`, `start` and `stop` are bytes within the entry of the
    zip that holds the tensor's storage (`entries`)."""

    tensors: dict[str, TensorInfo]
    entries: dict[str, str]

    def load(self, name: str) -> "Tensor":
        """One tensor, as it is stored; its checksum is compared. Raises ReleaseError if damaged."""
        import torch

        info = self.tensors[name]
        try:
            with zipfile.ZipFile(info.path) as archive:
                data = bytearray(archive.read(self.entries[name])[info.start : info.stop])
        except ZIP_ERRORS as error:
            raise _damaged(info.path, error) from None
        dtypes = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
        return torch.frombuffer(data, dtype=getattr(torch, dtypes[info.dtype])).view(info.shape)


def is_torch_file(path: Path) -> bool:
    """Whether a file begins as those of `torch.save` do, now (a zip) or before 2020 (a pickle)."""
    try:
        with path.open("rb") as file:
            begin = file.read(9)
    except OSError as error:
        raise ReleaseError(f"{path} cannot be read: {error.strerror}.") from None
    return begin[8:] != b"{" and begin.startswith((b"PK\x03\x04", b"\x80"))


def read_checkpoint(path: Path) -> Checkpoint:
    """The content of a file that `torch.save` made of a mapping of tensors; no tensor is read.

    Raises ReleaseError for anything else: other objects, views that are not contiguous, integers,
    compressed or damaged zips.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path)
    except UnsupportedPickle as error:
        raise ReleaseError(
            f"{path} is not a plain mapping of tensors, as `best_encoder.pt` is: {error}. Nothing "
            "in it was run. Save the encoder's tensors alone, as safetensors."
        ) from None
    except ZIP_ERRORS as error:
        raise _damaged(path, error) from None


def _read(archive: zipfile.ZipFile, path: Path) -> Checkpoint:
    found = read_torch_zip(archive, MAX_ENTRIES, MAX_PICKLE)
    if not isinstance(found.value, dict):
        raise UnsupportedPickle("its data.pkl describes something else")
    tensors: dict[str, TensorInfo] = {}
    entries: dict[str, str] = {}
    for name, view in found.value.items():
        if not isinstance(view, TensorView):
            raise UnsupportedPickle(f"{name!r} is no tensor")
        size, entry = DTYPE_BYTES[view.storage.dtype], f"{found.root}/data/{view.storage.key}"
        held = found.entries[entry].file_size if entry in found.entries else 0
        start = view.offset * size
        stop = start + prod(view.shape) * size
        if held != view.storage.values * size or stop > held:
            raise UnsupportedPickle(f"{name!r} needs {stop} bytes of {entry}, which has {held}")
        tensors[name] = TensorInfo(path, view.storage.dtype, view.shape, start, stop)
        entries[name] = entry
    return Checkpoint(tensors, entries)


def _damaged(path: Path, error: Exception) -> ReleaseError:
    return ReleaseError(
        f"{path} is damaged or no zip as torch.save writes it ({error}): fetch it again, or save "
        "the encoder's tensors as safetensors."
    )
