"""Measure the time and memory of a training step by running steps, and find the largest batch that fits.

The steps run on random fields of the real shape. Memory is the peak of the whole process (on a GPU: of what torch has
reserved there); seconds are those of one update. For the largest batch, which must be the same at each start, the bytes of
tensors are counted instead. A learner that has been measured is of no use for training afterwards.
"""

import gc
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

import torch

from nowcast.config.schema import Data, Experiment
from nowcast.dataset.archive import Archive
from nowcast.dataset.batches import Batch
from nowcast.errors import MemoryLimitError
from nowcast.runtime import distributed
from nowcast.runtime.libraries import give_back_freed_memory
from nowcast.runtime.memory import free_memory, peak_bytes, peak_memory, resident_memory, restart_peak, total_memory
from nowcast.training.learner import Learner

log = logging.getLogger(__name__)
PROBE_SECONDS = 5.0  # s: approximate longest step of an estimate
FEWEST_CASES = 4  # of that step: a line through 1 and 2 cases would depend on what the allocator happens to keep
MEMORY_SHARE = 0.5  # of all memory that batch_size = "auto" fills; validation, reading and other programs need some as well
FREE_SHARE = 0.8  # fraction of the free memory for the batch suggested after running out of memory
PROCESS_BYTES = 6e8  # of the process without a step
GPU_MEMORY_SHARE = 0.9  # of a GPU's whole memory
MOST_CASES = 4096  # the largest batch that batch_size = "auto" gives
Shape = tuple[int, int]  # (y, x), grid cells


@dataclass(frozen=True)
class Probe:
    """One measured update: its number of cases, its seconds, and the peak memory in bytes."""

    cases: int
    seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Estimate:
    """Seconds of one step, and peak memory of the training in bytes."""

    seconds_per_step: float
    memory_bytes: int

    def as_dict(self, num_steps: int) -> dict[str, Any]:
        """Return seconds, hours for `num_steps` steps, and memory in MB, for the JSON of --dry-run."""
        return {
            "seconds_per_step": round(self.seconds_per_step, 4),
            "estimated_hours": round(self.seconds_per_step * num_steps / 3600, 3),
            "estimated_memory_mb": round(self.memory_bytes / 1e6, 1),
        }


def case_shape(data: Data, archive: Archive) -> Shape:
    """Return the (y, x) cells of one training case: the crop, or without a crop the whole grid."""
    return (data.crop, data.crop) if data.crop else archive.records[0].grid.shape


def probe(learner: Learner, cases: int, shape: Shape) -> Probe:
    """Measure one update with a batch of so many random cases of `shape` (y, x) cells."""
    batch = _random_batch(learner, shape, cases)
    give_back_freed_memory()  # of what was done before
    restart_peak(learner.device)
    start = time.perf_counter()
    _update(learner, batch)
    memory = peak_memory(learner.device)  # on a GPU this waits for the step
    return Probe(cases, time.perf_counter() - start, memory)


def _update(learner: Learner, batch: Batch) -> None:
    learner.model.train()
    learner.batch_loss(batch).backward()
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)


def _random_batch(learner: Learner, shape: Shape, cases: int) -> Batch:
    data = learner.experiment.data
    frames = torch.rand(cases, data.input_frames + data.lead_frames, *shape)
    blank = learner.model.blank_inputs(cases, data.lead_frames, shape)
    return Batch(frames[:, : data.input_frames], frames[:, data.input_frames :], (), blank.get("guidance"))


def estimate(learner: Learner, *, batch_size: int, shape: Shape, most_seconds: float = math.inf) -> Estimate:
    """Estimate the cost of one step with `batch_size` cases of `shape` (y, x) cells.

    Measures the whole batch where that is quick; otherwise one case and a few, extrapolated linearly. On a CPU, if one
    case shows that a step takes far more than `most_seconds`, returns a rough estimate from that case alone.
    Raises torch.OutOfMemoryError on a GPU.
    """
    first = probe(learner, 1, shape)  # slow, since it includes set-up
    if learner.device.type == "cpu" and first.seconds * batch_size > 2 * most_seconds:
        return Estimate(first.seconds * batch_size, first.memory_bytes)
    one = probe(learner, 1, shape)
    few = min(batch_size, max(int(PROBE_SECONDS / one.seconds), FEWEST_CASES))
    batch = _extrapolate(batch_size, one, probe(learner, few, shape)) if few > 1 else one
    return Estimate(batch.seconds * learner.settings.accumulate, batch.memory_bytes)


def _extrapolate(cases: int, small: Probe, large: Probe) -> Probe:
    """Return the cost of so many cases, on the line through two probes."""
    share = (cases - small.cases) / (large.cases - small.cases)
    seconds = small.seconds + share * (large.seconds - small.seconds)
    memory = small.memory_bytes + share * (large.memory_bytes - small.memory_bytes)
    return Probe(cases, max(seconds, small.seconds), round(memory))


def uncompiled(experiment: Experiment, device: torch.device) -> Learner:
    """Return a learner for `largest_batch`, not compiled: CUDA graphs would keep the memory of every size tried."""
    training = experiment.training.model_copy(update={"compile": False})
    return Learner(experiment.model_copy(update={"training": training}), device)


def largest_batch(learner: Learner, *, shape: Shape, most: int, share: float = MEMORY_SHARE) -> int:
    """Find the largest batch, of at most `most` cases of `shape` (y, x) cells, whose step fits into the memory of the machine.

    It is the same at each call, whatever else the machine does: the bytes of tensors are counted, and no free memory.

    share: of all memory that the training may take, on a CPU

    Raises MemoryLimitError (exit 7) where one case does not fit; the message names a crop that would.
    """
    most, on_gpu = max(min(most, MOST_CASES), 1), learner.device.type == "cuda"
    cases = _largest_on_gpu(learner, shape, most) if on_gpu else _largest_on_cpu(learner, shape, most, share)
    log.info("batch_size = %d: the largest whose step fits into memory on %s", cases, learner.device.type)
    return cases


def _largest_on_cpu(learner: Learner, shape: Shape, most: int, share: float) -> int:
    """Extrapolate from two small batches: trying too large a batch would kill the process."""
    held, one, per_case = _line(learner, shape)
    limit = share * total_memory() / distributed.size_here()
    if held + one > limit:
        needed = f"one case takes {(held + one) / 1e9:.1f} GB in a step but {limit / 1e9:.1f} GB may be used"
        raise MemoryLimitError(f"{needed}.\n{_advice(_crop_for(limit - held, one, learner, shape))}")
    cases = min(1 + int((limit - held - one) / max(per_case, 1.0)), most)
    needed, free = held + one + (cases - 1) * per_case, resident_memory() + free_memory() / distributed.size_here()
    if needed > free:
        problem = f"batch_size = {cases}, the largest for this machine, takes {needed / 1e9:.1f} GB"
        cure = "End other programs, or set training.batch_size to a smaller number."
        raise MemoryLimitError(f"{problem} but {free / 1e9:.1f} GB are free now.\n{cure}")
    return cases


def _line(learner: Learner, shape: Shape) -> tuple[float, float, float]:
    """Return the memory, bytes, of a training without a step, of a step with one case, and of each further case."""
    step_bytes(learner, 1, shape)  # allocates the state of the optimizer
    state = sum(tensor.nbytes for tensor in learner.state_tensors().values())
    one, few = (step_bytes(learner, cases, shape) for cases in (1, FEWEST_CASES))
    return PROCESS_BYTES + state, one, (few - one) / (FEWEST_CASES - 1)


def step_bytes(learner: Learner, cases: int, shape: Shape) -> int:
    """Count the bytes of all tensors of one update on a CPU at its peak, with so many cases of `shape` (y, x) cells."""
    batch = _random_batch(learner, shape, cases)
    return sum(tensor.nbytes for tensor in batch.tensors) + peak_bytes(lambda: _update(learner, batch), learner.device)


def _largest_on_gpu(learner: Learner, shape: Shape, most: int) -> int:
    """Double the batch until it does not fit, then bisect to within an eighth."""
    fits, too_large, cases = 0, most + 1, 1
    while cases < too_large and _fits(learner, cases, shape):
        fits, cases = cases, min(2 * cases, most) if cases < most else too_large
    too_large = min(too_large, cases)
    while fits and too_large - fits > max(fits // 8, 1):
        middle = (fits + too_large) // 2
        fits, too_large = (middle, too_large) if _fits(learner, middle, shape) else (fits, middle)
    if not fits:
        total = _gpu_memory(learner) / 1e9
        crop = _crop_on_gpu(learner, shape)
        raise MemoryLimitError(f"one case does not fit into the {total:.1f} GB of the GPU.\n{_advice(crop)}")
    return fits


def _fits(learner: Learner, cases: int, shape: Shape) -> bool:
    try:
        return probe(learner, cases, shape).memory_bytes <= GPU_MEMORY_SHARE * _gpu_memory(learner)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return False


def _gpu_memory(learner: Learner) -> int:
    return torch.cuda.get_device_properties(learner.device).total_memory


def _crop_on_gpu(learner: Learner, shape: Shape) -> int:
    """Halve the crop until one case fits; return it in cells, 0 where none does."""
    multiple = learner.model.cell_multiple
    crop = _side(shape) // 2 // multiple * multiple
    while crop and not _fits(learner, 1, (crop, crop)):
        crop = crop // 2 // multiple * multiple
    return crop


def _crop_for(room: float, needed: float, learner: Learner, shape: Shape) -> int:
    """Return the crop that takes `room` bytes if `shape` takes `needed`, in proportion to its cells; 0 for none."""
    multiple = learner.model.cell_multiple
    return int(_side(shape) * math.sqrt(max(room, 0) / max(needed, 1))) // multiple * multiple


def _side(shape: Shape) -> int:
    """Return the side of a square with the same number of cells."""
    return math.isqrt(math.prod(shape))


def _advice(crop: int) -> str:
    fits = f"data.crop = {crop} would fit" if crop else "No crop would fit"
    return f"{fits}; or try training.checkpoint_steps = 1, or a smaller model."


def what_would_fit(experiment: Experiment, device: torch.device, *, shape: Shape, most: int) -> str:
    """Return the text of an error after a step ran out of memory, with the batch size or crop that would fit.

    Finds it by measuring, at most `most` cases of `shape` (y, x) cells. The memory of the training must be freed before.
    """
    batch = experiment.training.batch_size
    problem = f"out of memory with training.batch_size = {batch}"
    if distributed.size() > 1:
        return f"{problem} over {distributed.size()} processes: choose a smaller one"
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:  # less than what was tried: what is free now can be less than the share
        share = min(MEMORY_SHARE, FREE_SHARE * free_memory() / total_memory())
        fits = min(largest_batch(uncompiled(experiment, device), shape=shape, most=most, share=share), batch - 1)
    except MemoryLimitError as error:
        return str(error)
    if not fits:  # one case did fit this time, because other processes left it more room
        return f"{problem}, the smallest.\nChoose a data.crop below {_side(shape)}, or training.checkpoint_steps = 1."
    return f"{problem}: {fits} would fit, as with --resume --set training.batch_size={fits}"
