"""Archives as they lie on disks: on all levels, with links, strays and what nowcast itself wrote among the files."""

import logging
import os

import netCDF4
import numpy as np
import pytest
from makers import rain, write_record
from makers.stored import read_one, write

from nowcast.errors import DataError, UsageError
from nowcast.forecasters import open_forecaster
from nowcast.netcdf import opening
from nowcast.netcdf.attributes import SCORES_FORMAT
from nowcast.netcdf.files import expand
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.opening import MANY, OwnOutput, open_records
from nowcast.netcdf.record import most_frequent_step
from nowcast.quantity import RAIN_RATE
from nowcast.runtime import progress

START = np.datetime64("2020-06-01T00:00:00")
STEP = np.timedelta64(300, "s")
FIELDS = rain(frames=6, shape=(8, 9))


def frame(path, n):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_record(path, FIELDS[[n]], times=[START + n * STEP])


def test_the_opening_of_many_files_shows_its_progress(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1)
    for n in range(MANY):
        path = frame(tmp_path / "many" / f"{n:02}.nc", n % 6)
    with caplog.at_level(logging.INFO, logger="nowcast"):
        open_records([path])
        assert "opening" not in caplog.text
        open_records([tmp_path / "many"])
    assert f"opening {tmp_path / 'many'} {MANY - 1}/{MANY} files, " in caplog.text


def test_the_time_step_is_found_once_per_record_however_many_its_files(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(opening, "most_frequent_step", lambda times: found.append(len(times)) or most_frequent_step(times))
    for n in range(6):
        frame(tmp_path / "archive" / f"{n}.nc", n)
    (record,) = open_records([tmp_path / "archive"])
    assert (found, record.time_step) == ([6], STEP)


def forecast(path, record):
    write_forecast(
        path,
        [(record.times[-1], FIELDS[:2])],
        grid=record.grid,
        lead_times=np.arange(1, 3) * STEP,
        quantity=RAIN_RATE,
        attributes={"source": "persistence, nowcast 1.0", "title": "Nowcast of rain"},
        single=True,
    )
    return path


@pytest.mark.parametrize("levels", ["2020/06/01", "2020/06", "2020", "20200601/radar/rain/5min"])
def test_folders_are_searched_on_all_levels_and_name_the_record(tmp_path, levels):
    for n in range(6):
        frame(tmp_path / "archive" / levels / f"{n}.nc", n)
    (record,) = open_records([tmp_path / "archive"])
    assert (record.name, len(record)) == ("archive", 6)
    np.testing.assert_array_equal(record.read(range(6)), FIELDS)
    (record,) = open_records([tmp_path / "archive" / levels])
    assert (record.name, len(record)) == (levels.split("/")[-1], 6)


def test_days_of_several_folders_are_one_series_in_order(tmp_path):
    for n in range(6):
        frame(tmp_path / "archive" / f"2020/06/0{n % 3 + 1}" / f"{n}.nc", n)
    (record,) = open_records([tmp_path / "archive"])
    np.testing.assert_array_equal(record.read(range(6)), FIELDS)


def test_a_stray_file_on_top_hides_nothing(tmp_path):
    for n in range(5):
        frame(tmp_path / "archive/2020/06" / f"{n}.nc", n)
    frame(tmp_path / "archive/static.nc", 5)
    (record,) = open_records([tmp_path / "archive"])
    assert len(record) == 6


def test_files_by_ending_and_hidden_ones(tmp_path):
    for n, name in enumerate(["a.nc", "b.NC", "c.nc4", "d.netcdf", "e.cdf"]):
        frame(tmp_path / "in" / name, n)
    for name in ("in/.hidden.nc", "in/.part/f.nc", "in/g.nc.part", "in/h.txt"):
        frame(tmp_path / name, 5)
    assert [path.name for path in expand(tmp_path / "in")] == ["a.nc", "b.NC", "c.nc4", "d.netcdf", "e.cdf"]


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    frame(tmp_path / "elsewhere/0.nc", 0)
    frame(tmp_path / "archive/1.nc", 1)
    os.symlink(tmp_path / "elsewhere", tmp_path / "archive/link")
    os.symlink(tmp_path / "archive", tmp_path / "archive/again")
    os.symlink(tmp_path / "gone", tmp_path / "archive/dangling.nc")
    assert [path.name for path in expand(tmp_path / "archive")] == ["1.nc", "0.nc"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["1.nc.gz", "2.nc.gz"], ", where 2 files end in .nc.gz"),
        (["1.h5"], ", where 1 file ends in .h5"),
        (["1.tif", "2.tif", "3"], ", where 2 files end in .tif among others"),
        ([], ""),
    ],
)
def test_a_folder_without_netcdf_files_says_what_it_holds(tmp_path, names, told):
    (tmp_path / "in/2020").mkdir(parents=True)
    for name in names:
        (tmp_path / "in/2020" / name).write_bytes(b"x")
    with pytest.raises(UsageError) as error:
        expand(tmp_path / "in")
    assert (
        str(error.value)
        == f"no NetCDF files in {tmp_path / 'in'}{told}.\nExpected files ending in .nc, .nc4, .nc3, .netcdf, .cdf."
    )


def test_what_nowcast_wrote_is_left_out_of_a_folder(tmp_path, caplog):
    for n in range(6):
        frame(tmp_path / "in" / f"{n}.nc", n)
    (record,) = open_records([tmp_path / "in"])
    (tmp_path / "in/forecasts").mkdir()
    own = forecast(tmp_path / "in/forecasts/f.nc", record)
    write_record(tmp_path / "in/scores.nc", FIELDS)
    with netCDF4.Dataset(tmp_path / "in/scores.nc", "a") as file:
        file.setncattr(SCORES_FORMAT, 1)
    with caplog.at_level(logging.WARNING):
        (again,) = open_records([tmp_path / "in"])
    assert again.times.tolist() == record.times.tolist()
    assert f"left out 2 of 8 files of {tmp_path / 'in'}, which nowcast made: forecasts or scores" in caplog.text
    (alone,) = open_records([own])  # named by itself it may be looked at as a record
    np.testing.assert_array_equal(alone.read(range(2)), FIELDS[:2])
    with pytest.raises(OwnOutput, match=r"f.nc holds forecasts or scores that nowcast made\.\nExpected observations"):
        open_records([tmp_path / "in/forecasts"])
    with pytest.raises(DataError, match="holds forecasts or scores that nowcast made"):
        open_records([own], forecasts_too=False)


def test_forecasts_on_several_levels_are_found(tmp_path):
    frame(tmp_path / "r.nc", 0)
    (record,) = open_records([tmp_path / "r.nc"])
    (tmp_path / "out/2020/06").mkdir(parents=True)
    forecast(tmp_path / "out/2020/06/f.NC", record)
    assert open_forecaster(str(tmp_path / "out"), device=None).reference_times.tolist() == [START.item()]
    assert open_forecaster(str(tmp_path / "out/2020/06/f.NC"), device=None).name == "f"


@pytest.mark.parametrize(
    ("units", "attributes", "said"),
    [
        ("dBZ", {}, "rr is a rate, but rr in b.nc a reflectivity"),
        ("mm", {"accutime": 60.0}, "rr is a rate, but rr in b.nc an amount over 3600 s"),
        ("mm", {"accutime": 5.0}, ""),
        ("kg m-2 s-1", {}, ""),
    ],
)
def test_different_products_in_a_folder_are_told(tmp_path, caplog, units, attributes, said):
    write(tmp_path / "a.nc", FIELDS, times=1_600_000_200 + 300 * np.arange(6))
    later = 1_600_000_200 + 300 * np.arange(6, 12)
    factor = {"mm": attributes.get("accutime", 0) / 60, "kg m-2 s-1": 1 / 3600}.get(units, 1)
    numbers = FIELDS * factor if units != "dBZ" else 10 * np.log10(200 * np.maximum(FIELDS, 1e-3) ** 1.6)
    write(tmp_path / "b.nc", numbers.astype("f4"), times=later, units=units, **attributes)
    np.testing.assert_allclose(read_one(tmp_path), np.tile(FIELDS, (2, 1, 1)), rtol=1e-4, atol=2e-3)
    end = "Different products belong in folders of their own"
    assert caplog.messages == ([f"{tmp_path / 'a.nc'}: {said}. {end}"] if said else [])
