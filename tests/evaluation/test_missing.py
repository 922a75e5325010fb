"""Pixels that one forecaster lacks are left out for all: those that take away much are named, with their share."""

import logging

import numpy as np

from nowcast.evaluation.missing import Remarks, common_mask, remark_missing
from nowcast.evaluation.result import Evaluation
from nowcast.quantity import RAIN_RATE


def masked(*cases):
    """Mask cases (name: number of rows of 8 that a forecast lacks), whose observations lack the last two rows."""
    evaluation = Evaluation((5.0,), (1.0,), RAIN_RATE)
    for hidden in cases:
        observed, fields = np.zeros((1, 8, 8)), {name: np.zeros((1, 8, 8)) for name in hidden}
        observed[:, 6:] = np.nan
        for name, rows in hidden.items():
            fields[name][:, :rows] = np.nan
        known = common_mask(evaluation, hidden, observed, fields, {})
        assert known.sum() == 8 * max(6 - max(hidden.values()), 0)
    return evaluation


def test_a_forecaster_that_lacks_much_of_what_the_baselines_know_is_named_with_its_share(caplog):
    caplog.set_level(logging.INFO)
    remarks, shares = Remarks(), masked({"net": 3, "other": 0, "extrapolation": 1}, {"net": 0, "other": 1, "extrapolation": 1})
    remark_missing(shares, {}, remarks)
    says = "net: forecasts missing values in 20 % of the pixels that others know, which are left out for all forecasters"
    assert [(record.levelname, record.message) for record in caplog.records] == [("WARNING", says)]
    remark_missing(shares, {}, remarks)
    assert (remarks, len(caplog.records)) == ([says], 1), "told once, and kept for the report"


def test_cases_that_are_left_out_do_not_count_towards_the_share(caplog):
    remark_missing(masked({"net": 8}, {"net": 0}), {}, Remarks())
    assert caplog.messages == ["net: forecasts nothing but missing values in 1 case, left out for all forecasters"]


def test_shares_add_over_processes():
    first, second = masked({"net": 3, "other": 0}), masked({"net": 0, "other": 1}, {"net": 6, "other": 0})
    first.merge(second)
    assert (first.num_observed, first.unknown) == (96, {"net": 24, "other": 8})
