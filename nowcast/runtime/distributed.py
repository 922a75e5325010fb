"""Several processes that train, score or forecast together: who this one is, and what they add up or agree on.

torchrun starts them and says so in the environment (RANK, WORLD_SIZE, LOCAL_RANK); without it there is one, and every function
here returns at once. Gradients are added up by ourselves instead of by DistributedDataParallel: the shares of a batch may
differ, and the sum must be the gradient of the whole batch exactly.
"""

import atexit
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import cv2
import torch
from torch import Tensor

from nowcast.errors import NowcastError, UsageError
from nowcast.runtime.device import num_cores

log = logging.getLogger(__name__)
PATIENCE = timedelta(days=2)  # while the first packs an archive; torchrun ends those that wait for a dead one


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Of all processes this one alone writes files and prints."""
    return rank() == 0


def launch() -> str:
    """What tells this call of torchrun from every other, the same for all its processes and those started anew; "" without."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return gather(f"of process {os.getppid()}" if name == "none" else name)[0]


def _attempt() -> int:
    """The number of the process group in the store that processes share with torchrun, which outlives them.

    Without a number of its own, a group that is started anew would call those that died. Torchrun counts on each node for
    itself, so over nodes every group needs a store of its own, which one variable asks torchrun for (scripts/train.slurm).
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if shared and is_first() and int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1:
        log.warning("a process that dies cannot be replaced: set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun")
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) if shared else 0


def join(device: torch.device) -> torch.device:
    """Meet the other processes, once; returns this one's own device, of several GPUs the one of its number here."""
    if size() == 1:
        return device
    if device.type == "cuda":
        number, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if number >= there:
            raise UsageError(f"process {number + 1} on this machine has no GPU: there are {there}; start as many processes")
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise UsageError(f"--device {device.type}: several processes work on cpu or cuda")
    cv2.setNumThreads(max(num_cores() // size_here(), 1))
    if not torch.distributed.is_initialized():
        store, _, _ = next(torch.distributed.rendezvous("env://"))
        store = torch.distributed.PrefixStore(f"nowcast-{_attempt()}", store)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, store=store, rank=rank(), world_size=size(), timeout=PATIENCE)
        atexit.register(leave)
    return device


def leave() -> None:
    """The end of what `join` began."""
    if size() > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over the processes: one message for all of them, which are float32 on one device."""
    if size() == 1:
        return
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
    torch.distributed.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.detach().copy_(part.view_as(tensor))


def largest(number: int) -> int:
    """The largest of the processes' numbers: what one has, all learn of."""
    if size() == 1:
        return number
    found = torch.tensor([number])
    torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)
    return int(found)


def gather(value: Any) -> list[Any]:
    """Every process's value, in the order of their ranks; values are pickled among processes of one user's run."""
    if size() == 1:
        return [value]
    found = [None] * size()
    torch.distributed.all_gather_object(found, value)
    return found


def size_here() -> int:
    """How many of the processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def in_turn() -> Iterator[None]:
    """The first process goes through the block alone, then the others: they find what it left in the cache.

    Where it fails, the others end with its exit code and say nothing more.
    """
    if size() == 1:
        yield
    elif is_first():
        code = 1
        try:
            yield
            code = 0
        except NowcastError as error:
            code = error.exit_code
            raise
        finally:
            gather(code)
    else:
        if code := gather(None)[0]:
            raise SystemExit(code)
        yield


@contextmanager
def together() -> Iterator[None]:
    """The processes leave the block together: where one fails, the others finish theirs and then end with its exit code."""
    try:
        yield
    except Exception as error:
        gather(getattr(error, "exit_code", 1))
        raise
    if code := max(gather(0)):
        raise SystemExit(code)
