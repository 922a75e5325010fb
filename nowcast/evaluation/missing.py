"""The common mask of all forecasters, and what each of them takes away from it: missing pixels and whole cases."""

import logging
from collections.abc import Mapping

import numpy as np

from nowcast.evaluation.result import Evaluation
from nowcast.forecasters.baselines import BASELINES
from nowcast.forecasters.forecaster import Forecaster

log = logging.getLogger(__name__)
ALL_MISSING = "%s: forecasts nothing but missing values in %d cases, which are left out for all forecasters"
UNKNOWN = "%s: forecasts missing values in %.0f %% of the pixels that others know, which are left out for all forecasters"
MUCH_UNKNOWN = 0.1  # fraction of the pixels from which on a forecaster is named


def common_mask(
    evaluation: Evaluation,
    forecasters: Mapping[str, Forecaster],
    observed: np.ndarray,
    fields: Mapping[str, np.ndarray],
    exceedances: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Return a mask (lead, y, x) where observation and all forecasts are known; count what each forecast lacks.

    Baselines that move the rain lack it where it enters the grid: what forecasters lack is counted where all of these know it.
    """
    known_by = {}
    for name in forecasters:
        finite = [np.isfinite(arrays[name]) for arrays in (fields, exceedances) if name in arrays]
        known_by[name] = np.logical_and.reduce([each if each.ndim == 3 else each.all(axis=0) for each in finite])
        evaluation.all_missing[name] = evaluation.all_missing.get(name, 0) + (not all(each.any() for each in finite))
    evaluation.num_read += 1
    in_baselines = np.logical_and.reduce([np.isfinite(observed), *(known_by[name] for name in known_by if name in BASELINES)])
    known = np.logical_and.reduce([in_baselines, *known_by.values()])
    if known.any():  # other cases are left out, and counted
        evaluation.num_observed += np.count_nonzero(in_baselines)
        for name in known_by.keys() - BASELINES.keys():
            lacking = np.count_nonzero(in_baselines & ~known_by[name])
            evaluation.unknown[name] = evaluation.unknown.get(name, 0) + lacking
    return known


def log_missing(evaluation: Evaluation) -> None:
    """Warn of forecasters that take away cases, or at least MUCH_UNKNOWN of the pixels, from all forecasters."""
    for name, number in evaluation.all_missing.items():
        if number:
            log.warning(ALL_MISSING, name, number)
    for name, number in sorted(evaluation.unknown.items()):
        if number and number >= MUCH_UNKNOWN * evaluation.num_observed:
            log.warning(UNKNOWN, name, 100 * number / evaluation.num_observed)
