"""Choose the value of every config key that depends on the archive, with a reason.

All other keys stay as in the recipe that the plan starts from: configs/radar.toml, or configs/archive.toml (own_archive.py).
Keys that depend on the machine as well (width of the network, crop, batch, steps) follow from a `Size`; recipe.py finds the
largest one whose steps are quick enough.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nowcast.config.schema import Experiment
from nowcast.config.toml import as_toml, with_settings
from nowcast.plan.fingerprint import Fingerprint
from nowcast.plan.frames import FrameChoice

FASTEST_KM_PER_HOUR = 60.0  # km/h, assumed speed of rain where its motion could not be measured
MARGIN = 32  # cells of a crop in addition to the distance that rain moves
CROP_MULTIPLE = 32  # cells; every crop is a multiple of this
SMALLEST_CROP, LARGEST_CROP = 128, {"cpu": 256, "cuda": 384, "mps": 256}  # cells, by device
WHOLE_GRID = 1.5  # a grid of at most so many times the cells of the crop is trained on whole
MOVING_CROP = 160  # cells, in Lagrangian coordinates; the model measures correlations over windows of 192 cells
PATCHES = ((128, 8), (64, 4), (16, 2), (0, 1))  # (smallest side of grid or crop in cells, side of a patch in cells)
LARGEST_PATCH = 4  # cells, for a network on a fixed grid, which must also learn where the field moves
PLAIN_WIDER = 2  # times the channels of the reference recipe, whose network gets more inputs than the frames alone
PLAIN_TRAINING = {"learning_rate": 5e-4, "weight_decay": 1e-2}  # for a network that gets the frames alone
MANY_DAYS = 30  # number of days of data from which on model.trust is 1
REACH_SLACK = 0.5  # cells per time step by which the network's reach may be less than the motion
CEILINGS = (100.0, 200.0, 300.0)  # mm/h, for transform.ceiling
CREDIBLE = 1e-3  # fraction of wet pixels; a rate that fewer of them reach is considered noise
HEAVY = 5.0  # mm/h; the head of the config gives the share of pixels from this rate on
STRETCHED = 1.2  # ratio of a cell's sides above which fields are not rotated: rotated rain would have another shape
OUTAGE = 0.3  # missing fraction of a frame above the average, from which on the radar counts as failed
MANY_WINDOWS = 1000  # training windows from which on those with outages are dropped
BATCH = {"cpu": 4, "cuda": 16, "mps": 8}  # cases, by device


@dataclass(frozen=True)
class Size:
    """The properties that determine time and memory of a step.

    width: multiple of the reference recipe's number of channels
    crop: cells of a side, 0 for whole grids
    """

    width: float
    crop: int
    batch_size: int

    @property
    def work(self) -> float:
        """Return a number proportional to the time of a step, to compare sizes for one archive."""
        return self.width**2 * max(self.crop, 1) ** 2 * self.batch_size

    def smaller(self) -> "Size | None":
        """Return the next smaller size: fewer cases, then smaller crops, then a narrower network; None for the smallest."""
        if self.batch_size > 2:
            return replace(self, batch_size=self.batch_size // 2)
        if self.crop > SMALLEST_CROP:
            return replace(self, crop=max(self.crop * 3 // 4 // CROP_MULTIPLE * CROP_MULTIPLE, SMALLEST_CROP))
        if self.width > 0.25:
            return replace(self, width=self.width / 2)
        return replace(self, batch_size=1) if self.batch_size > 1 else None


class Choices:
    """Values and reasons by dotted key; keys that are not set keep value and comment of the reference recipe."""

    def __init__(self, reference: Experiment, comments: Mapping[str, str]):
        self.tree, self.comments = as_toml(reference), dict(comments)
        self.warnings: list[str] = []

    def set(self, key: str, value: Any, reason: str) -> None:
        """Set a key and its reason; ignore a key that the chosen model or loss does not have."""
        *sections, name = key.split(".")
        table = self.tree
        for section in sections:
            table = table[section]
        if name in table:
            table[name], self.comments[key] = value, reason

    def value(self, key: str) -> Any:
        """Return the value of a dotted key; None where there is none."""
        value: Any = self.tree
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def replace_section(self, section: str, values: Mapping[str, tuple[Any, str]]) -> None:
        """Replace a whole section, such as `[loss]`, by key -> (value, reason)."""
        self.comments = {key: text for key, text in self.comments.items() if not key.startswith(f"{section}.")}
        self.tree[section] = {key: value for key, (value, _) in values.items()}
        self.comments |= {f"{section}.{key}": reason for key, (_, reason) in values.items()}

    def experiment(self) -> Experiment:
        """Return the choices as a checked config. Raises UsageError (exit 2)."""
        return with_settings(self.tree, (), source="plan")


def cells_per_step(fingerprint: Fingerprint, frames: FrameChoice) -> tuple[float, str]:
    """Return the motion to allow for, cells per time step, and its source as text."""
    if math.isfinite(fingerprint.motion_95):
        return fingerprint.motion_95, f"95 % of the rain moves at most {fingerprint.motion_95:.1f} cells a step"
    spacing = min((km for record in fingerprint.series for km in record.spacing_km if math.isfinite(km)), default=1.0)
    cells = min(max(FASTEST_KM_PER_HOUR * frames.minutes / 60 / spacing, 1.0), 32.0)
    return cells, f"too little rain to measure motion; {FASTEST_KM_PER_HOUR:g} km/h would be {cells:.1f} cells a step"


def is_lagrangian(fingerprint: Fingerprint) -> bool:
    """Return whether to forecast along the motion: only for rain, as other quantities may not move with the air."""
    return fingerprint.quantity.is_rain


def first_size(fingerprint: Fingerprint, frames: FrameChoice, device: str) -> Size:
    """Return the size of the radar recipe to try first on a device of that type.

    A crop on a fixed grid must contain the whole path of the rain; one in Lagrangian coordinates moves with it.
    """
    motion, _ = cells_per_step(fingerprint, frames)
    needed = MOVING_CROP if is_lagrangian(fingerprint) else 2 * motion * frames.lead_frames + MARGIN
    crop = min(max(math.ceil(needed / CROP_MULTIPLE) * CROP_MULTIPLE, SMALLEST_CROP), LARGEST_CROP[device])
    shapes = {record.shape for record in fingerprint.series}
    if len(shapes) == 1 and math.prod(next(iter(shapes))) <= WHOLE_GRID * crop**2:
        crop = 0
    elif crop:
        crop = min(crop, math.ceil(max(map(max, shapes)) / CROP_MULTIPLE) * CROP_MULTIPLE)
    has_few_events = frames.splits.by != "days"
    return Size(width=1.0 if device == "cpu" or has_few_events else 2.0, crop=crop, batch_size=BATCH[device])


def choose(fingerprint: Fingerprint, frames: FrameChoice, size: Size, choices: Choices) -> None:
    """Choose every key of the radar recipe that does not depend on the speed of the machine."""
    choose_windows(fingerprint, frames, choices)
    _choose_crop(fingerprint, frames, size, choices)
    _choose_transform(fingerprint, choices)
    _choose_model(fingerprint, frames, size, choices)
    _choose_loss(fingerprint, choices)


def choose_windows(fingerprint: Fingerprint, frames: FrameChoice, choices: Choices) -> None:
    """Choose the frames of a window, the splits, and which windows are dropped."""
    minutes, inputs, leads = frames.minutes, frames.input_frames, frames.lead_frames
    choices.set("data.input_frames", inputs, f"{(inputs - 1) * minutes:g} minutes of motion at a {minutes:g} minute step")
    shorter = f"; {frames.wanted_leads} would not leave windows to train and validate on" if leads < frames.wanted_leads else ""
    choices.set("data.lead_frames", leads, f"{frames.lead_minutes:g} minutes at a {minutes:g} minute step{shorter}")
    steps = sorted({record.minutes for record in fingerprint.series if math.isfinite(record.minutes)})
    if len(steps) > 1:
        choices.set("data.time_step", "auto", f"each record's own: {', '.join(f'{step:g}' for step in steps)} minutes")
    numbers = f"{frames.num_training:,} training and {frames.num_validation:,} validation windows"
    if frames.num_test:
        numbers = f"{frames.num_training:,} training, {frames.num_validation:,} validation and {frames.num_test:,} test windows"
    counted = f"; {numbers}" if frames.splits.by == "days" else ""
    choices.set("data.splits.by", frames.splits.by, frames.splits_reason + counted)
    counted_at = {"spans": "validation", "days": "by"}.get(frames.splits.by, "fractions")
    for key, value in frames.splits.model_dump().items():
        if key != "by":
            comment = numbers if key == counted_at else None
            choices.set(f"data.splits.{key}", value, comment or choices.comments.get(f"data.splits.{key}", ""))
    if fingerprint.most_missing > fingerprint.missing + OUTAGE and frames.num_training >= MANY_WINDOWS:
        limit = math.ceil(100 * (fingerprint.missing + OUTAGE)) / 100
        choices.set(
            "data.max_missing",
            limit,
            f"{percent(fingerprint.missing)} of a frame is missing on average; a frame with more is an outage of the radar",
        )
    else:
        missing = f"{percent(fingerprint.missing)} of a frame is missing, {percent(fingerprint.most_missing)} at most"
        choices.set("data.max_missing", 1.0, f"keep all windows: {missing}")
    if not fingerprint.quantity.is_rain:
        choices.set("data.sampler", "uniform", "not rain: every window has the same chance")
    if not is_lagrangian(fingerprint):
        choices.set("data.coordinates", "grid", "not rain: it may not move with the air")


def _choose_crop(fingerprint: Fingerprint, frames: FrameChoice, size: Size, choices: Choices) -> None:
    motion, source = cells_per_step(fingerprint, frames)
    shapes = {record.shape for record in fingerprint.series}
    if size.crop and is_lagrangian(fingerprint):
        choices.set("data.crop", size.crop, f"moves with the rain ({source}), so it need not contain its path")
    elif size.crop:
        wanted = 2 * motion * frames.lead_frames + MARGIN
        is_less = "; time, memory or the grid allow no more" if size.crop < wanted else ""
        limit = (
            f"; {SMALLEST_CROP} at least"
            if size.crop == SMALLEST_CROP and not is_less
            else is_less or ", both ways, and a margin"
        )
        choices.set("data.crop", size.crop, f"{source}: {motion * frames.lead_frames:.0f} in {frames.lead_frames} steps{limit}")
    else:
        y, x = next(iter(shapes))
        choices.set("data.crop", 0, f"whole frames: {y} × {x} are few cells, and motion is {motion:.1f} cells a step")
    choose_orientations(fingerprint, size, choices)


def choose_orientations(fingerprint: Fingerprint, size: Size, choices: Choices) -> None:
    """Leave out rotations if cells are not square, or if whole grids are used that are not square."""
    ratios = [
        max(km) / min(km)
        for km in (record.spacing_km for record in fingerprint.series)
        if all(map(math.isfinite, km)) and min(km) > 0
    ]
    augmentation, (y, x) = choices.tree["data"]["augmentation"], fingerprint.series[0].shape
    is_stretched, is_long = max(ratios, default=1.0) > STRETCHED, not size.crop and y != x
    if "rotations" in augmentation and (is_stretched or is_long):
        why = f"a cell is {max(ratios):.2f} times as long as it is wide" if is_stretched else f"{y} × {x} cells are not square"
        choices.set("data.augmentation", [name for name in augmentation if name != "rotations"], f"no rotations: {why}")


def _choose_transform(fingerprint: Fingerprint, choices: Choices) -> None:
    if not fingerprint.quantity.is_rain:
        top = max(fingerprint.maximum, 1.0)
        choices.replace_section("transform", {
            "name": ("linear", "not rain: values are only scaled"),
            "scale": (top, "the value that becomes 1: the largest one read, at least 1"),
            "ceiling": (top, "the largest value that is forecast"),
        })  # fmt: skip
        return
    credible = fingerprint.highest_credible(CREDIBLE)
    ceiling = next((limit for limit in CEILINGS if limit >= credible), CEILINGS[-1])
    reason = f"mm/h that becomes 1; one wet pixel in {1 / CREDIBLE:,.0f} and its neighbours reach {credible:.0f}"
    choices.set("transform.ceiling", ceiling, f"{reason}; the highest is {fingerprint.maximum:.0f}")


def _choose_model(fingerprint: Fingerprint, frames: FrameChoice, size: Size, choices: Choices) -> None:
    if not is_lagrangian(fingerprint):
        make_plain(choices)
    elif fingerprint.num_days >= MANY_DAYS:
        enough = f"{fingerprint.num_days} days of data are enough to use the learnt corrections in full"
        choices.set("model.trust", 1.0, enough)
    model = choices.tree["model"]
    if "kernel_sizes" in model and "patch" in model:
        _choose_reach(fingerprint, frames, size, choices)
    if "hidden_channels" in model:
        hidden = [max(round(width * size.width), 4) for width in model["hidden_channels"]]
        is_plain = not is_lagrangian(fingerprint)
        plain = f", but {PLAIN_WIDER} times as wide, because its only input are the frames" if is_plain else ""
        widths = {1.0: f"as in the reference recipe{plain}", 2.0: f"twice the reference recipe's{plain}: a GPU has room"}
        narrow = f"{size.width:g} times the reference recipe's: more takes too much time or memory here"
        choices.set("model.hidden_channels", hidden, widths.get(size.width, narrow))


def make_plain(choices: Choices) -> None:
    """Replace the radar recipe's model, which is for rain, by one whose only input are the frames."""
    model = {key: value for key, value in choices.tree["model"].items() if key != "trust"}
    model |= {"name": "encoder_forecaster", "output": "linear", "input_kernel_sizes": []}
    model["hidden_channels"] = [PLAIN_WIDER * width for width in model["hidden_channels"]]
    reasons = {"name": "Shi et al. 2015; the reference recipe's model is for rain only", "output": "not limited",
               "input_kernel_sizes": "of the input-to-state convolutions; [] means as kernel_sizes"}  # fmt: skip
    comments = {key: choices.comments.get(f"model.{key}", "") for key in model} | reasons
    choices.replace_section("model", {key: (value, comments[key]) for key, value in model.items()})
    for key, value in PLAIN_TRAINING.items():
        choices.set(f"training.{key}", value, "for a network whose only input are the frames")


def _choose_reach(fingerprint: Fingerprint, frames: FrameChoice, size: Size, choices: Choices) -> None:
    """Choose patch and kernels; on a fixed grid the network's state must be able to move as far per time step as the rain."""
    model, moves_along = choices.tree["model"], is_lagrangian(fingerprint)
    motion, _ = cells_per_step(fingerprint, frames)
    smallest = min(min(record.shape) for record in fingerprint.series)
    side = min(size.crop or smallest, smallest)
    finest = min(next(patch for least, patch in PATCHES if side >= least), model["patch"] if moves_along else LARGEST_PATCH)
    keeps = finest < model["patch"] and _can_keep_patch(fingerprint, frames, side, model["patch"])
    finest = model["patch"] if keeps else finest
    coarser = 2 * finest if smallest >= 2 * finest else finest
    offered = ((finest, 3),) if moves_along else ((finest, 3), (finest, 5), (coarser, 5), (coarser, 7))
    patch, kernel = next((o for o in offered if _reach(*o) >= motion - REACH_SLACK), offered[-1])
    reach = _reach(patch, kernel)
    enough = "enough, since the motion is already removed" if moves_along else f"the field moves up to {motion:.1f}"
    reason = f"information travels {reach} cells a step; {enough}"
    choices.set("model.kernel_sizes", [kernel] * len(model["kernel_sizes"]), reason)
    why = "as in the included network, from which training on few events starts" if keeps else "faster, and a longer reach"
    choices.set("model.patch", patch, f"{patch} × {patch} cells become the channels of one place: {why}")
    if reach < motion - REACH_SLACK and not moves_along:
        choices.warnings.append(
            f"the field moves {motion:.1f} cells a step but information only {reach}: a coarser grid would be better"
        )


def _can_keep_patch(fingerprint: Fingerprint, frames: FrameChoice, side: int, patch: int) -> bool:
    """Return whether a small grid keeps the recipe's patch, so that few events can start from the included network's weights.

    side: cells of the smallest side of a crop or grid
    """
    return is_lagrangian(fingerprint) and frames.splits.by != "days" and side >= 2 * patch


def _reach(patch: int, kernel: int) -> int:
    """Return how many cells a convolution with that kernel, over patches of that side, can move a state in one time step."""
    return patch * (kernel - 1) // 2


def _choose_loss(fingerprint: Fingerprint, choices: Choices) -> None:
    if not fingerprint.quantity.is_rain:
        choices.replace_section("loss", {"name": ("mae", "not rain: all values have the same weight")})


def percent(share: float, digits: int = 0) -> str:
    """Return, for example, `30 %`."""
    return f"{100 * share:.{digits}f} %"
