"""Several processes that train one network: who this one is, and what they add up or agree on.

torchrun starts them and says so in the environment (RANK, WORLD_SIZE, LOCAL_RANK); without it there is one, and every function
here returns at once. Gradients are added up by ourselves instead of by DistributedDataParallel: the shares of a batch may
differ, and the sum must be the gradient of the whole batch exactly.
"""

import atexit
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nowcast.errors import UsageError


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Of all processes this one alone writes files and prints."""
    return rank() == 0


def is_restarted() -> bool:
    """torchrun has started the processes again after one of them died."""
    return _num_restarts() > 0


def _num_restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def join(device: torch.device) -> torch.device:
    """Meet the other processes, once; returns this one's own device, of several GPUs the one of its number here."""
    if size() == 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise UsageError(f"--device {device.type}: several processes train on cpu or cuda")
    if not torch.distributed.is_initialized():
        # torchrun's store outlives a restart: without a name of its own, the new group would call those that died
        store, _, _ = next(torch.distributed.rendezvous("env://"))
        store = torch.distributed.PrefixStore(f"nowcast-{_num_restarts()}", store)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, store=store, rank=rank(), world_size=size())
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


def barrier() -> None:
    """Nobody goes on until all have come here."""
    if size() > 1:
        torch.distributed.barrier()
