"""What a training would cost, and the largest batch that fits: found by real steps on made-up rain of the real shape.

Memory is that of the whole process at its peak (on a GPU: what torch holds there), seconds are those of one update.
"""

import gc
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nowcast.config.schema import Experiment
from nowcast.dataset.archive import Archive
from nowcast.dataset.batches import Batch
from nowcast.errors import MemoryLimitError
from nowcast.runtime import distributed
from nowcast.runtime.memory import free_memory, peak_memory, resident_memory, restart_peak
from nowcast.training.trainer import Trainer

log = logging.getLogger(__name__)
SECONDS = 5.0  # what the longest probe of an estimate may take, roughly
FEW = 4  # cases that it has all the same: the line through one and two leans on what the allocator kept by chance
SHARE = 0.8  # of the free memory that batch_size = "auto" fills: validation, workers and other processes need some too
LARGEST = 4096  # cases


@dataclass(frozen=True)
class Probe:
    """One update with so many cases: its seconds, and the bytes of memory at its peak."""

    cases: int
    seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Estimate:
    """Seconds of one step, and bytes of memory at the peak of the training."""

    seconds_per_step: float
    memory_bytes: int

    def as_dict(self, num_steps: int) -> dict[str, Any]:
        return {
            "seconds_per_step": round(self.seconds_per_step, 4),
            "estimated_hours": round(self.seconds_per_step * num_steps / 3600, 3),
            "estimated_memory_mb": round(self.memory_bytes / 1e6, 1),
        }


def estimate(trainer: Trainer) -> Estimate:
    """Probe with the whole batch where that is quick, else with one case and a few, and follow the line through them."""
    settings = trainer.settings
    probe(trainer, 1)  # the first run pays for set-up
    one = probe(trainer, 1)
    few = min(settings.batch_size, max(int(SECONDS / one.seconds), FEW))
    found = _at(settings.batch_size, one, probe(trainer, few)) if few > 1 else one
    return Estimate(found.seconds * settings.accumulate, found.memory_bytes)


def largest_batch(experiment: Experiment, plan: Archive, device: torch.device) -> int:
    """The largest batch whose step fits into the memory that is free, at most the training windows; it has been tried.

    Raises MemoryLimitError (exit 7) where one case does not fit.
    """
    single = experiment.training.model_copy(update={"batch_size": 1, "compile": False})  # CUDA graphs keep their memory
    trainer = Trainer(experiment.model_copy(update={"training": single}), plan, Path(), device=device)
    most = max(min(plan.num_windows("training"), LARGEST), 1)
    found = _largest_on_gpu(trainer, most) if device.type == "cuda" else _largest_on_cpu(trainer, most)
    log.info("batch_size = %d: the largest whose step fits into memory on %s", found, device.type)
    return found


def _largest_on_cpu(trainer: Trainer, most: int) -> int:
    """A CPU's memory ends with the process killed, so the size is reckoned from small batches and tried only then."""
    probe(trainer, 1)  # the first run pays for set-up
    small = tried = probe(trainer, 1)
    held = resident_memory()
    limit = held + SHARE * free_memory() / distributed.size_here()
    if small.memory_bytes > limit:
        needed = f"one case takes {small.memory_bytes / 1e9:.1f} GB in a step but {limit / 1e9:.1f} GB are free"
        raise MemoryLimitError(f"{needed}.\n{_cure(_crop_for(limit - held, small.memory_bytes - held, trainer))}")
    while tried.cases < most:
        wanted = 4 * tried.cases if tried is small else min(_cases_for(limit, small, tried), 8 * tried.cases)
        if wanted <= tried.cases:
            break
        larger = probe(trainer, min(wanted, most))
        if larger.memory_bytes > limit:
            return max(min(_cases_for(limit, small, larger), larger.cases - 1), tried.cases)
        tried = larger
    return tried.cases


def _cases_for(limit: float, small: Probe, large: Probe) -> int:
    """How many cases take `limit` bytes on the line through two probes."""
    per_case = (large.memory_bytes - small.memory_bytes) / (large.cases - small.cases)
    return small.cases + int((limit - small.memory_bytes) / max(per_case, 1.0))


def _largest_on_gpu(trainer: Trainer, most: int) -> int:
    """Doubled until it does not fit, then halved in between until an eighth is not worth another try."""
    fits, does_not, cases = 0, most + 1, 1
    while cases < does_not and _fits(trainer, cases):
        fits, cases = cases, min(2 * cases, most) if cases < most else does_not
    does_not = min(does_not, cases)
    while fits and does_not - fits > max(fits // 8, 1):
        middle = (fits + does_not) // 2
        fits, does_not = (middle, does_not) if _fits(trainer, middle) else (fits, middle)
    if not fits:
        total = _gpu_memory(trainer) / 1e9
        raise MemoryLimitError(f"one case does not fit into the {total:.1f} GB of the GPU.\n{_cure(_crop_on_gpu(trainer))}")
    return fits


def _crop_on_gpu(trainer: Trainer) -> int:
    """A crop whose step fits, found by halving it; 0 where none does."""
    multiple = trainer.model.cell_multiple
    crop = _side(trainer) // 2 // multiple * multiple
    while crop and not _fits(trainer, 1, crop=crop):
        crop = crop // 2 // multiple * multiple
    return crop


def _fits(trainer: Trainer, cases: int, *, crop: int | None = None) -> bool:
    try:
        return probe(trainer, cases, crop=crop).memory_bytes <= 0.9 * _gpu_memory(trainer)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return False


def _gpu_memory(trainer: Trainer) -> int:
    return torch.cuda.get_device_properties(trainer.device).total_memory


def _crop_for(room: float, needed: float, trainer: Trainer) -> int:
    """The crop that takes `room` bytes where the present one takes `needed`, in proportion to its cells; 0 for none."""
    multiple = trainer.model.cell_multiple
    return int(_side(trainer) * math.sqrt(max(room, 0) / max(needed, 1))) // multiple * multiple


def _side(trainer: Trainer) -> int:
    return _side_of(trainer.experiment, trainer.plan)


def _side_of(experiment: Experiment, plan: Archive) -> int:
    """The crop, or that of as many cells as the whole grid."""
    return experiment.data.crop or math.isqrt(math.prod(plan.records[0].grid.shape))


def _cure(crop: int) -> str:
    fits = f"data.crop = {crop} would fit" if crop else "No crop would fit"
    return f"{fits}; or try training.checkpoint_steps = 1, or a smaller model."


def what_would_fit(experiment: Experiment, plan: Archive, device: torch.device) -> str:
    """After a step ran out of memory: the batch that fits, or the crop where not even one case does; found by trying."""
    batch = experiment.training.batch_size
    told = f"out of memory with training.batch_size = {batch}"
    if distributed.size() > 1:
        return f"{told} over {distributed.size()} processes: choose a smaller one"
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        fits = min(largest_batch(experiment, plan, device), batch - 1)
    except MemoryLimitError as error:
        return str(error)
    if not fits:  # one case did fit just now, as others left it room
        crop = _side_of(experiment, plan)
        return f"{told}, the smallest.\nChoose a data.crop below {crop}, or training.checkpoint_steps = 1."
    return f"{told}: {fits} would fit, as with --resume --set training.batch_size={fits}"


def _at(cases: int, small: Probe, large: Probe) -> Probe:
    share = (cases - small.cases) / (large.cases - small.cases)
    seconds = small.seconds + share * (large.seconds - small.seconds)
    memory = small.memory_bytes + share * (large.memory_bytes - small.memory_bytes)
    return Probe(cases, max(seconds, small.seconds), round(memory))


def probe(trainer: Trainer, cases: int, *, crop: int | None = None) -> Probe:
    """One update of the trainer's weights with a made-up batch; the trainer is of no use for training afterwards."""
    crop = trainer.experiment.data.crop if crop is None else crop
    batch = _made_up(trainer.experiment, (crop, crop) if crop else trainer.plan.records[0].grid.shape, cases)
    restart_peak(trainer.device)
    start = time.perf_counter()
    trainer.model.train()
    trainer.batch_loss(batch).backward()
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    memory = peak_memory(trainer.device)  # on a GPU this waits for the step
    return Probe(cases, time.perf_counter() - start, memory)


def _made_up(experiment: Experiment, shape: tuple[int, int], cases: int) -> Batch:
    data = experiment.data
    frames = torch.rand(cases, data.input_frames + data.lead_frames, *shape)
    return Batch(frames[:, : data.input_frames], frames[:, data.input_frames :], ())
