"""The `.pt` files of `voice_embedding/`: read without unpickling anything, written as all can read.

Such a file is a zip that `torch.save` made of one plain tensor: `<root>/data.pkl`, which describes
it, and `<root>/data/0`, its numbers. A pickle is a program, so it is never run: its instructions
are listed with `pickletools` and must be exactly those of a plain bfloat16 matrix. In what is
written here `<root>` is `archive`, because voxtral-tts.c looks for `archive/data/0`.
"""

import io
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxclone.errors import VoiceError
from voxclone.io import atomic_file

if TYPE_CHECKING:
    from torch import Tensor

MAX_ROWS = 4096  # vLLM-Omni's limit for prompt and speech together
MAX_ENTRIES = 64
MAX_PICKLE = 4096
ZIP_ERRORS = (
    zipfile.BadZipFile,
    OSError,
    RuntimeError,  # encrypted, or a feature that zipfile lacks
    ValueError,
    OverflowError,
    EOFError,
    struct.error,
)

REBUILD = "torch._utils _rebuild_tensor_v2"
STORAGE = "torch BFloat16Storage"
HOOKS = "collections OrderedDict"

KINDS = {
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "UNICODE"), "text"),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), "int"),
    **dict.fromkeys(("NEWTRUE", "NEWFALSE"), "bool"),
}
BOOKKEEPING = {"PROTO", "FRAME", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}

# What torch.save writes of a matrix: rebuild((storage, key, place, size), offset, shape, strides).
PLAIN = (
    f"{REBUILD}|MARK|MARK|text|{STORAGE}|text|text|int|TUPLE|BINPERSID|int|int|int|TUPLE2|int|int|"
    f"TUPLE2|bool|{HOOKS}|EMPTY_TUPLE|REDUCE|TUPLE|REDUCE|STOP"
).split("|")


@dataclass(frozen=True)
class _Matrix:
    storage: zipfile.ZipInfo
    rows: int


def count_rows(path: str | Path, dim: int) -> int:
    """Rows of a preset whose rows have `dim` numbers, from its description and size alone.

    Raises VoiceError if the file is anything but one plain contiguous bfloat16 matrix [N, dim].
    """
    with _opened(Path(path)) as archive:
        return _examine(archive, Path(path), dim).rows


def read_preset(path: str | Path, dim: int) -> "Tensor":
    """A preset as a tensor [N, dim] in bf16; nothing is unpickled.

    Raises VoiceError if the file is anything but one plain contiguous bfloat16 matrix [N, dim] of
    finite numbers.
    """
    import torch

    with _opened(Path(path)) as archive:
        matrix = _examine(archive, Path(path), dim)
        data = bytearray(archive.read(matrix.storage))
    rows_ND = torch.frombuffer(data, dtype=torch.bfloat16).view(matrix.rows, dim)
    if not rows_ND.isfinite().all():
        raise VoiceError(f"The voice {path} has values that are not finite: make it again.")
    return rows_ND


def write_preset(path: str | Path, rows_ND: "Tensor") -> None:
    """Write rows [N, D] in bf16 so that every runtime reads them; the file appears complete or not
    at all. Raises ValueError for another dtype or shape, VoiceError for values not finite."""
    import torch

    path = Path(path)
    if rows_ND.dtype != torch.bfloat16 or rows_ND.ndim != 2 or not 0 < len(rows_ND) <= MAX_ROWS:
        raise ValueError(f"expected bf16 rows [N, D], got {rows_ND.dtype} {list(rows_ND.shape)}")
    if not rows_ND.isfinite().all():
        raise VoiceError(f"The voice for {path} has values that are not finite: make it again.")
    # A view would be stored with all of its base; a buffer makes the inner root `archive`.
    plain_ND = rows_ND.detach().cpu().clone(memory_format=torch.contiguous_format)
    buffer = io.BytesIO()
    torch.save(plain_ND, buffer)
    with atomic_file(path) as file:
        file.write(buffer.getvalue())


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip at `path`; whatever zipfile finds wrong with it becomes a VoiceError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except VoiceError:
        raise
    except FileNotFoundError:
        raise VoiceError(f"There is no voice file {path}.") from None
    except ZIP_ERRORS as error:
        raise VoiceError(
            f"The voice {path} is damaged or no zip as torch.save writes it ({error}): "
            "fetch or export it again."
        ) from None


def _examine(archive: zipfile.ZipFile, path: Path, dim: int) -> _Matrix:
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) != len(archive.infolist()) or len(entries) > MAX_ENTRIES:
        raise _refusal(path, "its zip has repeated or too many entries")
    roots = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1 or any(not name.startswith(f"{roots[0]}/") for name in entries):
        raise _refusal(path, "its zip has no single <root>/data.pkl")
    root = roots[0]
    storages = [name for name in entries if name.startswith(f"{root}/data/")]
    if storages != [f"{root}/data/0"]:
        raise _refusal(path, f"its zip holds {len(storages)} storages instead of one, data/0")
    storage, pickled = entries[storages[0]], entries[f"{root}/data.pkl"]
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise _refusal(path, "its zip is compressed")
    if pickled.file_size > MAX_PICKLE:
        raise _refusal(path, f"its data.pkl has {pickled.file_size} bytes")
    order = entries.get(f"{root}/byteorder")
    if order is not None and (order.file_size != 6 or archive.read(order) != b"little"):
        raise _refusal(path, "its bytes are not in little-endian order")
    rows, width = _matrix_shape(archive.read(pickled), path)
    if width != dim:
        raise VoiceError(
            f"The voice {path} has rows of {width} numbers but the release has rows of {dim}: "
            "it was made for another release."
        )
    if storage.file_size != rows * dim * 2:
        raise _refusal(
            path, f"it describes {rows} rows of {dim} numbers but holds {storage.file_size} bytes"
        )
    return _Matrix(storage, rows)


def _matrix_shape(pickled: bytes, path: Path) -> tuple[int, int]:
    """Rows and columns that a pickle describes; its instructions are listed, never carried out."""
    kinds: list[str] = []
    values: list[Any] = []
    end = 0
    for operation, argument, position in pickletools.genops(pickled):
        end = (position or 0) + 1
        if operation.name in BOOKKEEPING:
            continue
        kind = KINDS.get(operation.name, operation.name)
        if kind in {"GLOBAL", "INST"}:
            kind = str(argument)
            if kind.startswith("torch ") and kind.endswith("Storage") and kind != STORAGE:
                raise _refusal(path, f"its numbers are of {kind}, not of {STORAGE}")
            if kind not in {REBUILD, STORAGE, HOOKS}:
                raise _refusal(path, f"it asks for {kind.replace(' ', '.')!r}")
        elif kind in {"text", "int"}:
            values.append(argument)
        kinds.append(kind)
    if kinds != PLAIN or end != len(pickled) or values[:2] != ["storage", "0"]:
        raise _refusal(path, "its data.pkl describes something else")
    numel, offset, rows, columns, stride, step = values[3:]
    contiguous = step == 1 and (stride == columns or rows == 1)
    if offset or not contiguous or numel != rows * columns:
        raise _refusal(path, "it is a view of a larger or a transposed tensor")
    if not 0 < rows <= MAX_ROWS:
        raise _refusal(path, f"it has {rows} rows")
    return rows, columns


def _refusal(path: Path, why: str) -> VoiceError:
    return VoiceError(
        f"The voice {path} is not one plain contiguous bfloat16 tensor: {why}. Nothing in it was "
        "run; save such a tensor with torch.save."
    )
