"""The members of an example case: the fans of the area and of the wettest cell, and the probabilities of sums, by value."""

import numpy as np
import pytest
from makers import rain, write_record
from makers.stored import open_one

from nowcast.commands.evaluate import evaluate_forecasters, score
from nowcast.errors import DataError, UsageError
from nowcast.evaluation.examples import ScoredCase, make_example
from nowcast.evaluation.member_examples import SUM_AMOUNTS, find_points, make_member_example
from nowcast.netcdf.places import earth
from nowcast.netcdf.places.locating import Locator
from nowcast.prediction.cases import Selection
from nowcast.prediction.gauges import Place

LEADS = [10.0 * (n + 1) for n in range(6)]
WHOLE = (slice(0, 4), slice(0, 5))


def case():
    """Observed (lead, y, x) and a function that reads two members: cell (1, 2) is the wettest, (3, 4) is missing once."""
    observed = np.ones((6, 4, 5), np.float32)
    observed[:, 1, 2] = 6
    observed[2, 3, 4] = np.nan
    members = np.stack([np.full((6, 4, 5), 0.5, np.float32), 2 * observed])
    members[0, 4, 0, 0] = np.nan
    return observed, lambda lead: members[:, lead]


def test_fans_are_of_what_is_known_throughout():
    observed, read = case()
    made = make_member_example({"ens": read}, observed, LEADS, [0, 5], WHOLE, 1)
    area, point = made.fans
    known = np.isfinite(observed[0]) & True
    known[3, 4] = known[0, 0] = False
    assert area.place == "90 % of the area, mean"
    np.testing.assert_allclose(area.observed, np.repeat(observed[0][known].mean(), 6))
    np.testing.assert_allclose(area.members["ens"], [[0.5, 2 * observed[0][known].mean()]] * 6)
    assert point.place == "wettest cell observed (row 1, column 2)"
    np.testing.assert_array_equal(point.observed, [6] * 6)
    np.testing.assert_array_equal(point.members["ens"], [[0.5, 12]] * 6)
    assert made.fields["ens"].shape == (2, 2, 4, 5)


def test_chances_are_shares_of_members_that_reach_the_hour():
    observed, read = case()
    made = make_member_example({"ens": read}, observed, LEADS, [0], WHOLE, 1)
    assert (made.sum_minutes, SUM_AMOUNTS) == (60, (1.0, 5.0))
    np.testing.assert_array_equal(made.probabilities["ens"][:, 1, 2], [0.5, 0.5])  # 0.5 and 12 mm
    np.testing.assert_array_equal(made.probabilities["ens"][:, 2, 2], [0.5, 0])  # 0.5 and 2 mm
    assert np.isnan(made.probabilities["ens"][:, [0, 3], [0, 4]]).all()
    np.testing.assert_array_equal(made.reached[:, 1, 2], [1, 1])
    np.testing.assert_array_equal(made.reached[:, 2, 2], [1, 0])
    short = make_member_example({"ens": read}, observed[:2], LEADS[:2], [0], WHOLE, 1)
    assert (short.sum_minutes, short.probabilities["ens"].size) == (0, 0)


def test_shares_of_members_are_probabilities_of_the_threshold():
    observed, read = case()
    options = {"spacing_km": (1.0, 1.0), "threshold": 1.0, "probabilities": {"net": np.full_like(observed, 0.25)}}
    ranked = ScoredCase("record", np.datetime64("2020-06-01T00:00:00"), 0.5, 9)
    shown = make_example("best", ranked, LEADS, observed, {"net": observed}, ensembles={"ens": read}, **options)
    assert list(shown.probabilities) == ["net", "ens"]
    np.testing.assert_array_equal(shown.probabilities["ens"][:, 1, 2], [0.5] * 6)  # 0.5 and 12 mm/h
    assert np.isnan(shown.probabilities["ens"][[4, 2], [0, 3], [0, 4]]).all()
    assert shown.events[0, 1, 2] == 1


def test_without_ensembles_or_anything_known_there_is_less():
    observed, read = case()
    assert make_member_example({}, observed, LEADS, [0], WHOLE, 1) is None
    assert make_member_example({"ens": read}, np.full_like(observed, np.nan), LEADS, [0], WHOLE, 1).fans == []
    placed = Locator((4, 5), None, lambda row, column: (50 - row, -1.5 + column))
    made = make_member_example({"ens": read}, observed, LEADS, [0], WHOLE, 1, placed)
    assert made.fans[1].place == "wettest cell observed (49.00° N, 0.50° E)"


def test_points_that_are_asked_for_have_fans_in_place_of_the_wettest_cell():
    observed, read = case()
    points = {"Dam": (2, 1), "Sill": (3, 4)}
    area, point = make_member_example({"ens": read}, observed, LEADS, [0], WHOLE, 1, points=points).fans
    assert (area.place, point.place) == ("90 % of the area, mean", "Dam")
    np.testing.assert_array_equal(point.observed, [1] * 6)
    np.testing.assert_array_equal(point.members["ens"], [[0.5, 2]] * 6)


def test_points_without_a_fan_are_told_with_their_case(caplog):
    observed, read = case()
    points = {"Dam": (2, 1), "Sill": (3, 4)}
    ranked = ScoredCase("record", np.datetime64("2020-06-01T00:10:00"), 0.5, 9)
    make_example("best", ranked, LEADS, observed, {"net": observed}, ensembles={"ens": read}, spacing_km=(1, 1), points=points)
    told = (
        "no fan of Sill in the case of record from 2020-06-01T00:10:00: observation and members are not known there at all lead"
    )
    assert caplog.messages == [f"{told} times"]


def test_gauges_are_the_cells_of_a_record(tmp_path, caplog):
    record = open_one(write_record(tmp_path / "r.nc", rain(frames=2)))
    latitude, longitude = earth.locate(record.grid, "r").degrees(np.float64(7.2), np.float64(30.6))
    gauges = [Place("Dam", float(latitude), float(longitude)), Place("far", -20, 30)]
    assert find_points([record], gauges) == {"r": {"Dam": (7, 31)}}
    assert "far" in caplog.text
    assert find_points([record], []) == {}
    with pytest.raises(DataError, match=r"no place|none of"):
        find_points([record], gauges[1:])


def test_gauges_need_members_a_report_and_names(tmp_path):
    options = {"thresholds": None, "variable": None, "device": "cpu"}
    record = str(write_record(tmp_path / "r.nc", rain(frames=2)))
    with pytest.raises(UsageError, match=r"--at needs --output: the report shows members there\.\nGive"):
        score(["persistence"], [record], Selection(), {"--at": ["50,5"]}, output=None, **options)
    with pytest.raises(UsageError, match=r"--at 50,5: there are no members to show at a gauge\.\nGive --members 24"):
        evaluate_forecasters(["persistence"], [record], Selection(), at=["50,5"], **options)
    with pytest.raises(UsageError, match='two places are called "A"'):
        evaluate_forecasters(["persistence"], [record], Selection(), at=["A=50,5", "A=50,6"], **options)
