"""The odds of rain of a distribution: at any network value, from those at LEVELS; and the value that reaches given odds.

A distribution is (case, lead, 6, y, x): z = slope · location + shift at each level, then the slopes; see probabilistic.py.
"""

from collections.abc import Sequence
from itertools import pairwise, product

import torch
from torch import Tensor

from nowcast.runtime import compiled

LEVELS = (0.2, 0.5, 0.8)  # network values: 0.9, 6.6 and 34 mm/h of the recipe's transform
MOST_STEPS = 4.0  # between anchors that a value may lie above the last but one


def log_odds(outputs: Tensor, value: float) -> Tensor:
    """z = ln(p / (1 - p)) of this network value or more: (case, lead, 6, y, x) -> (case, lead, y, x)."""
    lower, share = _between_levels(value)
    scaled, slope = (torch.lerp(outputs[:, :, n], outputs[:, :, n + 1], share) for n in (lower, len(LEVELS) + lower))
    return scaled - value * slope


def _between_levels(value: float) -> tuple[int, float]:
    """The level below this network value, and its share of the way to the next."""
    lower = next((k for k in range(len(LEVELS) - 2) if value <= LEVELS[k + 1]), len(LEVELS) - 2)
    share = (value - LEVELS[lower]) / (LEVELS[lower + 1] - LEVELS[lower])
    return lower, min(max(share, 0.0), 1.0)


def highest_reached(outputs: Tensor, anchors: Sequence[float], cuts: Tensor) -> Tensor:
    """(case, lead, 6, y, x), of network values ascending and their cuts (case, lead, anchor) -> (case, lead, y, x): the
    highest network value whose z reaches its cut, linear between the anchors and beyond the last; 0 where none does.
    """
    library = compiled.load(source="distribution") if outputs.device.type == "cpu" and outputs.dtype == torch.float32 else None
    value = outputs.new_empty(*outputs.shape[:2], *outputs.shape[3:])
    for case, lead in product(range(len(outputs)), range(outputs.shape[1])):
        of_lead = outputs[case, lead], anchors, cuts[case, lead], value[case, lead]
        _in_torch(*of_lead) if library is None else _in_c(library, *of_lead)
    return value


def _in_torch(outputs: Tensor, anchors: Sequence[float], cuts: Tensor, value: Tensor) -> None:
    """One lead (6, y, x) into `value` (y, x)."""
    first = log_odds(outputs[None, None], anchors[0])[0, 0] - cuts[0]
    wet = first >= 0
    outputs, margin = outputs[None, None, :, wet], first[wet]
    found = torch.full_like(margin, anchors[0])
    for number, (before, anchor) in enumerate(pairwise(anchors), 1):
        above = torch.minimum(margin, log_odds(outputs, anchor)[0, 0] - cuts[number])
        most = MOST_STEPS if anchor == anchors[-1] else 1.0
        ratio = (margin / (margin - above).clamp(min=1e-6)).clamp(max=most)
        found += (anchor - before) * torch.where(margin >= 0, ratio, 0.0)
        margin = above
    value.zero_()[wet] = found


def _in_c(library: compiled.Library, outputs: Tensor, anchors: Sequence[float], cuts: Tensor, value: Tensor) -> None:
    outputs = outputs if outputs.stride(-1) == 1 else outputs.contiguous()
    lower, share = zip(*map(_between_levels, anchors), strict=True)
    tables = torch.tensor(lower, dtype=torch.int32), torch.tensor(share), torch.tensor(anchors), cuts.contiguous()
    library.highest_reached(
        outputs.data_ptr(), *outputs.stride()[:2], *value.shape, len(LEVELS), *(table.data_ptr() for table in tables),
        len(anchors), MOST_STEPS, value.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
