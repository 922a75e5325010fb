"""Compute guidance: log-odds, without training, that the rain rate reaches each of RATES at each cell and lead time.

They are those of the cascade (models/probabilistic), computed along the motion of the rain and transformed back to the cells
of the grid. A network corrects them (network.py). They do not depend on trained weights, so training computes them once per
case.

Guidance is int8, in STEPS per unit of log-odds; MISSING where the air comes from outside the grid or from a missing cell.
"""

from collections.abc import Iterator
from functools import cache, partial

import cv2
import numpy as np
import torch

from nowcast.models.probabilistic.distribution import LEVELS, log_odds
from nowcast.models.probabilistic.network import Probabilistic, ProbabilisticConfig
from nowcast.models.transform import Log, network_input
from nowcast.motion import ALL, Cells, Places, motion, past_to_lagrangian, trace
from nowcast.runtime.threads import side_by_side

RATES = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)  # mm/h
TRANSFORM = Log(offset=0.5, ceiling=100.0)  # for which the constants of the cascade were chosen
VALUES = tuple(TRANSFORM.encode(torch.tensor(RATES)).tolist())  # network values of RATES
STEPS, LARGEST, MISSING = 10, 127, -128  # steps per unit of log-odds; largest number of steps; the code of missing
MARGIN = 64  # cells around a crop from which its guidance is computed: rain from farther away arrives after an hour or more
VERSION = 3  # version of the computation; kept guidance of another version is computed again
REMAP_CHANNELS = 4  # largest number of channels that OpenCV interpolates in one call


def guidance(past: np.ndarray, num_leads: int, cells: Cells = ALL) -> np.ndarray:
    """Compute the guidance of one case.

    past: (time, y, x) mm/h, NaN missing
    cells: the part of the grid to return
    returns: (lead, rate, y, x) int8, for the part `cells`
    """
    flow = motion(past)
    still = torch.from_numpy(past_to_lagrangian(past, flow))[None]
    known = ~np.isnan(past[-1])
    leads = (lead[0].numpy() for lead in cascade_model().cascade(network_input(still, TRANSFORM), num_leads))
    carried = side_by_side(partial(_carried, known=known), zip(leads, trace(flow, num_leads, cells=cells), strict=True))
    return np.stack(list(_inferred(carried)))


def _inferred(leads: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    with torch.inference_mode():
        yield from leads


@cache
def cascade_model() -> Probabilistic:
    """Return a model of which only the cascade is used; its ConvLSTM is as small as possible."""
    config = ProbabilisticConfig(hidden_channels=(1,), kernel_sizes=(1,))
    return Probabilistic(config).eval()


@cache
def rate_matrix() -> np.ndarray:
    """Return the matrix (rate, 6) that maps the parameters of a distribution to log-odds at RATES."""
    each = torch.eye(2 * len(LEVELS))[None, None, :, :, None]  # a field of one cell for each parameter
    return torch.stack([log_odds(each, value)[0, 0, :, 0] for value in VALUES]).numpy()


def _carried(lead: tuple[np.ndarray, Places], known: np.ndarray) -> np.ndarray:
    """Transform the distribution of one lead time (6, y, x) to the cells of the grid; return its guidance (rate, y, x)."""
    parameters, places = lead
    fields = np.stack([known.astype(np.float32), *np.where(known, parameters, 0)])
    read = [_read(fields[start : start + REMAP_CHANNELS], places) for start in range(0, len(fields), REMAP_CHANNELS)]
    share, *parameters = np.concatenate(read)
    odds = np.tensordot(rate_matrix(), np.stack(parameters), 1) / np.maximum(share, 0.5)
    coded = np.rint(odds * STEPS).clip(-LARGEST, LARGEST).astype(np.int8)
    return np.where(share >= 0.5, coded, np.int8(MISSING))


def _read(fields: np.ndarray, places: Places) -> np.ndarray:
    """Interpolate fields (field, y, x) bilinearly at the places, 0 outside the grid."""
    stacked = np.ascontiguousarray(np.moveaxis(fields, 0, -1))
    read = cv2.remap(stacked, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return np.moveaxis(read.reshape(*places[0].shape, len(fields)), -1, 0)
