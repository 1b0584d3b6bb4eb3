"""Several processes that train one model together, each on its part of every batch.

Every process holds the whole model. The rule for losses: *the mean over processes of what each
computes is the loss of the whole batch*. A mean over equally many items is so by itself; what
divides by something that differs between parts (a mask, the power of a batch) divides by `mean` of
it, and what looks at the statistics of a batch looks at `gather` of it. After the backward pass the
gradients are averaged, in one flat tensor.

`DistributedDataParallel` is not used. Its hooks average in the backward pass, and a step may have
several: one for each micro-batch, and those of the speaker loss, all into the same gradients. It
would have to be silenced in all but the last. What it could hide is small between the GPUs of one
machine: 149 million gradients are 0.6 GB, some 5 ms over NVLink, beside 180 ms for a step of 32 s.
Over 100 Gbit/s between machines it is 0.1 s; there, give each process more speech a step. So one
all-reduce follows the last backward pass.

Without a process group every function here does nothing, or gives back what it was given.

A process that hangs must not hold the others for ever. Whoever waits longer than `LONGEST_STEP`, or
loses the connection, raises TrainingError with the machine of the process that is missing. Between
GPUs, NCCL ends the process instead, after the same time and with a message of its own.

Shapes: B items of a part, W processes.
"""

import json
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from voxclone.audio.decode import format_duration
from voxclone.errors import ConfigError, TrainingError, VoxcloneError
from voxclone.train.signals import Interrupted, stop_requested

LONGEST_STEP = timedelta(minutes=30)
"""So long a process waits for the others in a step. The slowest that is in order is one that writes
a checkpoint, or loads a model, on a slow disk."""
LONGEST_WAIT = timedelta(hours=12)
"""The first process packs speech and makes pairs while the others wait."""
GRACE_SECONDS = 10.0
"""So long a process that has lost others waits for those that are left to tell that they are."""


@dataclass(frozen=True)
class _ProcessGroup:
    """What the processes need beside PyTorch's default group: their store, how long one waits in
    a step, and a control group, with a longer timeout, in which they wait for the first process
    (`rank0_first`). A PyTorch without `distributed` has no such types."""

    store: Any
    longest_step: timedelta
    control_group: Any


_groups: list[_ProcessGroup] = []
"""The process group of this process, if it has joined one."""


def start(device: torch.device) -> None:
    """Join the processes that torchrun started; without torchrun, nothing. On CUDA each process
    takes the GPU of its number on the machine. Raises ConfigError if there are too few."""
    if not dist.is_available() or dist.is_initialized() or not dist.is_torchelastic_launched():
        return
    if device.type == "cuda":
        local, there = dist.get_node_local_rank(), torch.cuda.device_count()
        if local >= there:
            raise ConfigError(
                f"This machine has {there} GPUs and was given process {local + 1}: start at most "
                f"{there} on it (`torchrun --nproc-per-node {there}`)."
            )
        torch.cuda.set_device(local)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    join(backend, store, rank, size)


def join(
    backend: str,
    store: Any,
    rank: int,
    size: int,
    longest_step: timedelta = LONGEST_STEP,
) -> None:
    """Become the process `rank` of `size` that share a `Store` of PyTorch."""
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=longest_step)
    store.set(f"host-{rank}", socket.gethostname())
    control_group = dist.new_group(timeout=LONGEST_WAIT, backend="gloo")
    _groups.append(_ProcessGroup(store, longest_step, control_group))


def stop() -> None:
    """Leave the other processes."""
    if _together():
        _groups.clear()
        dist.destroy_process_group()


def world_size() -> int:
    return dist.get_world_size() if _together() else 1


def rank() -> int:
    return dist.get_rank() if _together() else 0


def is_rank0() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank() == 0


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def _waiting() -> Iterator[None]:
    """Within, the processes exchange tensors. Raises TrainingError if others are missing."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # gloo has no class for a lost connection
        raise _lost() from error


def _lost() -> TrainingError:
    """Tell the other processes that this one is there, and find who does not tell that."""
    group = _groups[-1]
    longest = format_duration(group.longest_step.total_seconds())
    deadline, store = time.monotonic() + GRACE_SECONDS, group.store
    missing = list(range(world_size()))
    try:
        store.set(f"left-{rank()}", "")
        while missing and time.monotonic() < deadline:
            time.sleep(0.1)
            missing = [each for each in missing if not store.check([f"left-{each}"])]
        named = [f"process {each} on {store.get(f'host-{each}').decode()}" for each in missing]
    except RuntimeError:  # the machine with the store is gone, and its entries with it
        named = ["the process that began the training"]
    if not named:
        return TrainingError(
            f"The processes of the training have lost each other: one of them, or the network, was "
            f"away for more than {longest}. See which machine is slow, and go on with `--resume`."
        )
    return TrainingError(
        f"The training has lost {' and '.join(named)}: it has ended, or has not answered for "
        f"{longest}. See the end of its log and whether its machine hangs, end what is left of it, "
        "and go on with `--resume`."
    )


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.detach().clone()
        with _waiting():
            dist.all_reduce(total)
        return total / world_size()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # d mean / d own is 1 / W, and averaging the gradients divides by W once more than the
        # rule for losses allows.
        return gradients[0]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own_B: Tensor) -> Tensor:
        parts = [torch.empty_like(own_B) for _ in range(world_size())]
        with _waiting():
            dist.all_gather(parts, own_B.detach().contiguous())
        ctx.items = len(own_B)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        own = slice(rank() * ctx.items, (rank() + 1) * ctx.items)
        return gradients[0][own] * world_size()


def mean(own: Tensor) -> Tensor:
    """The mean over processes of a tensor, with gradients."""
    result: Tensor = _Mean.apply(own) if world_size() > 1 else own
    return result


def gather(own_B: Tensor) -> Tensor:
    """The parts [B, ...] of all processes one after another [W B, ...], with gradients."""
    result: Tensor = _Gather.apply(own_B) if world_size() > 1 else own_B
    return result


def average_gradients(parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
    """Average the gradients of all processes in place, and `loss` with them, which is returned. A
    gradient that some processes lack counts as zero there; one that all lack stays away."""
    if world_size() == 1:
        return loss
    device = parameters[0].device
    there_N = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
    last = loss.detach().float().reshape(1)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([*(g.flatten().float() for g in grads), there_N, last.to(device)])
    with _waiting():
        dist.all_reduce(flat)
    flat /= world_size()
    values = flat.split([p.numel() for p in parameters] + [len(parameters), 1])
    for parameter, value, there in zip(parameters, values, values[-2].cpu().tolist(), strict=False):
        if there:
            parameter.grad = value.view_as(parameter).to(parameter.dtype)
    return values[-1][0]


def shard(layers: Iterable[nn.Module], whole: Sequence[nn.Parameter]) -> None:
    """Divide the frozen weights of layers over the processes (FSDP2), which put each layer together
    when it computes; parameters that are to stay `whole` do. All must then run the layers in
    step."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = whole[0].device.type
    mesh = init_device_mesh(device, (world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=set(whole))


def any_rank(*flags: bool) -> list[bool]:
    """For each flag, whether it is set in any process; all wait for all."""
    return list(flags) if world_size() == 1 else _max_over_ranks(flags, None)


def _max_over_ranks(flags: Sequence[bool], group: Any) -> list[bool]:
    shared = torch.tensor(flags, dtype=torch.int32)
    with _waiting():
        dist.all_reduce(shared, dist.ReduceOp.MAX, group)
    return [bool(flag) for flag in shared.tolist()]


def broadcast(values: Any) -> Any:
    """JSON values of the first process, to all."""
    if world_size() == 1:
        return values
    text = torch.tensor(list(json.dumps(values).encode()), dtype=torch.uint8)
    length = torch.tensor([len(text)])
    with _waiting():
        dist.broadcast(length, 0)
        if not is_rank0():
            text = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(text, 0)
    return json.loads(bytes(text.tolist()))


@contextmanager
def rank0_first() -> Iterator[None]:
    """The first process does the work, which leaves files; then the others do it, which read them.
    An error of the first leaves the others waiting until torchrun ends them, so it is printed once.
    What takes long may `check_stop` for signals, also those that came to the others."""
    done = is_rank0()
    while not done:
        done = _agree(done=False)
    yield
    if is_rank0():
        _agree(done=True)


class RaisedByRank0(Exception):
    """The first process raised an error that all have come to; it is printed once."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def fail_together(error: VoxcloneError) -> NoReturn:
    """Raise an error that all processes have come to: in the first one, RaisedByRank0 in others."""
    raise error if is_rank0() else RaisedByRank0(error.exit_code)


def check_stop() -> None:
    """Raise Interrupted, in all processes, if a signal has come to any. Called by the first one in
    `rank0_first`, where the others wait for it."""
    _agree(done=False)


def _agree(*, done: bool) -> bool:
    """Whether the first process is done. What is done is not interrupted any more."""
    flags = (stop_requested(), done)
    stopped, done = (
        flags if world_size() == 1 else _max_over_ranks(flags, _groups[-1].control_group)
    )
    if stopped and not done:
        raise Interrupted
    return done
