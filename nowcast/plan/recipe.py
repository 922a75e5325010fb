"""Make a recipe: records -> fingerprint -> a complete config with the reason for every value, tried on this machine.

The method is that of nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z): what the data can decide is computed from
the data, everything else stays as in the reference recipe, configs/radar.toml, and the result is a file that people can read
and change.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nowcast import __version__, config
from nowcast.config.schema import Data, Experiment
from nowcast.config.toml import inline, read_comments, write_commented
from nowcast.dataset.archive import Archive, check_alike, open_archive, open_split
from nowcast.errors import MemoryLimitError
from nowcast.netcdf.record import Record, log_readings
from nowcast.plan.choices import HEAVY, Choices, Size, choose, first_size, percent
from nowcast.plan.fingerprint import Fingerprint, take_fingerprint
from nowcast.plan.frames import ENOUGH, FEW_DAYS, FrameChoice, choose_frames
from nowcast.plan.training import HOURS, choose_training, num_steps
from nowcast.runtime.memory import free_memory, resident_memory
from nowcast.training.experiment import check_grids, resolve
from nowcast.training.learner import Learner
from nowcast.training.step_cost import Estimate, case_shape, estimate

log = logging.getLogger(__name__)
MEMORY_SHARE = 0.6  # share of the free memory (on a GPU: of all memory) that a step may take; validation needs some as well
STEPS_IN_TIME = 1000  # steps that must fit into HOURS; where steps take too long for that, a smaller size is tried
NEARLY_DRY = 0.005  # share of wet pixels below which a warning is given
MAIN_KEYS = ("data.input_frames", "data.lead_frames", "data.splits.by", "data.crop", "model.patch", "model.kernel_sizes",
        "model.hidden_channels", "training.batch_size", "training.steps")  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A config with a comment at each key, the lines above it, and warnings about the data for its user."""

    experiment: Experiment
    comments: Mapping[str, str]
    head: tuple[str, ...]
    warnings: tuple[str, ...]

    def text(self, experiment: Experiment | None = None) -> str:
        """Return the config as commented TOML.

        experiment: the config after --set has changed keys; those are commented "set by hand"
        """
        written = experiment or self.experiment
        same = {key for key in self.comments if _value(written, key) == _value(self.experiment, key)}
        comments = {key: text if key in same else "set by hand" for key, text in self.comments.items()}
        return write_commented(written, comments, self.head)

    def lines(self) -> list[str]:
        """Return the most important choices with their reasons, one per line."""
        return [
            f"{key} = {inline(_value(self.experiment, key))}  # {self.comments[key]}"
            for key in MAIN_KEYS
            if key in self.comments
        ]


def _value(experiment: Experiment, key: str) -> Any:
    """Return the value of a dotted key; None where there is none."""
    value = config.as_toml(experiment)
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


@dataclass(frozen=True)
class Measured:
    """A size that fits this machine, the config's choices for it, and what one of its steps costs in which precision."""

    size: Size
    choices: Choices
    cost: Estimate
    precision: str


def make_recipe(
    paths: Sequence[str],
    *,
    variable: str = "auto",
    device: torch.device,
    estimate: Callable[..., Estimate] = estimate,
    memory_limit: float | None = None,
) -> Recipe:
    """Look at the records and choose a complete config for training on them, on this device.

    estimate: measures a step, as `step_cost.estimate` does
    memory_limit: bytes that a step may take, by default a share of those that are free

    Raises what opening records raises, DataError (exit 3) where nothing was observed, NotEnoughFrames (exit 75) where
    training and validation cannot both have a window, MemoryLimitError (exit 7) where not even the smallest size fits.
    """
    records = open_split(paths, Data(records=tuple(paths), variable=variable))
    check_alike(records)
    fingerprint = take_fingerprint(records)
    log_readings(records)
    frames = choose_frames(fingerprint.series)
    measured = _largest_size(fingerprint, frames, paths, variable, device, estimate, memory_limit)
    _choose_training(fingerprint, frames, measured, device)
    choices = measured.choices
    warnings = (*_warnings(fingerprint, frames), *choices.warnings)
    return Recipe(resolve(choices.experiment()), choices.comments, tuple(_head(records, fingerprint, warnings)), warnings)


def reference_choices() -> Choices:
    """Return the reference recipe's values with its comments, before anything is chosen."""
    path = Path(__file__).with_name("radar.toml")
    return Choices(resolve(config.read(path)), read_comments(path.read_text(encoding="utf-8")))


def _largest_size(
    fingerprint: Fingerprint,
    frames: FrameChoice,
    paths: Sequence[str],
    variable: str,
    device: torch.device,
    estimate: Callable[..., Estimate],
    memory_limit: float | None,
) -> Measured:
    """Try sizes, the desired one first, by real steps, until one fits into memory and its steps are quick enough."""
    archive, size, seconds_wanted = (
        None,
        first_size(fingerprint, frames, device.type),
        HOURS[device.type] * 3600 / STEPS_IN_TIME,
    )
    while True:
        choices = _choices_for(fingerprint, frames, size, paths, variable)
        experiment = _with_batch(choices.experiment(), size)
        archive = archive or open_archive(experiment.data.model_copy(update={"max_missing": 1.0}))
        limit = memory_limit or _usable_memory(device)
        cost, precision = _measure(experiment, archive, device, seconds_wanted, estimate)
        fits = cost is not None and cost.memory_bytes <= limit
        seconds = cost.seconds_per_step if fits else math.inf
        smaller = _smaller(size, seconds, seconds_wanted)
        if fits and (seconds <= seconds_wanted or smaller is None):
            return Measured(size, choices, cost, precision)
        if smaller is None:
            raise MemoryLimitError(f"not even one case of a small network fits into {limit / 1e9:.1f} GB; free some memory")
        log.debug("%s takes %s a step; trying %s", size, f"{seconds:.2g} s" if fits else "too much memory", smaller)
        size = smaller


def _choices_for(fingerprint: Fingerprint, frames: FrameChoice, size: Size, paths: Sequence[str], variable: str) -> Choices:
    choices = reference_choices()
    choices.set("data.records", list(paths), "the records that this config was made for")
    choices.set("data.variable", variable, "found by CF standard name and units" if variable == "auto" else "set by --variable")
    choose(fingerprint, frames, size, choices)
    return choices


def _smaller(size: Size, seconds: float, wanted: float) -> Size | None:
    """Return the next smaller size; where steps are too slow, skip those expected to be too slow: each try takes time."""
    smaller = size.smaller()
    while smaller and seconds < math.inf and seconds * smaller.work / size.work > wanted and smaller.smaller():
        smaller = smaller.smaller()
    return smaller


def _with_batch(experiment: Experiment, size: Size) -> Experiment:
    training = experiment.training.model_copy(update={"batch_size": size.batch_size})
    return experiment.model_copy(update={"training": training})


def _measure(
    experiment: Experiment,
    archive: Archive,
    device: torch.device,
    seconds_wanted: float,
    estimate: Callable[..., Estimate],
) -> tuple[Estimate | None, str]:
    """Return the cost of a step, None where it does not fit into a GPU's memory, and the precision it was computed in."""
    learner = Learner(experiment, device)
    check_grids(archive, experiment.data.crop, learner.model)
    shape, batch_size = case_shape(experiment.data, archive), experiment.training.batch_size
    try:
        cost = estimate(learner, batch_size=batch_size, shape=shape, most_seconds=seconds_wanted)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        cost = None
    return cost, learner.precision_name


def _usable_memory(device: torch.device) -> float:
    """Return the bytes that a step may take, of the whole process on a CPU, on the device on a GPU."""
    if device.type == "cuda":
        return MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory
    return resident_memory() + MEMORY_SHARE * free_memory()


def _choose_training(fingerprint: Fingerprint, frames: FrameChoice, measured: Measured, device: torch.device) -> None:
    """Choose what depends on how long a step takes: the number of steps, and with it the schedule; and the precision."""
    seconds, choices = measured.cost.seconds_per_step, measured.choices
    augmentation = choices.tree["data"]["augmentation"]
    orientations = (4 if "flips" in augmentation else 1) * (2 if "rotations" in augmentation else 1)
    steps, reason = num_steps(
        fingerprint, frames, measured.size, device=device.type, seconds=seconds, orientations=orientations
    )  # fmt: skip
    choose_training(
        choices, measured.size, steps=steps, reason=reason, seconds=seconds,
        memory_mb=measured.cost.memory_bytes / 1e6, device_name=_device_name(device),
    )  # fmt: skip
    faster = f"bfloat16 where a short test finds it faster; {measured.precision} on this {device.type}"
    choices.set("training.precision", "auto", faster)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type} ({threads} thread{'s' if threads > 1 else ''})"


def _warnings(fingerprint: Fingerprint, frames: FrameChoice) -> list[str]:
    """Return what in the data limits the network, each with what would help."""
    warnings, leads = [], f"{frames.lead_minutes:g} of {frames.wanted_leads * frames.minutes:g} minutes"
    if frames.lead_frames < frames.wanted_leads:
        warnings.append(f"the runs of frames are short and allow {leads} of leads; longer runs would help")
    if not frames.is_apart:
        warnings.append(
            "validation follows training without a gap, so its scores are too good: score the network on another day"
        )
    if min(frames.num_training, frames.num_validation) < ENOUGH[0][1]:
        numbers = f"{frames.num_training:,} training and {frames.num_validation:,} validation windows"
        warnings.append(f"{numbers}: enough for a test run, too few to train a useful network; more days would help")
    if frames.has_few_days:
        warnings.append(
            f"validation has windows of {_count(frames.num_validation_days, 'day')}: "
            f"fewer than {FEW_DAYS} say little about other weather; more months would help"
        )
    if fingerprint.wet < NEARLY_DRY:
        warnings.append(f"{percent(fingerprint.wet, 2)} of the pixels are wet: there is hardly any rain to learn from")
    if not fingerprint.num_pairs:
        warnings.append("there is too little rain to measure motion: crop, patch and kernels are guesses")
    return warnings


def _head(records: Sequence[Record], fingerprint: Fingerprint, warnings: Sequence[str]) -> list[str]:
    """Return the lines above the config: what the records hold, and the warnings."""
    steps = dict.fromkeys(f"{record.minutes:g}" for record in fingerprint.series if math.isfinite(record.minutes))
    grids = dict.fromkeys(
        "{} × {} cells of {} km".format(*record.shape, _km(record.spacing_km)) for record in fingerprint.series
    )
    names, shown = ", ".join(record.name for record in records[:8]), list(grids)[:4]
    values = f"{percent(fingerprint.wet, 2)} wet, {percent(fingerprint.share_from(HEAVY), 3)} from {HEAVY:g} mm/h on"
    moved = f"motion {fingerprint.motion_median:.1f} cells a step, 95 % of it up to {fingerprint.motion_95:.1f}"
    return [
        f"Planned by nowcast {__version__} from a fingerprint of the records; every key is here, and may be changed.",
        "",
        f"{fingerprint.num_frames:,} frames on {_count(fingerprint.num_days, 'day')} every {', '.join(steps)} minutes: {names}",
        ", ".join(shown) + (f" and {len(grids) - len(shown)} other grids" if len(grids) > len(shown) else ""),
        f"{values}, {percent(fingerprint.missing)} missing ({_count(fingerprint.num_frames_read, 'frame')} read)",
        f"{moved} ({_count(fingerprint.num_pairs, 'pair')} of frames)"
        if fingerprint.num_pairs
        else "motion not measured: too little rain",
        *(f"Beware: {warning}." for warning in warnings),
    ]


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' if number != 1 else ''}"


def _km(spacing: tuple[float, float]) -> str:
    return " × ".join(f"{km:.3g}" if math.isfinite(km) else "?" for km in spacing)
