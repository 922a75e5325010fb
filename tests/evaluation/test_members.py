"""Members are scored at cells, of the rain of 30 and 60 minutes in boxes, and by their spectra, by hand and through files."""

import numpy as np
import pytest
from makers import rain, write_record
from makers.ensembles import ensemble_sums

from nowcast.evaluation.evaluate import evaluate
from nowcast.evaluation.pooling import read_scores
from nowcast.evaluation.score_files import as_dataset, write_dataset
from nowcast.forecasters.baselines import Persistence
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.opening import open_records
from nowcast.prediction.cases import Selection
from nowcast.report.table import table
from nowcast.scores.spectra import band_power, taper

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
    assert max(map(len, table(result, 80).splitlines())) <= 80


def test_without_an_ensemble_no_sums_are_scored(record):
    alone = evaluate({"persistence": Persistence()}, [record], selection=Selection(), thresholds=(1.0,))
    assert not alone.forecasters_with("members_30_min")
