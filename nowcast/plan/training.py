"""Choose the keys of `[training]`, which depend on the time of a step and on the time that the training may take."""

import math
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass

from nowcast.config.schema import Experiment
from nowcast.plan.choices import Choices, Size
from nowcast.plan.cost import Cost, kept_shape
from nowcast.plan.fingerprint import Fingerprint
from nowcast.plan.frames import FrameChoice
from nowcast.plan.own_archive import num_cases
from nowcast.runtime.cache import cache_folder

HOURS = {"cpu": 2.0, "cuda": 1 / 3, "mps": 1.0}  # h, of the whole training, by device, unless --hours sets them
FEWEST_STEPS, MOST_STEPS = 300, 20_000
ENOUGH_STEPS = 1000  # or half of the largest useful number; if there is no time for these, a smaller size is tried
FEW_EVENTS_STEPS, FEW_EVENTS_PATIENCE = 500, 4  # most steps for few events; validations without a better loss that end them
VALIDATIONS, FEWEST_VALIDATIONS = 8, 2  # not counting the one before the first step; 10 for few events
FEWEST_OF_FEW = 100  # steps for few events, if there is time
DRAWS = 10  # times that each crop of each window is used in each orientation; more would overfit
ENOUGH_CASES, FEWEST_CASES = 24, 8  # of a validation of the archive recipe, on whole grids
VALIDATION_SHARE = 0.25  # fraction of the time that these validations may take; more only for FEWEST_CASES
OVERHEAD = 1.1  # the time of a training relative to that of its steps: with validations on crops, fitting and saving
DISK_SHARE = 0.5  # fraction of the free disk space of the cache that guidance may fill


@dataclass(frozen=True)
class Length:
    """The length of a training: steps, and for the archive recipe the number of kept cases with guidance.

    most_steps: largest useful number of steps, independent of the time
    reason, kept_reason: for the comments of steps and kept cases
    hours: whole time, including guidance and validations
    validations, validation_cases: numbers for the archive recipe, whose validations are on whole grids
    validation_hours: time of these validations
    """

    steps: int
    most_steps: float
    reason: str
    hours: float
    kept_cases: int = 0
    kept_reason: str = ""
    validations: int = VALIDATIONS
    validation_cases: int = 0
    validation_hours: float = 0.0

    @property
    def is_enough(self) -> bool:
        """Return whether there are enough steps for a network of this width."""
        return self.steps >= min(ENOUGH_STEPS, self.most_steps / 2)


def orientations_of(augmentation: Collection[str]) -> int:
    """Return the number of flipped and rotated versions of each case."""
    return (1, 4, 8)[len(set(augmentation))]


def radar_length(
    fingerprint: Fingerprint, frames: FrameChoice, size: Size, recipe: Experiment, *, hours: float, cost: Cost
) -> Length:
    """Return the length of a training of the radar recipe: as much as the time allows, or less if more would overfit."""
    has_few_events = frames.splits.by != "days"
    fewest, most = (FEWEST_OF_FEW, FEW_EVENTS_STEPS) if has_few_events else (FEWEST_STEPS, MOST_STEPS)
    seconds = OVERHEAD * cost.step_seconds
    in_time = hours * 3600 / seconds
    places = [max(math.prod(record.shape) / size.crop**2, 1.0) if size.crop else 1.0 for record in fingerprint.series]
    mean_places = (
        sum(n * len(record.times) for n, record in zip(places, fingerprint.series, strict=True)) / fingerprint.num_frames
    )
    orientations = orientations_of(recipe.data.augmentation)
    in_data = DRAWS * orientations * frames.num_training * mean_places / size.batch_size
    most_steps = max(min(in_data, most), fewest)
    steps = two_digits(max(min(in_time, most_steps), 1))
    if in_time <= min(in_data, most):
        reason = f"as many as fit into {hours:.2g} h"
    elif in_data < most:
        windows = f"{frames.num_training:,} window{'s' if frames.num_training > 1 else ''}"
        reason = f"each place of {windows} is seen about {DRAWS} times in each of {orientations} orientations"
    else:
        reason = "more would overfit to few events" if has_few_events else "more would improve little"
    return Length(steps, most_steps, reason, steps * seconds / 3600)


def archive_length(
    fingerprint: Fingerprint,
    frames: FrameChoice,
    size: Size,
    recipe: Experiment,
    *,
    hours: float,
    cost: Cost,
    room: int,
) -> Length:
    """Return the length of a training of the archive recipe.

    If time is short, each case with guidance is used as often as in the recipe; if cases are few, more often.

    recipe: with its own number of steps, cases and validation cases
    room: number of cases whose guidance fits on the disk
    """
    given, total = recipe.training, hours * 3600
    grids = num_cases(fingerprint, fingerprint.series[0].shape, frames.num_validation)
    most_cases = min(given.validation_cases, grids)
    validations, cases = _validations(total, cost, most_cases)
    validating = cases * validation_seconds(cost, validations)
    total = max(total - validating, total / 2)
    uses = max(given.steps * given.batch_size / recipe.data.kept_cases, 1.0)
    kept_cells = kept_shape(recipe.data, fingerprint.series[0].shape)
    crops = max(math.prod(kept_cells) / size.crop**2, 1.0) if size.crop else 1.0  # that a kept case has room for
    supported = num_cases(fingerprint, kept_cells, frames.num_training)
    most_kept = two_digits(min(supported, room))
    per_step = OVERHEAD * cost.step_seconds
    in_time = total / (per_step + size.batch_size / uses * cost.guidance_seconds)
    if in_time * size.batch_size / uses > most_kept:
        in_time = (total - most_kept * cost.guidance_seconds) / per_step
    in_data = max(orientations_of(recipe.data.augmentation) * crops * most_kept / size.batch_size, 1)
    most_steps = min(in_data, MOST_STEPS)
    steps = two_digits(max(min(in_time, most_steps), 1))
    kept = two_digits(max(min(steps * size.batch_size / uses, most_kept), 1))
    spent = (steps * per_step + kept * cost.guidance_seconds + validating) / 3600
    why, why_kept = _why(steps, in_data, hours), _why_kept(kept, supported, room)
    return Length(steps, most_steps, why, spent, kept, why_kept, validations, cases, validating / 3600)


def validation_seconds(cost: Cost, validations: int) -> float:
    """Return the time of a case, s, in this number of validations and the one before the first step."""
    return cost.first_validation_seconds + (validations + 1) * cost.validation_seconds


def _validations(total: float, cost: Cost, most_cases: int) -> tuple[int, int]:
    """Return the number of validations and of their cases: fewer of both if they take long.

    total: seconds of the training
    """
    validations, cases = VALIDATIONS, 0.0
    while validations >= FEWEST_VALIDATIONS:
        cases = VALIDATION_SHARE * total / max(validation_seconds(cost, validations), 1e-9)
        if cases >= min(ENOUGH_CASES, most_cases):
            break
        validations //= 2
    return max(validations, FEWEST_VALIDATIONS), two_digits(max(min(cases, most_cases), min(FEWEST_CASES, most_cases), 1))


def _why(steps: int, in_data: float, hours: float) -> str:
    if steps == MOST_STEPS:
        return "more would improve little"
    if steps == two_digits(in_data):
        return "each case is then used about once in each of its orientations"
    return f"as many as fit into {hours:.2g} h"


def _why_kept(kept: int, supported: int, room: int) -> str:
    text = "cases with guidance, which is made before the first step and kept"
    if kept == two_digits(room):
        return f"{text}; the disk of the cache has no room for more"
    return f"{text}; the training windows support about {two_digits(supported):,}"


def cases_on_disk(bytes_per_case: int, disk_usage: Callable = shutil.disk_usage) -> int:
    """Return the number of cases for which the disk of the cache has room, rounded down to a power of 2.

    The rounding keeps plans equal while other files are written there.
    """
    folder = cache_folder().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = DISK_SHARE * disk_usage(existing).free
    return max(int(2 ** math.floor(math.log2(max(free, 1))) / bytes_per_case), 1)


def choose_training(choices: Choices, size: Size, length: Length, *, cost: Cost, device_name: str) -> None:
    """Choose the keys of `[training]` that depend on the length, for either recipe."""
    seconds, steps = cost.step_seconds, length.steps
    spent = f"about {length.hours:.2g} h, with {seconds:.2g} s a step on {device_name}"
    choices.set("training.steps", steps, f"{spent}; {length.reason}")
    choices.set("training.epochs", 0, "0, because steps are given")
    choices.set("training.batch_size", size.batch_size, f"cases; a step takes about {cost.memory_bytes / 1e9:.2g} GB")
    warmup = min(choices.tree["training"]["warmup_steps"], steps // 10)
    choices.set("training.warmup_steps", warmup, "a rising rate, because the first gradients are large")


def choose_archive_training(choices: Choices, length: Length) -> None:
    """Choose the keys that only the archive recipe has: kept cases, validations, the average of the weights.

    To be called before the steps of the recipe are replaced.
    """
    steps = length.steps
    choices.set("data.kept_cases", length.kept_cases, length.kept_reason)
    cases = "whole grids, the same each time, which choose the best checkpoint and the cuts"
    choices.set(
        "training.validation_cases",
        length.validation_cases,
        f"{cases}; all validations take about {length.validation_hours:.2g} h",
    )
    every = two_digits(max(steps / length.validations, 1))
    words = {8: "eight", 4: "four", 2: "two"}[length.validations]
    choices.set("training.validate_every", every, f"about {words} times in the run; each time a checkpoint is saved")
    given = choices.tree["training"]
    if steps < given["steps"]:  # an average over as large a part of the run
        horizon = max(steps / given["steps"] / (1 - given["ema"]), 5)
        average = round(1 - 1 / horizon, 4)
        choices.set("training.ema", average, f"forecasts use the average of the weights over about {horizon:.0f} steps")


def choose_radar_training(choices: Choices, size: Size, length: Length, *, has_few_events: bool) -> None:
    """Choose the keys that only the radar recipe has: a schedule for its length, and early stopping for few events.

    To be called before the steps of the recipe are replaced, to which its weight decay belongs.
    """
    training, steps = choices.tree["training"], length.steps
    if steps > training["steps"]:
        decay = float(f"{training['weight_decay'] * training['steps'] / steps:.2g}")
        choices.set("training.weight_decay", decay, "lower in proportion, because the run is longer")
    if size.width > 1:
        rate = training["learning_rate"] / size.width
        choices.set("training.learning_rate", rate, "at the end of the warm-up; lower for a wider network")
    validations, words = (10, "ten") if has_few_events else (VALIDATIONS, "eight")
    every = two_digits(max(steps / validations, 1))
    choices.set("training.validate_every", every, f"about {words} times in the run; each time a checkpoint is saved")
    if has_few_events:
        stop = f"ends after {FEW_EVENTS_PATIENCE} validations without a better loss: a network soon memorises few events"
        choices.set("training.early_stopping", FEW_EVENTS_PATIENCE, stop)
    horizon = min(max(steps / 24, 20), 1000)
    average = round(1 - 1 / horizon, 4)
    choices.set("training.ema", average, f"forecasts use the average of the weights over about {horizon:.0f} steps")


def two_digits(number: float) -> int:
    """Round down to two significant digits."""
    grain = 10 ** max(math.floor(math.log10(max(number, 1))) - 1, 0)
    return int(number // grain * grain)
