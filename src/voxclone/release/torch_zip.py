"""The zip that `torch.save` writes, read without unpickling.

Such a zip has `<root>/data.pkl`, which describes tensors, and a file in `<root>/data/` for the
numbers of each storage. A pickle is a program. It is not run here: `pickletools` lists its
instructions, and those that tensors, mappings, lists and numbers need are followed on paper. Names
of functions stay text, nothing is imported, nothing is called. Any other instruction or name ends
the reading.
"""

import pickletools
import struct
import zipfile
from dataclasses import dataclass
from math import prod
from typing import Any

from voxclone.release.safetensors import MAX_DIMS

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
HOOKS = "collections OrderedDict"
STORAGES = {
    "torch FloatStorage": "F32",
    "torch BFloat16Storage": "BF16",
    "torch HalfStorage": "F16",
    "torch DoubleStorage": "F64",
    "torch LongStorage": "I64",
    "torch IntStorage": "I32",
    "torch ByteStorage": "U8",
    "torch BoolStorage": "BOOL",
}
TEXT = {"BINUNICODE", "SHORT_BINUNICODE", "UNICODE"}
NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
STORES = {"PUT", "BINPUT", "LONG_BINPUT"}
LOADS = {"GET", "BINGET", "LONG_BINGET"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False, "NONE": None}
NEW = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
IGNORED = {"PROTO", "FRAME", "STOP"}
_MARK = object()


class UnsupportedPickle(Exception):
    """The file holds something else than plain tensors; the message is a clause on what."""


@dataclass(frozen=True)
class Storage:
    """The numbers of tensors: dtype as in safetensors, name within `data/`, and their count."""

    dtype: str
    key: str
    values: int


@dataclass(frozen=True)
class TensorView:
    """A contiguous tensor in a storage; `offset` is in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TorchZip:
    """The value that data.pkl describes (a TensorView, or a mapping of values), the root, and the
    files in the zip."""

    value: Any
    root: str
    entries: dict[str, zipfile.ZipInfo]


@dataclass(frozen=True)
class _Global:
    name: str


def read_torch_zip(archive: zipfile.ZipFile, max_entries: int, max_pickle: int) -> TorchZip:
    """The description in a zip; no tensor is read. Raises UnsupportedPickle, or one of ZIP_ERRORS
    for a damaged zip."""
    infos = archive.infolist()
    entries = {entry.filename: entry for entry in infos}
    if len(entries) != len(infos) or len(infos) > max_entries:
        raise UnsupportedPickle("its zip has repeated or too many entries")
    roots = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1 or any(not name.startswith(f"{roots[0]}/") for name in entries):
        raise UnsupportedPickle("its zip has no single <root>/data.pkl")
    root = roots[0]
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in infos):
        raise UnsupportedPickle("its zip is compressed")
    order = entries.get(f"{root}/byteorder")
    if order is not None and (order.file_size != 6 or archive.read(order) != b"little"):
        raise UnsupportedPickle("its bytes are not in little-endian order")
    pickled = entries[f"{root}/data.pkl"]
    if pickled.file_size > max_pickle:
        raise UnsupportedPickle(f"its data.pkl has {pickled.file_size} bytes")
    return TorchZip(_follow(archive.read(pickled)), root, entries)


def _follow(pickled: bytes) -> Any:
    """The value that a pickle describes; its instructions are followed on paper."""
    stack: list[Any] = []
    memory: dict[Any, Any] = {}
    end = 0
    try:
        for operation, argument, position in pickletools.genops(pickled):
            end = (position or 0) + 1
            _step(operation.name, argument, stack, memory)
    except (IndexError, KeyError):
        raise UnsupportedPickle("its data.pkl takes what it has not put down") from None
    if end != len(pickled) or len(stack) != 1:
        raise UnsupportedPickle("its data.pkl describes something else")
    return stack[0]


def _step(name: str, argument: Any, stack: list[Any], memory: dict[Any, Any]) -> None:
    """One instruction of those that tensors and mappings need."""
    if name in STORES:
        memory[argument] = stack[-1]
    elif name == "MEMOIZE":
        memory[len(memory)] = stack[-1]
    elif name in LOADS:
        stack.append(memory[argument])
    elif name in IGNORED:
        pass
    elif name in TEXT or name in NUMBERS:
        stack.append(argument)
    elif name in CONSTANTS:
        stack.append(CONSTANTS[name])
    elif name == "MARK":
        stack.append(_MARK)
    elif name in NEW:
        stack.append(NEW[name]())
    elif name == "APPEND":
        item = stack.pop()
        _extend(stack[-1], [item])
    elif name == "APPENDS":
        items = _since_mark(stack)
        _extend(stack[-1], items)
    elif name == "TUPLE":
        stack.append(tuple(_since_mark(stack)))
    elif name in TUPLES:
        count = TUPLES[name]
        if len(stack) < count:
            raise IndexError
        stack[-count:] = [tuple(stack[-count:])]
    elif name == "GLOBAL":
        stack.append(_global(str(argument)))
    elif name == "BINPERSID":
        stack.append(_storage(stack.pop()))
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(_call(function, arguments))
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        _fill(stack[-1], [key, value])
    elif name == "SETITEMS":
        items = _since_mark(stack)
        _fill(stack[-1], items)
    elif name == "BUILD":  # the versions of modules that `state_dict` has beside its tensors
        state, target = stack.pop(), stack[-1]
        if not isinstance(target, dict) or not isinstance(state, dict):
            raise UnsupportedPickle("its data.pkl sets the state of an object")
    else:
        raise UnsupportedPickle(f"its data.pkl has the instruction {name}")


def _since_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _global(name: str) -> _Global:
    if name not in {REBUILD, HOOKS, *STORAGES}:
        numbers = name.startswith("torch ") and name.endswith("Storage")
        verb = "holds" if numbers else "asks for"
        raise UnsupportedPickle(f"it {verb} {name.replace(' ', '.')!r}")
    return _Global(name)


def _storage(value: Any) -> Storage:
    match value:
        case ("storage", _Global(name=kind), str(key), str(), int(values)) if kind in STORAGES:
            if key.isdecimal() and values >= 0:
                return Storage(STORAGES[kind], key, values)
    raise UnsupportedPickle("a storage is described in another way than torch.save does")


def _call(function: Any, arguments: Any) -> Any:
    """The result of a call: an empty mapping, or the description of a tensor."""
    match function, arguments:
        case _Global(name=name), () if name == HOOKS:
            return {}
        case (
            _Global(name=name),
            (Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), dict(), *_),
        ) if name == REBUILD:
            sizes = len(shape) <= MAX_DIMS and all(type(n) is int and n >= 0 for n in shape)
            if not sizes or offset < 0:
                raise UnsupportedPickle("the shape of a tensor is impossible")
            dense = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
            long = [axis for axis, count in enumerate(shape) if count != 1]
            if len(strides) != len(shape) or any(strides[i] != dense[i] for i in long):
                raise UnsupportedPickle("a tensor in it is not contiguous")
            return TensorView(storage, offset, shape)
    raise UnsupportedPickle("its data.pkl asks for a call that no tensor needs")


def _fill(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise UnsupportedPickle("its data.pkl fills something else than a mapping")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | int) or key in target:
            raise UnsupportedPickle("a mapping in it has a key that is no name, or is there twice")
        target[key] = value


def _extend(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise UnsupportedPickle("its data.pkl fills something else than a list")
    target.extend(items)
