"""The common mask of all forecasters, and what each of them takes away from it: missing pixels and whole cases."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from nowcast.errors import counted
from nowcast.evaluation.result import Evaluation
from nowcast.forecasters.baselines import BASELINES
from nowcast.forecasters.forecaster import Forecaster

log = logging.getLogger(__name__)
NO_FORECAST = (
    "%s: left out, since %s nothing but missing values in %s.\n"
    "The others are scored without %s. Baselines that move the rain need a grid that it does not leave in one time step."
)
ALL_MISSING = "%s: %s nothing but missing values in %s, left out for all forecasters"
UNKNOWN = "%s: forecasts missing values in %.0f %% of the pixels that others know, which are left out for all forecasters"
LEFT_OUT = "%s: left out %d of %s: a whole frame is missing, or no pixel is known in all forecasts and the observation"
NO_PIXEL = "nothing is scored at %d of %s (%s min): no pixel is known there in the observation and all forecasts"
MUCH_UNKNOWN = 0.1  # fraction of the pixels from which on a forecaster is named


class Remarks(list[str]):
    """Sentences about what an evaluation leaves out, for report and score files; each is logged once, as a warning."""

    def add(self, message: str, *values: object) -> None:
        """Log a message with values filled in, and keep it."""
        if (text := message % values) not in self:
            self.append(text)
            log.warning("%s", text)


def grouped(values: Mapping[str, Hashable]) -> list[tuple[Any, list[str]]]:
    """Return each different value with the names that have it, in the order of the first of them."""
    return [(value, [name for name, own in values.items() if own == value]) for value in dict.fromkeys(values.values())]


def together(names: Sequence[str]) -> str:
    """Return several names as text, such as "persistence, extrapolation and sprog"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


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


def baselines_without_forecasts(evaluation: Evaluation, forecasters: Mapping[str, Forecaster], remarks: Remarks) -> list[str]:
    """Return the baselines that forecast nothing in any case, so that no case was scored; the first forecaster is not one."""
    if evaluation.num_cases or not evaluation.num_read:
        return []
    names = [name for name in list(forecasters)[1:] if name in BASELINES]
    empty = [name for name in names if evaluation.all_missing.get(name) == evaluation.num_read]
    if empty:
        subject, object_ = ("it forecasts", "it") if len(empty) == 1 else ("they forecast", "them")
        remarks.add(NO_FORECAST, together(empty), subject, all_cases(evaluation.num_read), object_)
    return empty


def all_cases(number: int) -> str:
    """Return the number of all cases in words, for a message."""
    return f"all {number:,} cases" if number > 1 else "the one case"


def remark_missing(evaluation: Evaluation, num_cases: Mapping[str, int], remarks: Remarks) -> None:
    """Remark on cases that are left out and on lead times without a pixel.

    Also on forecasters that take away cases, or at least MUCH_UNKNOWN of the pixels.

    num_cases: by record, the number of its cases, scored or not
    """
    for name, number in evaluation.not_scored.items():
        if number:
            remarks.add(LEFT_OUT, name, number, counted(num_cases[name], "case"))
    for number, names in grouped({name: number for name, number in evaluation.all_missing.items() if number}):
        verb = "forecasts" if len(names) == 1 else "forecast"
        remarks.add(ALL_MISSING, together(names), verb, counted(number, "case"))
    for name, number in sorted(evaluation.unknown.items()):
        if number and number >= MUCH_UNKNOWN * evaluation.num_observed:
            remarks.add(UNKNOWN, name, 100 * number / evaluation.num_observed)
    for name in evaluation.forecasters_with("pairs")[:1]:
        is_empty = evaluation.total(name).num_pairs == 0
        empty = [f"{minutes:g}" for minutes in np.array(evaluation.lead_minutes)[is_empty]]
        if empty:
            remarks.add(NO_PIXEL, len(empty), counted(len(is_empty), "lead time"), ", ".join(empty))
