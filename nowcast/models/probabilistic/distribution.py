"""Evaluate the distribution that the probabilistic network forecasts: log-odds of any value, and the value at given log-odds.

A distribution is (case, lead, 6, y, x): slope · location + shift at each of three LEVELS, then the slopes (network.py).
"""

from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path

import torch
from torch import Tensor

from nowcast.runtime import compiled
from nowcast.runtime.compiled import FLOAT, INT, POINTER, SIZE, Source

SOURCE = Source(
    Path(__file__).with_name("distribution.c"),
    "the values of a distribution",
    {"highest_reached": [POINTER, *[SIZE] * 4, INT, *[POINTER] * 4, INT, FLOAT, POINTER]},
)
LEVELS = (0.2, 0.5, 0.8)  # network values; 0.9, 6.6 and 34 mm/h with the transform log, offset 0.5, ceiling 100
MOST_STEPS = 4.0  # largest distance of a value above the last anchor but one, in units of the distance of the last two anchors


def log_odds(outputs: Tensor, value: float) -> Tensor:
    """Compute the log-odds z = ln(p / (1 - p)) of reaching a network value.

    outputs: (case, lead, 6, y, x)
    returns: (case, lead, y, x)
    """
    lower, share = _between_levels(value)
    scaled, slope = (torch.lerp(outputs[:, :, n], outputs[:, :, n + 1], share) for n in (lower, len(LEVELS) + lower))
    return scaled - value * slope


def coefficients(value: float) -> list[float]:
    """Return the factors (6) of the outputs whose sum is `log_odds`."""
    lower, share = _between_levels(value)
    factors = [0.0] * (2 * len(LEVELS))
    for level, part in ((lower, 1 - share), (lower + 1, share)):
        factors[level], factors[len(LEVELS) + level] = part, -value * part
    return factors


def _between_levels(value: float) -> tuple[int, float]:
    """Return the number of the level below a network value, and the relative distance (0 to 1) to the next level."""
    lower = next((k for k in range(len(LEVELS) - 2) if value <= LEVELS[k + 1]), len(LEVELS) - 2)
    share = (value - LEVELS[lower]) / (LEVELS[lower + 1] - LEVELS[lower])
    return lower, min(max(share, 0.0), 1.0)


def highest_reached(outputs: Tensor, anchors: Sequence[float], cuts: Tensor) -> Tensor:
    """Compute the highest network value whose log-odds reach its cut.

        outputs: (case, lead, 6, y, x)
        anchors: network values, ascending, at which the cuts are given
        cuts: (case, lead, anchor) log-odds
        returns: (case, lead, y, x), linear between anchors and beyond the last one; 0 if not even the first is reached

    On a CPU in C (distribution.c), elsewhere in torch.
    """
    library = compiled.load(SOURCE) if outputs.device.type == "cpu" and outputs.dtype == torch.float32 else None
    value = outputs.new_empty(*outputs.shape[:2], *outputs.shape[3:])
    for case, lead in product(range(len(outputs)), range(outputs.shape[1])):
        arguments = outputs[case, lead], anchors, cuts[case, lead], value[case, lead]
        _in_torch(*arguments) if library is None else _in_c(library, *arguments)
    return value


def _in_torch(outputs: Tensor, anchors: Sequence[float], cuts: Tensor, value: Tensor) -> None:
    """Compute one lead time (6, y, x) into `value` (y, x)."""
    first = log_odds(outputs[None, None], anchors[0])[0, 0] - cuts[0]
    wet = first >= 0
    outputs, margin = outputs[None, None, :, wet], first[wet]
    reached = torch.full_like(margin, anchors[0])
    for number, (before, anchor) in enumerate(pairwise(anchors), 1):
        above = torch.minimum(margin, log_odds(outputs, anchor)[0, 0] - cuts[number])
        most = MOST_STEPS if anchor == anchors[-1] else 1.0
        ratio = (margin / (margin - above).clamp(min=1e-6)).clamp(max=most)
        reached += (anchor - before) * torch.where(margin >= 0, ratio, 0.0)
        margin = above
    value.zero_()[wet] = reached


def _in_c(library: compiled.Library, outputs: Tensor, anchors: Sequence[float], cuts: Tensor, value: Tensor) -> None:
    """Compute one lead time (6, y, x) into `value` (y, x), both float32 on the CPU."""
    outputs = outputs if outputs.stride(-1) == 1 else outputs.contiguous()
    lower, share = zip(*map(_between_levels, anchors), strict=True)
    tables = torch.tensor(lower, dtype=torch.int32), torch.tensor(share), torch.tensor(anchors), cuts.contiguous()
    library.highest_reached(
        outputs.data_ptr(), *outputs.stride()[:2], *value.shape, len(LEVELS), *(table.data_ptr() for table in tables),
        len(anchors), MOST_STEPS, value.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
