"""Records have names that differ: files of forecasts, scores and blocks of the bootstrap are told apart by them."""

import json

import numpy as np
import pytest
from makers import command, rain, write_record

from nowcast.forecasters.baselines import Persistence
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.record import with_own_names
from nowcast.prediction.cases import Selection
from nowcast.prediction.pipeline import predict

FIELDS = {"wide": rain(frames=6, shape=(6, 10)), "high": rain(frames=6, shape=(9, 5)), "small": rain(frames=6, shape=(5, 6))}
START = np.datetime64("2020-06-01T00:00:00")
STEP = np.timedelta64(300, "s")


def file(path, radar="wide", first=0, frames=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(first, first + frames)
    return write_record(path, FIELDS[radar][numbers], times=START + numbers * STEP)


@pytest.mark.parametrize(
    ("wide", "high", "names"),
    [
        (["a/0.nc", "a/1.nc"], ["b/0.nc", "b/1.nc"], ["in-a", "in-b"]),
        (["a/06/01/0.nc", "a/06/02/1.nc"], ["b/06/01/0.nc", "b/06/02/1.nc"], ["in-a", "in-b"]),
        (["r/06/0.nc", "r/06/1.nc"], ["r/06/high/0.nc", "r/06/high/1.nc"], ["in", "in-high"]),
        (["0.nc", "1.nc"], ["2.nc", "3.nc"], ["in-0", "in-2"]),
        (["0.cdf", "1.nc"], ["0.nc", "3.nc"], ["in-1", "in-2"]),
        (["a/rain.nc"], ["b/rain.nc"], ["rain-a", "rain-b"]),
        (["a/rain.nc"], ["b/snow.nc"], ["rain", "snow"]),
    ],
)
def test_series_of_one_folder_are_named_by_what_tells_them_apart(tmp_path, wide, high, names):
    for radar, paths in (("wide", wide), ("high", high)):
        for n, path in enumerate(paths):
            file(tmp_path / "in" / path, radar, 2 * n)
    records = sorted(open_records([tmp_path / "in"]), key=lambda record: -record.grid.shape[1])
    assert [record.name for record in records] == names
    for record, radar in zip(records, ("wide", "high"), strict=True):
        np.testing.assert_array_equal(record.read(range(2)), FIELDS[radar][:2])


def test_folders_of_one_name_are_told_apart_by_where_they_lie(tmp_path):
    for radar in ("wide", "high"):
        for n in range(2):
            file(tmp_path / radar / "2020" / f"{n}.nc", radar, 2 * n)
    records = open_records([tmp_path / "wide/2020", tmp_path / "high/2020"])
    assert [record.name for record in records] == ["2020-wide", "2020-high"]


def test_a_number_makes_no_name_that_is_taken(tmp_path):
    paths = [file(tmp_path / "rain-1.nc", "small"), file(tmp_path / "rain.nc"), file(tmp_path / "rain.cdf", "high")]
    assert [record.name for record in open_records(paths)] == ["rain-1", "rain-2", "rain-3"]


def test_records_opened_one_by_one_get_names_of_their_own(tmp_path):
    records = [open_records(file(tmp_path / radar / "rain.nc", radar))[0] for radar in ("wide", "high")]
    assert [record.name for record in records] == ["rain", "rain"]
    assert [record.name for record in with_own_names(records)] == ["rain-wide", "rain-high"]
    assert with_own_names(records[:1])[0] is records[0]
    forecaster = Persistence()
    forecaster.limit_leads(1)
    written = predict(forecaster, records, tmp_path / "out", selection=Selection(), folder=True)
    assert [path.name for path in written] == ["rain-wide_20200601T000500Z.nc", "rain-high_20200601T000500Z.nc"]
    for path, radar in zip(written, ("wide", "high"), strict=True):
        np.testing.assert_allclose(read_forecast(path).read(0)[0], FIELDS[radar][1], rtol=1e-6)


def test_radars_in_subfolders_are_each_forecast_and_scored(tmp_path):
    for radar in ("wide", "high"):
        for n in range(3):
            file(tmp_path / "in" / radar / f"{n}.nc", radar, 2 * n)
    code, out, err = command("predict", "persistence", tmp_path / "in", "--output", f"{tmp_path}/out/", "--leads", "1")
    assert code == 0, err
    written = [tmp_path / "out" / f"in-{radar}_20200601T002500Z.nc" for radar in ("high", "wide")]
    assert sorted(out.split()) == list(map(str, written))
    for path, radar in zip(written, ("high", "wide"), strict=True):
        np.testing.assert_allclose(read_forecast(path).read(0)[0], FIELDS[radar][5], rtol=1e-6)
    scoring = ("evaluate", "persistence", "--observations", tmp_path / "in", "--leads", "1", "--format", "json")
    code, out, err = command(*scoring)
    assert code == 0, err
    scored = json.loads(out)
    assert (scored["records"], scored["num_blocks"]) == (["in-high", "in-wide"], 2)
    assert [about["grid"].split(",")[0] for about in scored["about"]["records"]] == ["9 × 5", "6 × 10"]
