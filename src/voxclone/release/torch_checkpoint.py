"""`best_encoder.pt`: the file in which public attempts keep an encoder, read without unpickling.

It is what `torch.save` makes of a mapping name -> tensor, with the names `input_proj.*` and
`encoder_blocks.*` (the trainer of Al0olo/voxtral-voice-clone writes it so). A pickle is a program.
It is not run here: its instructions are listed with `pickletools`, and those that a plain mapping
of plain tensors needs are followed on paper. Names of functions stay text, nothing is imported,
nothing is called; any other instruction or name ends the reading.
"""

import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxclone.errors import ReleaseError
from voxclone.release.presets import BOOKKEEPING, HOOKS, KINDS, REBUILD, ZIP_ERRORS
from voxclone.release.safetensors import DTYPE_BYTES, MAX_DIMS, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

MAX_ENTRIES = 4096
MAX_PICKLE = 2**20
STORAGES = {
    "torch FloatStorage": "F32",
    "torch BFloat16Storage": "BF16",
    "torch HalfStorage": "F16",
    "torch DoubleStorage": "F64",
}
MEMORISED = {"PUT", "BINPUT", "LONG_BINPUT"}
RECALLED = {"GET", "BINGET", "LONG_BINGET"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class _Unfit(Exception):
    """The pickle describes something else than a mapping of tensors."""


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    dtype: str
    key: str
    values: int


@dataclass(frozen=True)
class _Described:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of such a file. In `tensors`, `start` and `stop` are bytes within the entry of the
    zip that holds the tensor's storage (`entries`)."""

    path: Path
    tensors: dict[str, TensorInfo]
    entries: dict[str, str]

    def load(self, name: str) -> "Tensor":
        """One tensor, as it is stored; its checksum is compared. Raises ReleaseError if damaged."""
        import torch

        info = self.tensors[name]
        try:
            with zipfile.ZipFile(self.path) as archive:
                data = bytearray(archive.read(self.entries[name])[info.start : info.stop])
        except ZIP_ERRORS as error:
            raise _damaged(self.path, error) from None
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
    """What is in a file that `torch.save` made of a mapping of tensors; no tensor is read.

    Raises ReleaseError for anything else: other objects, views that are not contiguous, integers,
    compressed or damaged zips.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _examine(archive, path)
    except _Unfit as error:
        raise ReleaseError(
            f"{path} is not a plain mapping of tensors, as `best_encoder.pt` is: {error}. Nothing "
            "in it was run. Save the encoder's tensors alone, as safetensors."
        ) from None
    except ZIP_ERRORS as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ReleaseError:
    return ReleaseError(
        f"{path} is damaged or no zip as torch.save writes it ({error}): fetch it again, or save "
        "the encoder's tensors as safetensors."
    )


def _examine(archive: zipfile.ZipFile, path: Path) -> Checkpoint:
    infos = archive.infolist()
    entries = {entry.filename: entry for entry in infos}
    if len(entries) != len(infos) or len(infos) > MAX_ENTRIES:
        raise _Unfit("its zip has repeated or too many entries")
    roots = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise _Unfit("its zip has no single <root>/data.pkl")
    root = roots[0]
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in infos):
        raise _Unfit("its zip is compressed")
    order = entries.get(f"{root}/byteorder")
    if order is not None and (order.file_size != 6 or archive.read(order) != b"little"):
        raise _Unfit("its bytes are not in little-endian order")
    pickled = entries[f"{root}/data.pkl"]
    if pickled.file_size > MAX_PICKLE:
        raise _Unfit(f"its data.pkl has {pickled.file_size} bytes")
    tensors: dict[str, TensorInfo] = {}
    places: dict[str, str] = {}
    for name, described in _follow(archive.read(pickled)).items():
        storage = described.storage
        size, place = DTYPE_BYTES[storage.dtype], f"{root}/data/{storage.key}"
        held = entries[place].file_size if place in entries else 0
        start = described.offset * size
        stop = start + prod(described.shape) * size
        if held != storage.values * size or stop > held:
            raise _Unfit(f"{name!r} needs {stop} bytes of {place}, which has {held}")
        tensors[name] = TensorInfo(storage.dtype, described.shape, start, stop)
        places[name] = place
    return Checkpoint(path, tensors, places)


def _follow(pickled: bytes) -> Mapping[str, _Described]:
    """The mapping that a pickle describes; its instructions are followed on paper."""
    stack: list[Any] = []
    memory: dict[Any, Any] = {}
    end = 0
    try:
        for operation, argument, position in pickletools.genops(pickled):
            end = (position or 0) + 1
            _step(operation.name, argument, stack, memory)
    except (IndexError, KeyError):
        raise _Unfit("its data.pkl takes what it has not put down") from None
    if end != len(pickled) or len(stack) != 1 or not isinstance(stack[0], dict):
        raise _Unfit("its data.pkl describes something else")
    for name, value in stack[0].items():
        if not isinstance(value, _Described):
            raise _Unfit(f"{name!r} is no tensor")
    return dict(stack[0])


def _step(name: str, argument: Any, stack: list[Any], memory: dict[Any, Any]) -> None:
    """One instruction of those that a mapping of tensors needs."""
    kind = KINDS.get(name)
    if name in MEMORISED:
        memory[argument] = stack[-1]
    elif name == "MEMOIZE":
        memory[len(memory)] = stack[-1]
    elif name in RECALLED:
        stack.append(memory[argument])
    elif name in BOOKKEEPING or name == "STOP":
        pass
    elif kind in ("text", "int"):
        stack.append(argument)
    elif kind == "bool":
        stack.append(name == "NEWTRUE")
    elif name == "MARK":
        stack.append(_MARK)
    elif name == "EMPTY_DICT":
        stack.append({})
    elif name == "EMPTY_TUPLE":
        stack.append(())
    elif name == "TUPLE":
        stack.append(tuple(_since_mark(stack)))
    elif name in TUPLES:
        count = TUPLES[name]
        if len(stack) < count:
            raise IndexError
        stack[-count:] = [tuple(stack[-count:])]
    elif name == "GLOBAL":
        stack.append(_named(str(argument)))
    elif name == "BINPERSID":
        stack.append(_storage(stack.pop()))
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(_described(function, arguments))
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        _fill(stack[-1], [key, value])
    elif name == "SETITEMS":
        items = _since_mark(stack)
        _fill(stack[-1], items)
    elif name == "BUILD":  # what `state_dict` says of module versions beside its tensors
        state, target = stack.pop(), stack[-1]
        if not isinstance(target, dict) or not isinstance(state, dict):
            raise _Unfit("its data.pkl sets the state of an object")
    else:
        raise _Unfit(f"its data.pkl has the instruction {name}")


def _since_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _named(name: str) -> _Global:
    if name not in {REBUILD, HOOKS, *STORAGES}:
        numbers = name.startswith("torch ") and name.endswith("Storage")
        raise _Unfit(f"it {'holds' if numbers else 'asks for'} {name.replace(' ', '.')!r}")
    return _Global(name)


def _storage(value: Any) -> _Storage:
    match value:
        case ("storage", _Global(name=kind), str(key), str(), int(values)) if kind in STORAGES:
            if key.isdecimal() and values >= 0:
                return _Storage(STORAGES[kind], key, values)
    raise _Unfit("a storage is described in another way than torch.save does")


def _described(function: Any, arguments: Any) -> Any:
    """What a call would give: an empty mapping, or a tensor's place and shape."""
    match function, arguments:
        case _Global(name=name), () if name == HOOKS:
            return {}
        case (
            _Global(name=name),
            (_Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), dict(), *_),
        ) if name == REBUILD:
            sizes = len(shape) <= MAX_DIMS and all(type(n) is int and n >= 0 for n in shape)
            if not sizes or offset < 0:
                raise _Unfit("the shape of a tensor is impossible")
            dense = tuple(prod(shape[place + 1 :]) for place in range(len(shape)))
            long = [place for place, count in enumerate(shape) if count != 1]
            if len(strides) != len(shape) or any(strides[i] != dense[i] for i in long):
                raise _Unfit("a tensor in it is no contiguous one")
            return _Described(storage, offset, shape)
    raise _Unfit("its data.pkl asks for a call that no tensor needs")


def _fill(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise _Unfit("its data.pkl fills something else than a mapping")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str) or key in target:
            raise _Unfit("a mapping in it has a key that is no text, or is there twice")
        target[key] = value
