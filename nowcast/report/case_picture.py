"""Draw a case of a validation for the loggers of a training: plain pixels, because it is drawn often."""

import numpy as np

from nowcast.quantity import Quantity
from nowcast.report.maps import colour_scale

COLUMNS = 4  # lead times, evenly from the first to the last
LEAST_WIDTH = 96  # pixels of a map
GAP, GREY = 3, 120  # pixels between maps, and their grey value: white is dry


def draw_case(past: np.ndarray, forecast: np.ndarray, observed: np.ndarray, quantity: Quantity) -> np.ndarray:
    """Return a picture: the observed lead times in the upper row, the forecast below; the newest past frame on the left.

    past: (time, y, x) mm/h; forecast, observed: (lead, y, x) mm/h; NaN missing
    returns: (row, column, RGB) uint8
    """
    leads = np.unique(np.linspace(0, len(observed) - 1, COLUMNS).round().astype(int))
    upper, lower = ([past[-1], *fields[leads]] for fields in (observed, forecast))
    return np.concatenate([_row(upper, quantity), _row(lower, quantity)])


def _row(fields: list[np.ndarray], quantity: Quantity) -> np.ndarray:
    colours, scale = colour_scale(quantity)
    maps = []
    for field in fields:
        pixels = colours(scale(np.ma.masked_invalid(field)), bytes=True)[..., :3]
        size = -(-LEAST_WIDTH // field.shape[1])
        enlarged = pixels.repeat(size, axis=0).repeat(size, axis=1)
        maps.append(np.pad(enlarged, ((0, GAP), (0, GAP), (0, 0)), constant_values=GREY))
    return np.concatenate(maps, axis=1)
