"""A fingerprint -> the value of every key that depends on the archive, and the reason for it.

Everything else stays as in the reference recipe, configs/radar.toml. What depends on the machine too (size of the network,
batch, steps) is chosen from `Size`, which recipe.py tries by real steps, and from what they took.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nowcast.config.schema import Experiment
from nowcast.config.toml import as_toml, with_settings
from nowcast.plan.fingerprint import Fingerprint
from nowcast.plan.frames import FrameChoice

FASTEST_KM_PER_HOUR = 60.0  # of rain, where its motion could not be measured
MARGIN, GRAIN = 32, 32  # cells: seen beside what moves through a crop, and what crops are a multiple of
SMALLEST_CROP, LARGEST_CROP = 128, {"cpu": 256, "cuda": 384, "mps": 256}
WHOLE_GRID = 1.5  # times the cells of a crop, up to which the whole grid is taken instead
MOVING_CROP = 160  # cells that move with the rain: nearly as many as the correlations of a place are measured over (192)
PATCHES = ((128, 8), (64, 4), (16, 2), (0, 1))  # (smallest side of grid or crop, cells to a patch)
LARGEST_PATCH = 4  # of a network that must tell where the rain goes, not only how it changes
PLAIN_WIDER = 2  # times the recipe's channels, which is shown more than frames
PLAIN_TRAINING = {"learning_rate": 5e-4, "weight_decay": 1e-2}
MANY_DAYS = 30  # so many that what is learnt is believed as a whole
REACH_SLACK = 0.5  # cells a step that the state may fall short
CEILINGS = (100.0, 200.0, 300.0)  # mm/h
CREDIBLE = 1e-3  # of the wet pixels: what fewer reach is a speck
HEAVY = 5.0  # mm/h, whose share is told
STRETCHED = 1.2  # sides of a cell: longer than so many times the other, turned rain is another rain
OUTAGE = 0.3  # more of a frame missing than usual
MANY_WINDOWS = 1000  # so many that some may be dropped
HOURS = {"cpu": 2.0, "cuda": 1 / 3, "mps": 1.0}
BATCH = {"cpu": 4, "cuda": 16, "mps": 8}
FEWEST_STEPS, MOST_STEPS = 300, 20_000
DRAWS = 10  # of each place of each window in each orientation, before more steps learn it by heart


@dataclass(frozen=True)
class Size:
    """What the machine must bear: the network's width as a multiple of the reference recipe's, crop (0: all) and batch."""

    width: float
    crop: int
    batch_size: int

    @property
    def work(self) -> float:
        """What a step takes, in proportion to other sizes of the same archive."""
        return self.width**2 * max(self.crop, 1) ** 2 * self.batch_size

    def smaller(self) -> "Size | None":
        """The next smaller one to try: fewer cases, then smaller crops, then a narrower network; None below that."""
        if self.batch_size > 2:
            return replace(self, batch_size=self.batch_size // 2)
        if self.crop > SMALLEST_CROP:
            return replace(self, crop=max(self.crop * 3 // 4 // GRAIN * GRAIN, SMALLEST_CROP))
        if self.width > 0.25:
            return replace(self, width=self.width / 2)
        return replace(self, batch_size=1) if self.batch_size > 1 else None


class Choices:
    """Values and reasons by dotted key, on top of the reference recipe and its comments."""

    def __init__(self, reference: Experiment, comments: Mapping[str, str]):
        self.tree, self.comments = as_toml(reference), dict(comments)
        self.warnings: list[str] = []

    def set(self, key: str, value: Any, reason: str) -> None:
        """A key of the reference recipe; one that its model or loss does not have is left out."""
        *sections, name = key.split(".")
        table = self.tree
        for section in sections:
            table = table[section]
        if name in table:
            table[name], self.comments[key] = value, reason

    def replace_section(self, section: str, values: Mapping[str, tuple[Any, str]]) -> None:
        """Another transform or loss than the reference recipe's, with its own keys."""
        self.comments = {key: text for key, text in self.comments.items() if not key.startswith(f"{section}.")}
        self.tree[section] = {key: value for key, (value, _) in values.items()}
        self.comments |= {f"{section}.{key}": reason for key, (_, reason) in values.items()}

    def experiment(self) -> Experiment:
        return with_settings(self.tree, (), source="plan")


def cells_per_step(found: Fingerprint, frames: FrameChoice) -> tuple[float, str]:
    """Motion to reckon with, in cells per frame, and where it is from."""
    if math.isfinite(found.motion_95):
        return found.motion_95, f"95 % of the rain moves at most {found.motion_95:.1f} cells a step"
    spacing = min((km for part in found.series for km in part.spacing_km if math.isfinite(km)), default=1.0)
    cells = min(max(FASTEST_KM_PER_HOUR * frames.minutes / 60 / spacing, 1.0), 32.0)
    return cells, f"too little rain to measure motion; {FASTEST_KM_PER_HOUR:g} km/h would be {cells:.1f} cells a step"


def is_lagrangian(found: Fingerprint) -> bool:
    """Rain is forecast along its motion, as in the reference recipe; whether another quantity moves so is not known."""
    return found.quantity.is_rain


def first_size(found: Fingerprint, frames: FrameChoice, device: str) -> Size:
    """The size to try first on such a device. In Lagrangian coordinates a crop need not hold the way of the rain."""
    motion, _ = cells_per_step(found, frames)
    needed = MOVING_CROP if is_lagrangian(found) else 2 * motion * frames.lead_frames + MARGIN
    crop = min(max(math.ceil(needed / GRAIN) * GRAIN, SMALLEST_CROP), LARGEST_CROP[device])
    shapes = {part.shape for part in found.series}
    if len(shapes) == 1 and math.prod(next(iter(shapes))) <= WHOLE_GRID * crop**2:
        crop = 0
    elif crop:
        crop = min(crop, math.ceil(max(map(max, shapes)) / GRAIN) * GRAIN)
    return Size(width=1.0 if device == "cpu" else 2.0, crop=crop, batch_size=BATCH[device])


def choose(found: Fingerprint, frames: FrameChoice, size: Size, choices: Choices) -> None:
    """Set all that does not hang on how fast the machine is."""
    _choose_windows(found, frames, choices)
    _choose_crop(found, frames, size, choices)
    _choose_transform(found, choices)
    _choose_model(found, frames, size, choices)
    _choose_loss(found, choices)


def _choose_windows(found: Fingerprint, frames: FrameChoice, choices: Choices) -> None:
    minutes, inputs, leads = frames.minutes, frames.input_frames, frames.lead_frames
    choices.set("data.input_frames", inputs, f"{(inputs - 1) * minutes:g} minutes of motion at a {minutes:g} minute step")
    shorter = f"; {frames.wanted_leads} would not leave windows to train and validate on" if leads < frames.wanted_leads else ""
    choices.set("data.lead_frames", leads, f"{frames.lead_minutes:g} minutes at a {minutes:g} minute step{shorter}")
    steps = sorted({part.minutes for part in found.series if math.isfinite(part.minutes)})
    if len(steps) > 1:
        choices.set("data.time_step", "auto", f"each record's own: {', '.join(f'{step:g}' for step in steps)} minutes")
    numbers = f"{frames.num_training:,} training and {frames.num_validation:,} validation windows"
    if frames.num_test:
        numbers = f"{frames.num_training:,} training, {frames.num_validation:,} validation and {frames.num_test:,} test windows"
    counted = f"; {numbers}" if frames.splits.by == "days" else ""
    choices.set("data.splits.by", frames.splits.by, frames.splits_reason + counted)
    for key, value in frames.splits.model_dump().items():
        if key != "by":
            comment = numbers if key == ("validation" if frames.splits.by == "spans" else "fractions") else None
            choices.set(f"data.splits.{key}", value, comment or choices.comments.get(f"data.splits.{key}", ""))
    if found.most_missing > found.missing + OUTAGE and frames.num_training >= MANY_WINDOWS:
        limit = math.ceil(100 * (found.missing + OUTAGE)) / 100
        choices.set("data.max_missing", limit, f"{percent(found.missing)} of a frame is missing as a rule: more is an outage")
    else:
        missing = f"{percent(found.missing)} of a frame is missing, {percent(found.most_missing)} at most"
        choices.set("data.max_missing", 1.0, f"keep all: {missing}")
    if not found.quantity.is_rain:
        choices.set("data.sampler", "uniform", "not rain: every window alike")
    if not is_lagrangian(found):
        choices.set("data.coordinates", "grid", "not rain: whether it moves with the air is not known")


def _choose_crop(found: Fingerprint, frames: FrameChoice, size: Size, choices: Choices) -> None:
    motion, source = cells_per_step(found, frames)
    shapes = {part.shape for part in found.series}
    if size.crop and is_lagrangian(found):
        choices.set("data.crop", size.crop, f"moves with the rain ({source}), so it needs room for growth and decay alone")
    elif size.crop:
        wanted = 2 * motion * frames.lead_frames + MARGIN
        is_less = "; no more for time, memory or grid" if size.crop < wanted else ""
        limit = (
            f"; {SMALLEST_CROP} at least"
            if size.crop == SMALLEST_CROP and not is_less
            else is_less or ", both ways, and a margin"
        )
        choices.set("data.crop", size.crop, f"{source}: {motion * frames.lead_frames:.0f} in {frames.lead_frames} steps{limit}")
    else:
        y, x = next(iter(shapes))
        choices.set("data.crop", 0, f"whole frames: {y} × {x} cells are few, and rain moves {motion:.1f} of them a step")
    ratios = [
        max(km) / min(km) for km in (part.spacing_km for part in found.series) if all(map(math.isfinite, km)) and min(km) > 0
    ]
    if max(ratios, default=1.0) > STRETCHED and "rotations" in choices.tree["data"]["augmentation"]:
        kept = [name for name in choices.tree["data"]["augmentation"] if name != "rotations"]
        choices.set("data.augmentation", kept, f"no rotations: a cell is {max(ratios):.2f} times as long one way as the other")


def _choose_transform(found: Fingerprint, choices: Choices) -> None:
    if not found.quantity.is_rain:
        top = max(found.maximum, 1.0)
        choices.replace_section("transform", {
            "name": ("linear", "not rain: values as they are"),
            "scale": (top, "becomes 1: the largest value read, or 1"),
            "ceiling": (top, "forecasts are cut to it"),
        })  # fmt: skip
        return
    credible = found.highest_credible(CREDIBLE)
    ceiling = next((limit for limit in CEILINGS if limit >= credible), CEILINGS[-1])
    reason = f"mm/h that becomes 1: one wet pixel in {1 / CREDIBLE:,.0f} reaches {credible:.0f} with its neighbours"
    choices.set("transform.ceiling", ceiling, f"{reason}; the highest is {found.maximum:.0f}")


def _choose_model(found: Fingerprint, frames: FrameChoice, size: Size, choices: Choices) -> None:
    if not is_lagrangian(found):
        model = {key: value for key, value in choices.tree["model"].items() if key != "trust"}
        model |= {"name": "encoder_forecaster", "output": "linear", "input_kernel_sizes": []}
        model["hidden_channels"] = [PLAIN_WIDER * width for width in model["hidden_channels"]]
        reasons = {"name": "Shi et al. 2015, in place of the reference recipe's, which is for rain", "output": "any value",
                   "input_kernel_sizes": "input-to-state; [] means the same"}  # fmt: skip
        comments = {key: choices.comments.get(f"model.{key}", "") for key in model} | reasons
        choices.replace_section("model", {key: (value, comments[key]) for key, value in model.items()})
        for key, value in PLAIN_TRAINING.items():
            choices.set(f"training.{key}", value, "of a network that has all to find out by itself")
    elif found.num_days >= MANY_DAYS:
        choices.set("model.trust", 1.0, f"{found.num_days} days of weather: what is learnt of them holds")
    model = choices.tree["model"]
    motion, _ = cells_per_step(found, frames)
    smallest = min(min(part.shape) for part in found.series)
    side = min(size.crop or smallest, smallest)
    largest = model["patch"] if is_lagrangian(found) else LARGEST_PATCH
    finest = min(next(patch for least, patch in PATCHES if side >= least), largest)
    coarser = 2 * finest if smallest >= 2 * finest else finest
    offered = ((finest, 3),) if is_lagrangian(found) else ((finest, 3), (finest, 5), (coarser, 5), (coarser, 7))
    patch, kernel = next((o for o in offered if _reach(*o) >= motion - REACH_SLACK), offered[-1])
    reach = _reach(patch, kernel)
    if "kernel_sizes" in model and "patch" in model:
        reason = f"{kernel} × {kernel} patches of {patch} move a state {reach} cells a step"
        reason += ", and rain stands still" if is_lagrangian(found) else f", and what it shows moves up to {motion:.1f}"
        choices.set("model.kernel_sizes", [kernel] * len(model["kernel_sizes"]), reason)
        choices.set("model.patch", patch, f"{patch} × {patch} cells are one place: fewer to convolve, farther reach")
        if reach < motion - REACH_SLACK and not is_lagrangian(found):
            choices.warnings.append(
                f"what it shows moves {motion:.1f} cells a step but a state {reach}: a coarser grid would serve better"
            )
    if "hidden_channels" in model:
        hidden = [max(round(width * size.width), 4) for width in model["hidden_channels"]]
        plain = "" if is_lagrangian(found) else f", but {PLAIN_WIDER} times as wide: it has all to find out by itself"
        widths = {1.0: f"as in the reference recipe{plain}", 2.0: f"twice the reference recipe's{plain}: a GPU has room"}
        narrow = f"{size.width:g} times the reference recipe's: more takes too much time or memory here"
        choices.set("model.hidden_channels", hidden, widths.get(size.width, narrow))


def _reach(patch: int, kernel: int) -> int:
    """Cells that a state can move in one step."""
    return patch * (kernel - 1) // 2


def _choose_loss(found: Fingerprint, choices: Choices) -> None:
    if not found.quantity.is_rain:
        choices.replace_section("loss", {"name": ("mae", "not rain: no rate weighs more than another")})


def num_steps(found: Fingerprint, frames: FrameChoice, size: Size, *, device: str, seconds: float, orientations: int):
    """Steps for the time there is, or fewer where the data is soon known by heart; and the reason."""
    in_time = HOURS[device] * 3600 / seconds
    places = [max(math.prod(part.shape) / size.crop**2, 1.0) if size.crop else 1.0 for part in found.series]
    mean_places = sum(n * len(part.times) for n, part in zip(places, found.series, strict=True)) / found.num_frames
    in_data = DRAWS * orientations * frames.num_training * mean_places / size.batch_size
    steps = _two_digits(min(max(min(in_time, in_data), FEWEST_STEPS), MOST_STEPS))
    if in_data < in_time and steps < MOST_STEPS:
        windows = f"{frames.num_training:,} window{'s' if frames.num_training > 1 else ''}"
        reason = f"each place of {windows} some {DRAWS} times in each of {orientations} orientations"
    else:
        reason = f"as many as {HOURS[device]:.2g} h allow" if steps < MOST_STEPS else "more would change little"
    return steps, reason


def choose_training(
    choices: Choices, size: Size, *, steps: int, reason: str, seconds: float, on: str, memory_mb: float
) -> None:
    """What hangs on the machine's speed, which has been measured."""
    training = choices.tree["training"]
    if steps > training["steps"]:
        decay = float(f"{training['weight_decay'] * training['steps'] / steps:.2g}")
        choices.set("training.weight_decay", decay, "the longer the run, the less in each step")
    spent = f"{steps * seconds / 3600:.2g} h at {seconds:.2g} s a step {on}"
    choices.set("training.steps", steps, f"{spent}; {reason}")
    choices.set("training.epochs", 0, "in place of steps")
    choices.set("training.batch_size", size.batch_size, f"a step takes {memory_mb:,.0f} MB at its peak")
    if size.width > 1:
        rate = choices.tree["training"]["learning_rate"] / size.width
        choices.set("training.learning_rate", rate, "a wider network takes smaller steps; at the end of the warm-up")
    choices.set(
        "training.warmup_steps", min(choices.tree["training"]["warmup_steps"], steps // 10), "the first gradients are wild"
    )
    choices.set(
        "training.validate_every", _two_digits(max(steps / 8, 1)), "about eight times in the run, each of which saves it"
    )
    horizon = min(max(steps / 24, 20), 1000)
    average = round(1 - 1 / horizon, 4)
    choices.set("training.ema", average, f"the average of the weights over about {horizon:.0f} steps is what forecasts")


def _two_digits(number: float) -> int:
    grain = 10 ** max(math.floor(math.log10(number)) - 1, 0)
    return int(number // grain * grain)


def percent(share: float, digits: int = 0) -> str:
    """For example `30 %`."""
    return f"{100 * share:.{digits}f} %"
