"""Divide the cores of a machine between a network and the processes that read its batches ahead."""

import contextlib
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from nowcast.dataset.batches import Batches
from nowcast.runtime.outputs import size
from nowcast.runtime.threads import threads_kept

log = logging.getLogger(__name__)
FEW_WORKERS, MOST_WORKERS = 4, 12  # processes that read batches while a GPU computes
FEW_WEIGHTS = 2000  # of a network, for each grid cell of a patch: above, one thread less costs more than it saves
SHARED_MEMORY = Path("/dev/shm")  # where processes of torch hand tensors to each other


def count_workers(wanted: int | str, *, finds_motion: bool, device_type: str, cores: int, processes: int) -> int:
    """Return how many processes read batches ahead; `wanted` is `training.workers`, a number or "auto".

    finds_motion: whether the motion of each case has to be estimated, which takes far longer than reading it
    cores: CPU cores of this process
    processes: training processes on this machine
    """
    if wanted != "auto":
        return wanted
    if device_type == "cpu":  # the cores are busy with the network itself
        return int(finds_motion and cores > processes)
    return min(max(cores // processes - 1, FEW_WORKERS), MOST_WORKERS) if finds_motion else FEW_WORKERS


@contextlib.contextmanager
def cores_left_to(
    workers: int, *, weights_per_cell: float, cores: int, environment: Mapping[str, str] = os.environ
) -> Iterator[None]:
    """Limit torch within a block to the cores that `workers` leave, if the network is small: a worker on a core of its threads
    delays them all at the end of each loop. The number of threads depends on nothing that changes between two runs.

    weights_per_cell: of the network, divided by the grid cells of a patch: its work beside that of the motion
    environment: with OMP_NUM_THREADS, the user has chosen the number of threads
    """
    with threads_kept(torch.get_num_threads, torch.set_num_threads):
        if workers and weights_per_cell <= FEW_WEIGHTS and "OMP_NUM_THREADS" not in environment:
            torch.set_num_threads(min(max(cores - workers, 1), torch.get_num_threads()))
        yield


def workers_that_fit(batches: Batches, workers: int, ahead: int, *, folder: Path = SHARED_MEMORY) -> int:
    """Return `workers`, or 0 with a warning if shared memory has no room for `ahead` batches and the one in use.

    A worker that finds no room there dies, or waits for ever.
    """
    if not workers or not folder.is_dir():
        return workers
    windows = batches.series[0].windows
    sides = (batches.crop, batches.crop) if batches.crop else batches.series[0].frames.shape[-2:]
    cases = -(-batches.batch_size // batches.share[1])
    needed = (ahead + 1) * cases * (windows.input_frames + windows.lead_frames) * math.prod(sides) * 4
    free = shutil.disk_usage(folder).free
    if free > needed:
        return workers
    message = "%s has %s free, and batches that are read ahead need %s: they are read by one process, more slowly"
    log.warning(message, folder, size(free), size(needed))
    return 0
