"""The `.pt` files of `voice_embedding/`: read without unpickling, written for every runtime.

Such a file is a zip that `torch.save` made of one plain bfloat16 matrix. In a file that is written
here, the root of the zip is `archive`, because voxtral-tts.c looks for `archive/data/0`.

Shapes: N frames, D width.
"""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from voxclone.errors import VoiceError
from voxclone.io import atomic_file
from voxclone.readers import open_file
from voxclone.release.torch_zip import (
    ZIP_ERRORS,
    TensorView,
    UnsupportedPickle,
    read_torch_zip,
)

if TYPE_CHECKING:
    from torch import Tensor

MAX_FRAMES = 4096  # vLLM-Omni's limit for prompt and speech together
MAX_ENTRIES = 64
MAX_PICKLE = 4096


def count_frames(path: str | Path, dim: int) -> int:
    """Frames of a preset of width `dim`, from its description and size alone.

    Raises VoiceError if the file is anything but one plain contiguous bfloat16 matrix [N, D].
    """
    with _opened(Path(path)) as archive:
        return _examine(archive, Path(path), dim)[1]


def is_preset(path: str | Path) -> bool:
    """Whether a file is one matrix as `torch.save` writes it. Raises VoiceError for no such zip."""
    with _opened(Path(path)) as archive:
        value = read_torch_zip(archive, MAX_ENTRIES, MAX_PICKLE).value
    return isinstance(value, TensorView) and len(value.shape) == 2


def read_preset(path: str | Path, dim: int) -> "Tensor":
    """A preset of width `dim` as a tensor [N, D] in bf16; nothing is unpickled.

    Raises VoiceError if the file is anything but one plain contiguous bfloat16 matrix [N, D] of
    finite numbers.
    """
    import torch

    with _opened(Path(path)) as archive:
        storage, frames = _examine(archive, Path(path), dim)
        data = bytearray(archive.read(storage))
    embedding_ND = torch.frombuffer(data, dtype=torch.bfloat16).view(frames, dim)
    if not embedding_ND.isfinite().all():
        raise VoiceError(f"The voice {path} has values that are not finite: make it again.")
    return embedding_ND


def write_preset(path: str | Path, embedding_ND: "Tensor") -> None:
    """Write an embedding [N, D] in bf16 for every runtime; the file appears whole or not at all.
    Raises ValueError for another dtype or shape, VoiceError for values that are not finite."""
    import torch

    path, shape = Path(path), list(embedding_ND.shape)
    if embedding_ND.dtype != torch.bfloat16 or len(shape) != 2 or not 0 < shape[0] <= MAX_FRAMES:
        raise ValueError(f"expected bf16 [N, D], got {embedding_ND.dtype} {shape}")
    if not embedding_ND.isfinite().all():
        raise VoiceError(f"The voice for {path} has values that are not finite: make it again.")
    # torch.save would write all of a view's base; a buffer makes the root of the zip `archive`.
    plain_ND = embedding_ND.detach().cpu().clone(memory_format=torch.contiguous_format)
    buffer = io.BytesIO()
    torch.save(plain_ND, buffer)
    with atomic_file(path) as file:
        file.write(buffer.getvalue())


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip at `path`; its defects become VoiceErrors."""
    try:
        with open_file(path, VoiceError) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except VoiceError:
        raise
    except UnsupportedPickle as error:
        raise VoiceError(
            f"The voice {path} is not one plain contiguous bfloat16 tensor: {error}. Nothing in it "
            "was run; save such a tensor with torch.save."
        ) from None
    except ZIP_ERRORS as error:
        raise VoiceError(
            f"The voice {path} is damaged or no zip as torch.save writes it ({error}): "
            "fetch or export it again."
        ) from None


def _examine(archive: zipfile.ZipFile, path: Path, dim: int) -> tuple[zipfile.ZipInfo, int]:
    """The entry of the numbers, and how many frames they are."""
    found = read_torch_zip(archive, MAX_ENTRIES, MAX_PICKLE)
    storages = [name for name in found.entries if name.startswith(f"{found.root}/data/")]
    if storages != [f"{found.root}/data/0"]:
        raise UnsupportedPickle(f"its zip holds {len(storages)} storages instead of one, data/0")
    view, entry = found.value, found.entries[storages[0]]
    if not isinstance(view, TensorView) or len(view.shape) != 2 or view.storage.key != "0":
        raise UnsupportedPickle("its data.pkl describes something else")
    if view.storage.dtype != "BF16":
        raise UnsupportedPickle(f"its numbers are {view.storage.dtype}, not BF16")
    frames, width = view.shape
    if view.offset or view.storage.values != frames * width:
        raise UnsupportedPickle("it is a view of a larger tensor")
    if not 0 < frames <= MAX_FRAMES:
        raise UnsupportedPickle(f"it has {frames} frames")
    if width != dim:
        raise VoiceError(
            f"The voice {path} has a width of {width}, but the release has one of {dim}: it was "
            "made for another release."
        )
    if entry.file_size != frames * dim * 2:
        raise UnsupportedPickle(
            f"it describes {frames} frames of {dim} numbers but holds {entry.file_size} bytes"
        )
    return entry, frames
