"""Pixels that one forecaster lacks are left out for all: those that take away much are named, with their share."""

import logging

import numpy as np

from nowcast.evaluation.missing import Remarks, baselines_without_forecasts, common_mask, remark_missing
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


def test_forecasters_of_which_the_same_is_to_say_are_named_together(caplog):
    nothing = masked({"net": 8, "other": 8, "third": 8, "good": 0}, {"net": 0, "other": 0, "third": 0, "good": 0})
    remark_missing(nothing, {}, Remarks())
    assert caplog.messages == [
        "net, other and third: forecast nothing but missing values in 1 case, left out for all forecasters"
    ]
    caplog.clear()
    forecasters = {"net": None, "extrapolation": None, "sprog": None}
    silent = masked({"net": 0, "extrapolation": 8, "sprog": 8})
    assert baselines_without_forecasts(silent, forecasters, Remarks()) == ["extrapolation", "sprog"]
    assert caplog.messages[0].startswith(
        "extrapolation and sprog: left out, since they forecast nothing but missing values in the one case.\n"
        "The others are scored without them. "
    )


def test_cases_that_are_left_out_do_not_count_towards_the_share(caplog):
    remark_missing(masked({"net": 8}, {"net": 0}), {}, Remarks())
    assert caplog.messages == ["net: forecasts nothing but missing values in 1 case, left out for all forecasters"]


def test_a_forecaster_that_lacks_a_tenth_is_named_and_one_that_lacks_less_is_not(caplog):
    whole = {"net": 0, "extrapolation": 1}
    remark_missing(masked({"net": 2, "extrapolation": 1}, whole), {}, Remarks())
    assert [message[:45] for message in caplog.messages] == ["net: forecasts missing values in 10 % of the "]
    remark_missing(masked({"net": 2, "extrapolation": 1}, whole, whole), {}, Remarks())
    assert len(caplog.messages) == 1


def test_probabilities_and_members_must_be_known_as_well():
    evaluation = Evaluation((5.0,), (1.0, 5.0), RAIN_RATE)
    observed, fields = np.zeros((1, 4, 4)), {"net": np.zeros((1, 4, 4)), "persistence": np.zeros((1, 4, 4))}
    chances = np.zeros((2, 1, 4, 4))
    fields["net"][:, 0], chances[0, :, 1], chances[1, :, 2] = np.nan, np.nan, np.nan
    known = common_mask(evaluation, dict.fromkeys(fields), observed, fields, {"net": chances})
    assert known[0, :, 0].tolist() == [False, False, False, True]
    assert (evaluation.num_observed, evaluation.unknown, evaluation.num_read) == (16, {"net": 12}, 1)
    common_mask(evaluation, dict.fromkeys(fields), observed, fields, {"net": np.full_like(chances, np.nan)})
    assert (evaluation.all_missing, evaluation.num_observed, evaluation.num_read) == ({"net": 1, "persistence": 0}, 16, 2)


def test_shares_add_over_processes():
    first, second = masked({"net": 3, "other": 0}), masked({"net": 0, "other": 1}, {"net": 6, "other": 0})
    first.merge(second)
    assert (first.num_observed, first.unknown) == (96, {"net": 24, "other": 8})
