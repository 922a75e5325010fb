"""Choose the values of the recipe for a radar's own archive, configs/archive.toml, that depend on the archive.

Its network corrects guidance on the cells of the grid. Transform, coordinates, patch and kernels are therefore fixed: the
guidance requires them, and already follows the rain.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nowcast.plan.choices import WHOLE_GRID, Choices, Size, choose_orientations, choose_windows
from nowcast.plan.fingerprint import Fingerprint
from nowcast.plan.frames import FrameChoice

WIDTHS = {1.0: "as in the recipe", 0.5: "half the recipe's", 0.25: "a quarter of the recipe's"}


def sizes(fingerprint: Fingerprint, recipe: Choices) -> Iterator[Size]:
    """Yield the sizes to try, the desired one first: narrower networks to save time, then fewer cases to save memory."""
    crop, batch_size = recipe.tree["data"]["crop"], recipe.tree["training"]["batch_size"]
    shape = fingerprint.series[0].shape
    if math.prod(shape) <= WHOLE_GRID * crop**2:
        crop, batch_size = 0, batch_of_whole_grids(shape, crop, batch_size)
    size = Size(1.0, crop, batch_size)
    yield from (replace(size, width=width) for width in WIDTHS)
    while batch_size > 1:
        batch_size //= 2
        yield replace(size, width=min(WIDTHS), batch_size=batch_size)


def batch_of_whole_grids(shape: Sequence[int], crop: int, batch_size: int) -> int:
    """Return how many whole grids (y, x) to take in a step instead of `batch_size` crops: twice as many if they are small."""
    return batch_size * min(max(crop**2 // math.prod(shape), 1), 2)


def choose_for_archive(fingerprint: Fingerprint, frames: FrameChoice, size: Size, choices: Choices) -> None:
    """Choose every key that does not depend on the number of steps."""
    choose_windows(fingerprint, frames, choices)
    choose_orientations(fingerprint, size, choices)
    y, x = fingerprint.series[0].shape
    if size.crop:
        choices.set("data.crop", size.crop, f"cells of a side, of {y} × {x}; rain from outside comes with the guidance")
    else:
        choices.set("data.crop", 0, f"whole frames: {y} × {x} are few cells")
    choices.set("model.trust", 1.0, "1: the network is for the radar that it has learnt, so its correction counts in full")
    hidden = [max(round(channels * size.width), 4) for channels in choices.tree["model"]["hidden_channels"]]
    narrow = "" if size.width == 1 else ", so that there is time for enough steps"
    choices.set("model.hidden_channels", hidden, WIDTHS[size.width] + narrow)


def num_cases(fingerprint: Fingerprint, shape: Sequence[int], num_windows: int) -> int:
    """Return the number of different rainy cases of `shape` (y, x) cells in `num_windows` windows of the grid."""
    places = max(math.prod(fingerprint.series[0].shape) / math.prod(shape), 1.0)
    return max(int(num_windows * fingerprint.rainy_frames * places), 1)
