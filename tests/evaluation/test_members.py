"""Members are scored at cells, of the rain of 30 and 60 minutes in boxes, and by their spectra, by hand and through files."""

import numpy as np
import pytest
from makers import rain, write_record
from makers.ensembles import ensemble_sums

from nowcast.evaluation.evaluate import evaluate
from nowcast.evaluation.pooling import read_scores
from nowcast.evaluation.result import Evaluation
from nowcast.evaluation.score_files import as_dataset, write_dataset
from nowcast.forecasters.baselines import Persistence
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.opening import open_records
from nowcast.prediction.cases import Selection
from nowcast.quantity import RAIN_RATE
from nowcast.report.table import table
from nowcast.scores import SCORES
from nowcast.scores.boxes import DIGITS, BoxSums
from nowcast.scores.spectra import band_power, taper
from nowcast.scores.sums import Tally

FACTORS = (0.5, 1.0, 2.0)


class Three(Forecaster):
    """An ensemble's stand-in: the newest frame times each of FACTORS at every lead time."""

    name, input_frames, lead_frames, num_members, is_probabilistic = "three", 1, 6, len(FACTORS), True

    def forecast(self, past, num_leads):
        self.newest = past[0, -1]
        return np.repeat(past[:, -1:], num_leads, axis=1) * np.float32(np.mean(FACTORS))

    def members_at(self, reference, lead_time):
        return np.stack([self.newest * np.float32(factor) for factor in FACTORS])


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    path = tmp_path_factory.mktemp("members") / "observed.nc"
    return open_records([write_record(path, rain(frames=7, shape=(24, 30)), step_minutes=10)])[0]


@pytest.fixture(scope="module")
def result(record):
    return evaluate({"three": Three(), "persistence": Persistence()}, [record], selection=Selection(), thresholds=(1.0,))


def test_sums_and_spectra_of_a_case_are_those_of_its_members(result, record):
    frames = record.read(range(7))
    first, observed = 7 - 6, frames[1:]
    known = np.isfinite(observed) & np.isfinite(frames[first - 1])
    hour = np.where(known.all(axis=0), observed, np.nan).sum(axis=0) / 6
    members = np.stack([np.where(known.all(axis=0), frames[first - 1], np.nan) * factor for factor in FACTORS])
    members, hour = np.round(members, DIGITS), np.round(hour, DIGITS)
    expected = ensemble_sums(members[:, None], hour[None], thresholds=(0.5, 1, 2, 5, 10))
    found = result.total("three", "members_60_min").of_box(0)
    assert result.num_cases == 1
    for name, array in expected["members"].arrays().items():
        np.testing.assert_allclose(found.arrays()[name], array, rtol=1e-4, atol=1e-4, err_msg=name)
    spectra = result.total("three", "member_spectra")
    powers = [band_power(frames[first - 1] * factor, taper(known[2]), record.grid.spacing_km) for factor in FACTORS]
    np.testing.assert_allclose(spectra.power_f[2], np.mean(powers, axis=0), rtol=1e-4)
    assert result.forecasters_with("members_30_min") == ["three", "persistence"]
    assert result.forecasters_with("member_spectra") == ["three"]


def test_they_are_in_the_rows_the_files_and_the_table(result, tmp_path):
    rows = result.rows()
    at = {row["scale_km"]: row for row in rows if (row["forecaster"], row["score"], row["against"], row["lead_minutes"]) == (
        "three", "sum_30_min_crps_fair", None, 60.0)}  # fmt: skip
    assert sorted(at) == [0.0, 10.0, 40.0]
    assert (at[0.0]["num_cases"], at[40.0]["num_cases"]) == (1, 0)
    assert any(row["score"] == "sum_60_min_brier" and row["threshold"] == 5.0 for row in rows)
    dataset = as_dataset(result, rows)
    write_dataset(dataset, tmp_path / "scores.nc")
    assert dataset["sum_30_min_crps_fair"].sel(forecaster="three", lead_minutes=60, box_km=0) == at[0.0]["value"]
    assert dataset["sum_60_min_brier"].dims == ("forecaster", "lead_minutes", "box_km", "amount")
    assert dataset["sum_30_min_crps_fair"].attrs["units"] == "mm"
    again = read_scores(tmp_path / "scores.nc")
    for kind in ("members_30_min", "probabilities_60_min", "member_spectra"):
        assert again.total("three", kind).parameters == result.total("three", kind).parameters
        for name, array in result.total("three", kind).arrays().items():
            np.testing.assert_array_equal(again.total("three", kind).arrays()[name], array, err_msg=name)
    text = table(result, 200)
    line = next(line for line in text.splitlines() if line.startswith("rain of 60 minutes, mm, pooled over leads"))
    assert line.split()[8:16] == ["CRPS", "fair", "cells", "CRPS", "fair", "10", "km", "spread/RMSE"]
    assert "No box of 40 km is known throughout 60 minutes." in text
    ratio = SCORES["member_spectrum_ratio"].pooled(result.total("three", "member_spectra"))[0]
    (row,) = (line.split() for line in text.splitlines() if line.startswith("three members"))
    assert f"{ratio[2]:.3f}" in row
    assert max(map(len, table(result, 80).splitlines())) <= 80


class Stating(Persistence):
    """Persistence that states probabilities of its own, as `extrapolation` does."""

    is_probabilistic, thresholds = True, (1.0,)

    def forecast_one(self, past, reference, lead_times, thresholds=()):
        field, _ = super().forecast_one(past, reference, lead_times)
        return field, np.full((len(thresholds), *field.shape), 0.5, np.float32) if thresholds else None


def test_sums_of_a_field_are_scored_beside_stated_probabilities(record):
    forecasters = {"three": Three(), "stating": Stating(), "persistence": Persistence()}
    found = evaluate(forecasters, [record], selection=Selection(), thresholds=(1.0,))
    assert "stating" not in found.forecasters_with("members")
    for kind in ("members_30_min", "probabilities_60_min"):
        assert found.forecasters_with(kind) == list(forecasters)
        for name, array in found.total("persistence", kind).arrays().items():
            np.testing.assert_array_equal(found.total("stating", kind).arrays()[name], array, err_msg=name)
    alone = evaluate({"stating": Stating()}, [record], selection=Selection(), thresholds=(1.0,))
    assert not alone.forecasters_with("members_30_min")


def test_without_an_ensemble_no_sums_are_scored(record):
    alone = evaluate({"persistence": Persistence()}, [record], selection=Selection(), thresholds=(1.0,))
    assert not alone.forecasters_with("members_30_min")


@pytest.mark.slow
def test_scores_of_sums_have_intervals_over_days_and_differences():
    rng, leads, shape = np.random.default_rng(0), 6, (6, 8)
    result = Evaluation(tuple(10.0 * (n + 1) for n in range(leads)), (1.0,), RAIN_RATE, num_cases=6)
    for day in range(6):
        observed = rng.gamma(0.5, 4, (leads, *shape)).astype(np.float32)
        for name, error in (("good", 0.5), ("bad", 4)):
            members = (observed * rng.gamma(1 / error, error, (3, leads, *shape))).astype(np.float32)
            boxes = BoxSums(leads, 10.0, (5.0, 5.0), most_members=3)
            for lead in range(leads):
                boxes.add(lead, members[:, lead], observed[lead], np.ones(shape, bool))
            result.add(name, ("radar", f"2020-06-0{day + 1}"), Tally(boxes.kinds))
    rows = {tuple(row[c] for c in ("forecaster", "against", "lead_minutes", "scale_km", "threshold", "score")): row
            for row in result.rows()}  # fmt: skip
    for lead in (60.0, None):
        value, difference = (rows["good", other, lead, 10.0, None, "sum_60_min_crps_fair"] for other in (None, "bad"))
        assert value["low"] < value["value"] < value["high"]
        assert difference["low"] < difference["value"] < difference["high"] < 0
        assert (value["num_cases"], value["num_pairs"]) == (6, 6 * 3 * 4)
    assert rows["good", None, None, 40.0, None, "sum_60_min_crps_fair"]["num_cases"] == 0  # the grid has 30 km
    brier = rows["good", "bad", 30.0, 0.0, 5.0, "sum_30_min_brier"]
    assert brier["high"] < 0
    assert not any(lead == 10.0 for _, _, lead, *_ in rows)
