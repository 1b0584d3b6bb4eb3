"""A device for machines without one: tensors on `meta` that are computed on the CPU.

Within `fake_device()` an operation on tensors of both devices fails, as it does between CPU and
GPU, and so does a draw there with a CPU generator. Code that passes gives the CPU's numbers, and
would not stop on a GPU for a tensor left on the CPU. Kernels, precision, memory and autocast of a
GPU are not tested.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from voxclone import device
from voxclone.device import multiplies_bf16
from voxclone.train import muon

FAKE_DEVICE = "meta"
CROSSING = {"aten::_to_copy", "aten::copy_", "aten::to"}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}

JOINING = {"aten::stack", "aten::cat"}


class Far(Tensor):
    """A tensor on the fake device; `here` is the CPU tensor of its values."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "Far":
        far: Far = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, here.size(), strides=here.stride(), storage_offset=here.storage_offset(),
            dtype=here.dtype, layout=here.layout, device=FAKE_DEVICE,
            requires_grad=here.requires_grad,
        )  # fmt: skip
        return far

    def __init__(self, here: Tensor) -> None:
        assert not here.is_meta
        self.here = here

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def check(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a result is on the fake device. Raises RuntimeError where a GPU would."""
    name = func._schema.name
    given = args
    if name in INDEXING:  # indices may be on the CPU, and must be if the tensor is
        if not isinstance(args[0], Far) and any(isinstance(x, Far) for x in tree_leaves(args[1])):
            raise RuntimeError(f"{name}: the indices are on the device, and the tensor is not")
        given = args[:1] + args[2:]
    tensors = [x for x in tree_leaves((given, kwargs)) if isinstance(x, Tensor)]
    if any(x.is_meta and not isinstance(x, Far) for x in tensors):
        raise RuntimeError(f"{name}: a meta tensor has no values, see `_FromPython`")
    there = any(isinstance(x, Far) for x in tensors)
    joins = name in JOINING  # a single number may be from the CPU otherwise
    left = [tuple(x.shape) for x in tensors if not isinstance(x, Far) and (x.dim() or joins)]
    if there and left and name not in CROSSING:
        raise RuntimeError(f"{name}: tensors of shapes {left} are not on the device")
    wanted = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.device)]
    if wanted:
        there = wanted[0].type == FAKE_DEVICE
    if there and kwargs.get("generator") is not None:
        raise RuntimeError(f"{name}: the generator is not on the device")
    return there


def compute(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on the CPU, and wrap its result if it belongs on the fake device."""
    there = check(func, args, kwargs)
    wrapped: dict[int, Far] = {}

    def unwrap(x: Any) -> Any:
        if not isinstance(x, Far):
            return torch.device("cpu") if isinstance(x, torch.device) else x
        wrapped[id(x.here)] = x
        return x.here

    def wrap(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        known = wrapped.get(id(x))
        if known is not None and (there or func._schema.name not in CROSSING):
            return known
        return Far(x) if there else x

    here_args, here_kwargs = tree_map(unwrap, (args, kwargs))
    # Wrappers made for inference alone could not be looked at in any other way later.
    with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
        result = func(*here_args, **here_kwargs)
        if torch.Tag.inplace_view in func.tags and isinstance(args[0], Far):
            with no_dispatch():
                func(*args, **kwargs)  # the shape of the wrapper, too
        return tree_map(wrap, result)


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class _FromPython(TorchFunctionMode):
    """Tensors and list indices made of Python's numbers: PyTorch itself would make them on `meta`,
    without values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            several = isinstance(args[1], tuple)
            at = [_index(x) for x in (args[1] if several else [args[1]])]
            args = (args[0], tuple(at) if several else at[0], *args[2:])
        if func in (torch.tensor, torch.as_tensor):
            device = kwargs.pop("device", None)
            made = func(*args, **kwargs)
            return made if device is None else made.to(device)
        if func is Tensor.tolist and isinstance(args[0], Far):
            return args[0].here.tolist()
        if func is Tensor.new_tensor:
            kwargs = {"dtype": args[0].dtype} | kwargs
            return torch.tensor(*args[1:], **kwargs).to(args[0].device)
        return func(*args, **kwargs)


def _index(x: Any) -> Any:
    if not isinstance(x, list):
        return x
    return torch.tensor(x) if x else torch.zeros(0, dtype=torch.long)


class _Autocast(torch.autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == FAKE_DEVICE else device_type, *args, **kwargs)


@contextmanager
def fake_device() -> Iterator[None]:
    """Within, the device `meta` can be used like one that computes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "autocast", _Autocast)
        own = multiplies_bf16(torch.device("cpu"))  # it computes on the CPU, and like it
        for module in (muon, device):
            patch.setattr(module, "multiplies_bf16", lambda _: own)
        with _FromPython(), _Dispatch():
            yield
