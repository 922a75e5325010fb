"""Several processes that train, score or forecast together: their ranks, and the sums and values that they exchange.

torchrun starts them and describes them in the environment (RANK, WORLD_SIZE, LOCAL_RANK). Without it there is one process, and
every function here returns at once. Gradients are added up here and not by DistributedDataParallel, because processes may
have different numbers of cases, and the sum must be exactly the gradient of the whole batch.

torch, which takes most of a second to import, is imported only where there are several processes.
"""

import atexit
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from nowcast.errors import NowcastError, UsageError
from nowcast.runtime.streams import stdout_to_stderr

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)
PATIENCE = timedelta(days=2)  # the first process may be packing an archive; torchrun ends processes that wait for a dead one


def rank() -> int:
    """Return the number of this process among all, from 0."""
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this is the first process, the only one that writes files and prints."""
    return rank() == 0


def launch() -> str:
    """Return a name for this launch of torchrun, the same in all its processes and after a restart; "" without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return gather(f"of process {os.getppid()}" if name == "none" else name)[0]


def _attempt() -> int:
    """Return how often torchrun has restarted the processes; 0 if each group of processes has a store of its own.

    Processes meet through a store. Torchrun's own store outlives them, so a restarted group needs another prefix in it, or it
    would wait for processes that died. Each node counts its restarts separately, so on several nodes every group needs its own
    store: scripts/train.slurm sets the variable that makes torchrun do so.
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if shared and is_first() and int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1:
        log.warning("a process that dies cannot be replaced: set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun")
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) if shared else 0


def join(device: "torch.device | None") -> "torch.device | None":
    """Connect to the other processes, once; return the device of this one, which is a GPU of its own if there are several.

    A single process may have none. Raises UsageError (exit 2) if there are more processes than GPUs here, or the device is
    neither CPU nor CUDA.
    """
    if size() == 1:
        return device
    import cv2
    import torch

    from nowcast.runtime.device import num_cores

    if device.type == "cuda":
        number, num_gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if number >= num_gpus:
            raise UsageError(f"process {number + 1} on this machine has no GPU: there are {num_gpus}; start as many processes")
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise UsageError(f"--device {device.type}: several processes work on cpu or cuda")
    cv2.setNumThreads(max(num_cores() // size_here(), 1))
    if not torch.distributed.is_initialized():
        store, _, _ = next(torch.distributed.rendezvous("env://"))
        store = torch.distributed.PrefixStore(f"nowcast-{_attempt()}", store)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        with stdout_to_stderr():  # gloo of torch 2.8 prints how many processes are connected
            torch.distributed.init_process_group(backend, store=store, rank=rank(), world_size=size(), timeout=PATIENCE)
        atexit.register(leave)
    return device


def leave() -> None:
    """Disconnect from the other processes."""
    if size() == 1:
        return
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def add_up(tensors: "Sequence[Tensor]") -> None:
    """Replace tensors of any shape by their sums over the processes, in one message. All must be float32 on one device."""
    if size() == 1:
        return
    import torch

    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
    torch.distributed.all_reduce(flat)
    sums = flat.split([tensor.numel() for tensor in tensors])
    for tensor, total in zip(tensors, sums, strict=True):
        tensor.detach().copy_(total.view_as(tensor))


def largest(number: int) -> int:
    """Return the largest of the processes' numbers."""
    if size() == 1:
        return number
    import torch

    result = torch.tensor([number])
    torch.distributed.all_reduce(result, op=torch.distributed.ReduceOp.MAX)
    return int(result)


def gather(value: Any) -> list[Any]:
    """Return the values of all processes, by rank. They are pickled, between processes of one user's own run."""
    if size() == 1:
        return [value]
    import torch

    values = [None] * size()
    torch.distributed.all_gather_object(values, value)
    return values


def size_here() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def in_turn() -> Iterator[None]:
    """Run the block in the first process, then in the others, which read its results from the cache.

    If the first fails, the others end with its exit code and without a message.
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
    """Let the processes leave the block together: if one fails, the others finish theirs and then end with its exit code."""
    try:
        yield
    except Exception as error:
        gather(getattr(error, "exit_code", 1))
        raise
    if code := max(gather(0)):
        raise SystemExit(code)
