"""Choose the keys of `[training]`, which depend on the measured speed of the machine."""

import math

from nowcast.plan.choices import Choices, Size
from nowcast.plan.fingerprint import Fingerprint
from nowcast.plan.frames import FrameChoice

HOURS = {"cpu": 2.0, "cuda": 1 / 3, "mps": 1.0}  # h, of the whole training, by device
FEWEST_STEPS, MOST_STEPS = 300, 20_000
DRAWS = 10  # times that each place of each window is seen in each orientation; more would overfit


def num_steps(
    fingerprint: Fingerprint, frames: FrameChoice, size: Size, *, device: str, seconds: float, orientations: int
) -> tuple[int, str]:
    """Return the number of training steps and the reason: what the time allows, or fewer where more would overfit.

    seconds: of one step
    orientations: number of flipped and rotated versions of each case
    """
    in_time = HOURS[device] * 3600 / seconds
    places = [max(math.prod(record.shape) / size.crop**2, 1.0) if size.crop else 1.0 for record in fingerprint.series]
    mean_places = (
        sum(n * len(record.times) for n, record in zip(places, fingerprint.series, strict=True)) / fingerprint.num_frames
    )
    in_data = DRAWS * orientations * frames.num_training * mean_places / size.batch_size
    steps = _two_digits(min(max(min(in_time, in_data), FEWEST_STEPS), MOST_STEPS))
    if in_data < in_time and steps < MOST_STEPS:
        windows = f"{frames.num_training:,} window{'s' if frames.num_training > 1 else ''}"
        reason = f"each place of {windows} is seen about {DRAWS} times in each of {orientations} orientations"
    else:
        reason = f"as many as fit into {HOURS[device]:.2g} h" if steps < MOST_STEPS else "more would improve little"
    return steps, reason


def choose_training(
    choices: Choices, size: Size, *, steps: int, reason: str, seconds: float, device_name: str, memory_mb: float
) -> None:
    """Choose the keys of `[training]` that depend on the measured speed.

    seconds, memory_mb: of one step; device_name: for the comment
    """
    training = choices.tree["training"]
    if steps > training["steps"]:
        decay = float(f"{training['weight_decay'] * training['steps'] / steps:.2g}")
        choices.set("training.weight_decay", decay, "lower in proportion, because the run is longer")
    spent = f"{steps * seconds / 3600:.2g} h at {seconds:.2g} s a step on {device_name}"
    choices.set("training.steps", steps, f"{spent}; {reason}")
    choices.set("training.epochs", 0, "0, because steps are given")
    choices.set("training.batch_size", size.batch_size, f"a step takes {memory_mb:,.0f} MB at its peak")
    if size.width > 1:
        rate = choices.tree["training"]["learning_rate"] / size.width
        choices.set("training.learning_rate", rate, "at the end of the warm-up; lower for a wider network")
    choices.set(
        "training.warmup_steps",
        min(choices.tree["training"]["warmup_steps"], steps // 10),
        "a rising rate, because the first gradients are large",
    )
    choices.set(
        "training.validate_every",
        _two_digits(max(steps / 8, 1)),
        "about eight times in the run; each time a checkpoint is saved",
    )
    horizon = min(max(steps / 24, 20), 1000)
    average = round(1 - 1 / horizon, 4)
    choices.set("training.ema", average, f"forecasts use the average of the weights over about {horizon:.0f} steps")


def _two_digits(number: float) -> int:
    """Round down to two significant digits."""
    grain = 10 ** max(math.floor(math.log10(number)) - 1, 0)
    return int(number // grain * grain)
