"""The common mask of all forecasters, and what each of them takes away from it: missing pixels and whole cases."""

import logging
from collections.abc import Mapping

import numpy as np

from nowcast.evaluation.result import Evaluation
from nowcast.forecasters.baselines import BASELINES
from nowcast.forecasters.forecaster import Forecaster

log = logging.getLogger(__name__)
ALL_MISSING = "%s: forecasts nothing but missing values in %d cases, which are left out for all forecasters"
UNKNOWN = "%s: forecasts missing values in %.0f %% of the observed pixels, which are left out for all forecasters"
MUCH_UNKNOWN = 0.1  # fraction of the observed pixels from which on a forecaster is named


def common_mask(
    evaluation: Evaluation,
    forecasters: Mapping[str, Forecaster],
    observed: np.ndarray,
    fields: Mapping[str, np.ndarray],
    exceedances: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Return a mask (lead, y, x) where observation and all forecasts are known; count what each forecast lacks."""
    is_observed = np.isfinite(observed)
    known, lacking = is_observed.copy(), {}
    evaluation.num_read += 1
    for name in forecasters:
        finite = [np.isfinite(arrays[name]) for arrays in (fields, exceedances) if name in arrays]
        own = np.logical_and.reduce([each if each.ndim == 3 else each.all(axis=0) for each in finite])
        known &= own
        lacking[name] = np.count_nonzero(is_observed & ~own)
        evaluation.all_missing[name] = evaluation.all_missing.get(name, 0) + (not all(each.any() for each in finite))
    if known.any():  # other cases are left out, and counted
        evaluation.num_observed += np.count_nonzero(is_observed)
        evaluation.unknown = {name: evaluation.unknown.get(name, 0) + number for name, number in lacking.items()}
    return known


def log_missing(evaluation: Evaluation) -> None:
    """Log which forecasters take away cases, or at least MUCH_UNKNOWN of the observed pixels, from all forecasters.

    Baselines that move the rain lack it where it enters the grid: they are no reason to warn.
    """
    for name, number in evaluation.all_missing.items():
        if number:
            log.warning(ALL_MISSING, name, number)
    for name, number in evaluation.unknown.items():
        share = number / max(evaluation.num_observed, 1)
        if share >= MUCH_UNKNOWN:
            log.log(logging.INFO if name in BASELINES else logging.WARNING, UNKNOWN, name, 100 * share)
