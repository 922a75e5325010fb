"""`nowcast series`: rain rate, sums and exceedance at gauges and of areas, of records and forecasts."""

import csv
import json
import os
import re

import netCDF4
import numpy as np
import pytest
import xarray as xr
from makers import command, expect, write_record
from makers.cf_checker import cf_faults
from makers.damaged import damage, write_by_frame

import nowcast
from nowcast.errors import OutputError
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.places.earth import locate
from nowcast.prediction.running_sums import running_sums

pytest.importorskip("pyproj")
pytest.importorskip("shapely")
START = np.datetime64("2020-06-01T00:00:00")
COLUMNS = ["source", "place", "reference_time", "time", "lead_minutes", "rain_rate_mm_h", "known"]


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A record of constant rain, 12 mm/h, for an hour and a half, without the frame of 00:40; of the western half 6 mm/h."""
    monkeypatch.chdir(tmp_path)
    fields = np.full((18, 16, 20), 12, np.float32)
    fields[:, :, :10] = 6
    times = START + np.arange(19) * np.timedelta64(300, "s")
    return write_record(tmp_path / "rain.nc", fields, times=np.delete(times, 8))


def place_of(record, row, column):
    """Return LAT,LON of a position."""
    (opened,) = open_records([record])
    latitude, longitude = locate(opened.grid, "").degrees(row, column)
    return f"{latitude:.6f},{longitude:.6f}"


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_constant_rain_of_12_mm_h_gives_6_mm_in_half_an_hour(record):
    code, out, err = command(
        "series", record, "--at", f"east={place_of(record, 3, 15)}", "--sums", "30,60", "--output", "a.csv"
    )
    assert (code, out) == (0, "a.csv\n"), err
    rows = rows_of("a.csv")
    assert list(rows[0]) == [*COLUMNS, "sum_30_min_mm", "sum_60_min_mm"]
    assert {row["rain_rate_mm_h"] for row in rows} == {"12"}
    sums = {row["time"][11:16]: (row["sum_30_min_mm"], row["sum_60_min_mm"]) for row in rows}
    # from 00:00 on, half an hour is known at 00:25; the gap at 00:40 leaves sums missing until it is half an hour past
    assert sums["00:20"] == ("", "")
    assert sums["00:25"] == sums["00:35"] == ("6", "")
    assert sums["00:45"] == sums["01:05"] == ("", "")
    assert sums["01:10"] == sums["01:30"] == ("6", "")
    assert (rows[0]["source"], rows[0]["place"], rows[0]["time"]) == ("rain", "east", "2020-06-01T00:00:00Z")
    assert rows[0]["reference_time"] == rows[0]["lead_minutes"] == ""


def test_sums_at_the_start_hold_the_rain_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fields = np.random.default_rng(0).gamma(1, 4, (14, 16, 20)).astype(np.float32)
    record = write_record(tmp_path / "rain.nc", fields, times=START + np.arange(14) * np.timedelta64(300, "s"))
    options = ("--at", place_of(record, 3, 15), "--sums", "15,30")
    for name, span in (("all.csv", ()), ("late.csv", ("--start", "2020-06-01T00:35", "--end", "2020-06-01T00:50"))):
        code, _, err = command("series", record, *options, *span, "--output", name)
        assert code == 0, err
    late = rows_of("late.csv")
    assert [row["time"][11:16] for row in late] == ["00:35", "00:40", "00:45", "00:50"]
    assert late == rows_of("all.csv")[7:11]
    assert float(late[0]["sum_30_min_mm"]) == pytest.approx(fields[2:8, 3, 15].sum() / 12, rel=1e-4)


def test_a_catchment_is_the_mean_of_its_cells_and_thresholds_their_share(record):
    latitudes, longitudes = zip(
        *(map(float, place_of(record, r, c).split(",")) for r, c in [(2.5, 4.5), (2.5, 14.5), (8.5, 14.5), (8.5, 4.5)]),
        strict=True,
    )
    ring = list(zip(longitudes, latitudes, strict=True))
    with open("basin.geojson", "w") as file:
        json.dump(
            {
                "type": "Feature",
                "properties": {"name": "Basin"},
                "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
            },
            file,
        )
    code, _, err = command(
        "series", record, "--areas", "basin.geojson", "--thresholds", "5,10", "--end", "2020-06-01T00:00", "--output", "a.csv"
    )
    assert code == 0, err
    (row,) = rows_of("a.csv")
    # five of ten columns are in the east
    assert float(row["rain_rate_mm_h"]) == pytest.approx(9, abs=0.02)
    assert (float(row["exceedance_5_mm_h"]), float(row["exceedance_10_mm_h"])) == (1, pytest.approx(0.5, abs=0.003))
    assert re.search(r'^"Basin": \d+(\.\d+)? km², \d+ cells of rain, 100 % of it in the grid$', err, re.MULTILINE)


def test_forecasts_and_observations_stand_in_one_table(record):
    at = ["--at", f"a={place_of(record, 3, 15)}", "--at", f"b={place_of(record, 3, 4)}"]
    assert command("predict", "persistence", record, "--reference-time", "2020-06-01T00:20", "--output", "f.nc")[0] == 0
    code, _, err = command("series", "f.nc", record, *at, "--sums", "30", "--output", "a.csv")
    assert code == 0, err
    rows = rows_of("a.csv")
    assert [row["source"] for row in rows] == ["rain"] * 36 + ["f"] * 24
    forecast = rows[36:48]
    assert {row["reference_time"] for row in forecast} == {"2020-06-01T00:20:00Z"}
    assert [row["lead_minutes"] for row in forecast] == [f"{n}" for n in range(5, 65, 5)]
    assert forecast[0]["time"] == "2020-06-01T00:25:00Z"
    assert [row["sum_30_min_mm"] for row in forecast] == [""] * 5 + ["6"] * 7
    assert rows[48]["rain_rate_mm_h"] == "6"


def test_sums_hold_all_frames_of_their_minutes_where_the_time_step_changes():
    minutes = [0, 5, 10, 15, 25, 35, 45]
    times = np.datetime64("2020-06-01T00:00:00") + np.array(minutes) * np.timedelta64(60, "s")
    rates = np.array([6.0, 12, 18, 24, 30, 36, 42])[:, None]
    sums = running_sums(rates, times, np.timedelta64(600, "s"), [10, 20])[:, :, 0]
    np.testing.assert_allclose(sums[:, 0], [1, 1.5, 2.5, 3.5, 5, 6, 7])
    np.testing.assert_allclose(sums[:, 1], [np.nan, np.nan, np.nan, 5, np.nan, 11, 13])


def test_sums_are_missing_where_frames_are_however_evenly():
    minutes = [*range(0, 60, 5), *range(60, 121, 10)]
    times = np.datetime64("2020-06-01T00:00:00") + np.array(minutes) * np.timedelta64(60, "s")
    sums = running_sums(np.full((len(times), 1), 6.0), times, np.timedelta64(300, "s"), [10, 60])[:, :, 0]
    # 00:55 and 01:00 have twelve frames each; later ones lack every second, also within the last ten minutes
    np.testing.assert_allclose(sums[:, 0], [np.nan if n == 0 else 1 for n in range(13)] + [np.nan] * 6)
    np.testing.assert_allclose(sums[:, 1], [np.nan] * 11 + [6, 6] + [np.nan] * 6)


def write_hourly(path, hourly, times, kind):
    """Write hourly sums as amounts in mm, or as rates in mm/h that time bounds make means."""
    fields = np.broadcast_to(hourly[:, None, None], (len(hourly), 16, 20))
    if kind == "amounts":
        named = {"units": "mm", "standard_name": "lwe_thickness_of_precipitation_amount"}
        write_record(path, fields, times=times, cell_methods="time: sum over 60 minutes", **named)
        return
    write_record(path, fields, times=times, cell_methods="time: mean")
    with netCDF4.Dataset(path, "a") as file:
        file.createDimension("nv", 2)
        file["time"].bounds = "time_bnds"
        file.createVariable("time_bnds", "i4", ("time", "nv"))[:] = file["time"][:][:, None] - [3600, 0]


@pytest.mark.parametrize("kind", ["amounts", "means"])
def test_amounts_and_means_that_overlap_are_not_counted_twice(record, kind):
    fell = np.random.default_rng(0).integers(0, 5, 36).astype(np.float32)  # mm in each 10 minutes of six hours
    hourly = np.convolve(fell, np.ones(6))[5:36]  # the sums of an hour, every 10 minutes from the first hour on
    times = START + np.arange(6, 37) * np.timedelta64(600, "s")
    write_hourly("hours.nc", hourly, times, kind)
    given = "hours.nc", "--at", place_of(record, 3, 15), "--output", "a.csv"
    code, _, err = command("series", *given, "--sums", "60,120")
    assert code == 0, err
    found = [[float(row[f"sum_{length}_min_mm"] or "nan") for row in rows_of("a.csv")] for length in (60, 120)]
    np.testing.assert_allclose(found[0], hourly, rtol=1e-4)
    np.testing.assert_allclose(found[1], [np.nan] * 6 + [fell[n - 6 : n + 6].sum() for n in range(6, 31)], rtol=1e-4)
    code, _, err = command("series", *given, "--sums", "30", "--overwrite")
    says = "--sums 30: the interval of the frames of hours is 60 minutes.\nExpected a multiple of it."
    assert (code, says in err) == (2, True), err
    says = f"hours holds {kind} over 60 min, one every 10 min: they overlap, so that sums of several frames are not the rain of"
    for sums in (("--sums", "60"), ()):
        code, _, err = command("predict", "persistence", "hours.nc", *sums, "--output", "f.nc", "--overwrite")
        assert (code, says in err) == (0, bool(sums)), err
    for members in (("--members", "2"), ()):
        code, _, err = command("evaluate", "extrapolation", "--observations", "hours.nc", "--leads", "6", *members)
        assert (code, says in err) == (0, bool(members)), err


def test_amounts_of_two_time_steps_in_a_record_do_not_overlap(record):
    named = {"units": "mm", "standard_name": "lwe_thickness_of_precipitation_amount"}
    place = place_of(record, 3, 15)
    os.mkdir("mixed")
    for name, first, minutes in (("a", 0, 5), ("b", 60, 10)):  # 12 mm/h, every 5 minutes and from 01:00 on every 10
        times = START + (first + minutes * np.arange(12 if first == 0 else 6)) * np.timedelta64(60, "s")
        fields = np.full((len(times), 16, 20), minutes / 5, np.float32)
        write_record(f"mixed/{name}.nc", fields, times=times, cell_methods=f"time: sum over {minutes} minutes", **named)
    code, _, err = command("series", "mixed", "--at", place, "--sums", "10", "--output", "a.csv")
    assert code == 0, err
    sums = {row["time"][11:16]: row["sum_10_min_mm"] for row in rows_of("a.csv")}
    assert sums == {"00:00": "", **{f"00:{n:02}": "2" for n in range(5, 60, 5)}, "01:00": "2"} | dict.fromkeys(
        [f"01:{n}" for n in range(10, 60, 10)], ""
    )


def test_sums_that_are_missing_everywhere_are_told(record):
    assert command("predict", "persistence", record, "--reference-time", "2020-06-01T00:20", "--output", "f.nc")[0] == 0
    code, _, err = command("series", "f.nc", record, "--at", place_of(record, 3, 15), "--sums", "90", "--output", "a.csv")
    assert code == 0, err
    assert "f: no sum over 90 minutes: its leads end after 60" in err
    assert "rain: no sum over 90 minutes: it has no such run of frames without a gap" in err


def test_probabilities_are_given_at_the_forecasts_own_thresholds(record):
    at = ["--at", f"a={place_of(record, 3, 15)}", "--at", f"far={place_of(record, 3, 30)}"]
    options = ["--probabilities", "--thresholds", "5,10", "--reference-time", "2020-06-01T00:20"]
    assert command("predict", "extrapolation", record, *options, "--output", "f.nc")[0] == 0
    code, _, err = command("series", "f.nc", *at, "--output", "a.csv")
    assert code == 0, err
    assert '"far" lies outside of f: its values are missing' in err
    with xr.open_dataset("f.nc") as file:
        stored = file["probability_of_rainfall_above_threshold"][:, :, 3, 15].values
    rows = rows_of("a.csv")
    for n, name in enumerate(["exceedance_5_mm_h", "exceedance_10_mm_h"]):
        np.testing.assert_allclose([float(row[name]) for row in rows[:12]], stored[n], atol=1e-4)
        assert {row[name] for row in rows[12:]} == {""}
    assert {row["known"] for row in rows[12:]} == {"0"}
    assert command("series", "f.nc", *at, "--thresholds", "10", "--output", "ten.csv")[0] == 0
    assert [row["exceedance_10_mm_h"] for row in rows_of("ten.csv")] == [row["exceedance_10_mm_h"] for row in rows]
    expect(
        2,
        "series",
        "f.nc",
        *at[:2],
        "--thresholds",
        "7",
        "--output",
        "b.csv",
        says="no probabilities of 7 mm/h.\nIt has those of 5, 10",
    )


def test_forecasts_are_chosen_by_their_reference_times_ends_included(record):
    at, given = ["--at", place_of(record, 3, 15)], []
    for time in ("00:15", "00:20", "00:25", "00:30"):
        given += ["--reference-time", f"2020-06-01T{time}"]
    assert command("predict", "persistence", record, *given, "--leads", 1, "--output", "f.nc")[0] == 0
    span = ["--start", "2020-06-01T00:20", "--end", "2020-06-01T00:25"]
    assert command("series", "f.nc", *at, *span, "--output", "a.csv")[0] == 0
    assert [row["reference_time"][11:16] for row in rows_of("a.csv")] == ["00:20", "00:25"]
    says = r"f has no forecast in the times asked for\.\nIt has forecasts from 2020-06-01T00:15:00Z to 2020-06-01T00:30:00Z"
    expect(75, "series", "f.nc", *at, "--start", "2020-06-01T00:31", "--output", "b.csv", says=says)


def test_forecasts_of_one_name_and_other_grids_keep_their_own_values(tmp_path, record):
    other = write_record(tmp_path / "other.nc", np.arange(7 * 320, dtype=np.float32).reshape(7, 16, 20) / 100, y_ascending=True)
    at = ["--at", f"a={place_of(other, 3, 4)}"]  # in the middle of a cell of both grids
    large = np.zeros((7, 18, 20), np.float32)
    large[:, 5] = 6
    fields = {"one": record, "two": other, "three": write_record(tmp_path / "large.nc", large)}
    for name, path in fields.items():
        (tmp_path / name).mkdir()
        asked = ["--reference-time", "2020-06-01T00:20", "--leads", 1, "--output", f"{name}/f.nc"]
        assert command("predict", "persistence", path, *asked)[0] == 0
    code, _, err = command("series", *(f"{name}/f.nc" for name in fields), *at, "--output", "a.csv")
    assert code == 0, err
    rates = {row["source"]: float(row["rain_rate_mm_h"]) for row in rows_of("a.csv")}
    # the third grid goes two rows farther north
    assert rates == {"f": 6, "f 2": pytest.approx((4 * 320 + 3 * 20 + 4) / 100, abs=0.01), "f 3": 6}


def test_no_two_sources_have_one_name(tmp_path, record):
    """A forecast of the name of its record, and forecasts of one name beside one that has the next number in its name."""
    at = ["--at", f"a={place_of(record, 3, 4)}"]
    for folder, name, minute in ((".", "f 2", 15), ("one", "f", 20), ("two", "f", 25), ("three", "rain", 30)):
        (tmp_path / folder).mkdir(exist_ok=True)
        asked = ["--reference-time", f"2020-06-01T00:{minute}", "--leads", 1, "--output", f"{folder}/{name}.nc"]
        assert command("predict", "persistence", record, *asked)[0] == 0
    code, _, err = command("series", "one/f.nc", "two/f.nc", "f 2.nc", "three/rain.nc", record, *at, "--output", "a.csv")
    assert code == 0, err
    minutes = {row["source"]: row["reference_time"][14:16] for row in rows_of("a.csv")}
    assert minutes == {"rain": "", "f": "20", "f 3": "25", "f 2": "15", "rain forecast": "30"}


def test_probabilities_alone_give_no_rain_rate(record):
    options = ["--probabilities", "--thresholds", "5,10", "--reference-time", "2020-06-01T00:20", "--leads", 3]
    assert command("predict", "extrapolation", record, *options, "--output", "f.nc")[0] == 0
    with xr.open_dataset("f.nc") as file:
        alone = file.drop_vars([name for name in file.data_vars if name == "precip_intensity"]).load()
    alone.to_netcdf("alone.nc")
    at = ["--at", place_of(record, 3, 15), "--sums", "10"]
    for name in ("f", "alone"):
        code, _, err = command("series", f"{name}.nc", *at, "--thresholds", "5,10", "--output", f"{name}.csv")
        assert code == 0, err
    both, only = rows_of("f.csv"), rows_of("alone.csv")
    assert list(both[0]) == list(only[0]) == [*COLUMNS, "sum_10_min_mm", "exceedance_5_mm_h", "exceedance_10_mm_h"]
    assert {row["rain_rate_mm_h"] for row in only} == {row["sum_10_min_mm"] for row in only} == {""}
    assert {row["known"] for row in only} == {"1"}
    for name in ("exceedance_5_mm_h", "exceedance_10_mm_h", "time"):
        assert [row[name] for row in only] == [row[name] for row in both]


def test_a_field_at_the_reference_time_is_no_forecast(record):
    asked = ["--reference-time", "2020-06-01T00:20", "--leads", 4, "--output", "f.nc"]
    assert command("predict", "persistence", record, *asked)[0] == 0
    with netCDF4.Dataset("f.nc", "a") as file:  # the first of four lead times becomes 0
        for name, change in (("forecast_reference_time", 300), ("forecast_period", -300)):
            file[name][:] = file[name][:] + change
    at = ["--at", place_of(record, 3, 15), "--sums", "10"]
    code, _, err = command("series", "f.nc", *at, "--output", "a.csv")
    assert code == 0, err
    found = [(row["time"][11:16], row["lead_minutes"], row["sum_10_min_mm"]) for row in rows_of("a.csv")]
    assert found == [("00:30", "5", ""), ("00:35", "10", "2"), ("00:40", "15", "2")]


def test_frames_that_cannot_be_read_are_named_and_a_record_of_such_frames_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fields = np.full((4, 40, 50), 6, np.float32) + np.random.default_rng(0).random((4, 40, 50), np.float32)
    for name, frames in (("some", [1]), ("all", range(4))):
        damage(write_by_frame(tmp_path / f"{name}.nc", fields), frames)
    at = ["--at", place_of("some.nc", 3, 15)]
    code, _, err = command("series", "some.nc", *at, "--output", "a.csv")
    assert (code, "some.nc: 1 frame cannot be read and counts as missing: 2020-06-01T00:05:00Z" in err) == (0, True), err
    assert [row["known"] for row in rows_of("a.csv")] == ["1", "0", "1", "1"]
    expect(3, "series", "all.nc", *at, "--output", "b.csv", says=r"all\.nc: frame 0 of rainfall_rate cannot be read")


def test_what_is_no_rain_has_no_sums(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clouds = {"variable": "share", "standard_name": "cloud_area_fraction", "units": "1"}
    write_record(tmp_path / "clouds.nc", np.ones((3, 16, 20)), **clouds)
    asked = ["--variable", "share", "--at", "50,5", "--output", "a.csv"]
    expect(3, "series", "clouds.nc", *asked, says=r"clouds holds dimensionless\.\nExpected rain")


def test_missing_frames_stay_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fields = np.full((7, 16, 20), 12, np.float32)
    fields[2, 3, 15] = np.nan
    path = write_record(tmp_path / "rain.nc", fields)
    at = place_of(path, 3, 15)
    assert command("series", path, "--at", at, "--sums", "10", "--thresholds", "1", "--output", "a.csv")[0] == 0
    rows = rows_of("a.csv")
    assert [row["rain_rate_mm_h"] for row in rows] == ["12", "12", "", "12", "12", "12", "12"]
    assert [row["sum_10_min_mm"] for row in rows] == ["", "2", "", "", "2", "2", "2"]
    assert [row["exceedance_1_mm_h"] for row in rows] == ["1", "1", "", "1", "1", "1", "1"]
    assert rows[2]["known"] == "0"


def test_netcdf_holds_the_same_by_cf(record):
    at = ["--at", f"a={place_of(record, 3, 15)}", "--at", f"b={place_of(record, 3, 4)}", "--sums", "30", "--thresholds", "10"]
    assert command("series", record, *at, "--output", "a.nc")[0] == 0
    faults, num_checks = cf_faults("a.nc")
    assert not faults
    assert num_checks > 20
    with xr.open_dataset("a.nc") as file:
        assert file.attrs["featureType"] == "timeSeries"
        assert file["rain_rate"].dims == ("place", "time")
        np.testing.assert_array_equal(file["rain_rate"], np.repeat([[12.0], [6.0]], 18, axis=1))
        np.testing.assert_array_equal(file["exceedance"][..., 0], np.repeat([[1.0], [0.0]], 18, axis=1))
        assert file["rain_sum_30_min"].attrs["standard_name"] == "lwe_thickness_of_precipitation_amount"
        assert file["rain_sum_30_min"].sel(time="2020-06-01T00:25").values.tolist() == [6, 3]
        assert file["place_name"].values.tolist() == ["a", "b"]
    command("predict", "persistence", record, "--reference-time", "2020-06-01T00:20", "--output", "f.nc")
    assert command("series", record, "f.nc", *at, "--output", "b.nc")[0] == 0
    assert not cf_faults("b.nc")[0]
    with xr.open_dataset("b.nc") as file:
        assert file["rain_rate_f"].dims == ("place", "forecast_reference_time_f", "forecast_period_f")
        assert file["time_f"].values[0, 0] == np.datetime64("2020-06-01T00:25")


def test_what_cannot_be_answered_is_refused(record, tmp_path):
    at = ["--at", place_of(record, 3, 15)]
    expect(2, "series", record, "--output", "a.csv", says="no place is given")
    expect(2, "series", record, *at, "--output", "a.txt", says="end the name in .csv")
    expect(
        2,
        "series",
        record,
        *at,
        "--sums",
        "7",
        "--output",
        "a.csv",
        says="time step of rain is 5 minutes.\nExpected a multiple",
    )
    expect(2, "series", record, *at, "--sums", "60,30", "--output", "a.csv", says="write ascending numbers")
    expect(3, "series", record, "--at", "0,0", "--output", "a.csv", says="no place lies in the grid of rain.\nIts corners")
    expect(75, "series", record, *at, "--start", "2021-01-01", "--output", "a.csv", says="no frame in the times asked for")
    expect(5, "series", record, *at, "--output", "rain.nc", says="exists already")


def test_every_member_has_its_series(record):
    code, _, err = command("predict", "extrapolation", record, "--members", 3, "--leads", 2, "--output", "f.nc")
    assert code == 0, err
    asked = ["series", "f.nc", record, "--at", f"east={place_of(record, 3, 15)}", "--sums", "10", "--thresholds", "5,14.4"]
    for output in ("a.csv", "a.nc"):
        code, _, err = command(*asked, "--output", output)
        assert code == 0, err
    forecast = [row for row in rows_of("a.csv") if row["source"] == "f"]
    numbers = np.array([[float(row[f"member_{n}_mm_h"]) for n in range(3)] for row in forecast])
    assert (numbers.std(axis=1) > 0).all()
    np.testing.assert_allclose([float(row["rain_rate_mm_h"]) for row in forecast], numbers.mean(axis=1), rtol=1e-4)
    reached = [[float(row[f"exceedance_{level}_mm_h"]) for level in (5, 14.4)] for row in forecast]
    np.testing.assert_allclose(reached, (numbers[:, None] >= np.array([[5], [14.4]])).mean(axis=-1), atol=1e-4)
    assert set(np.ravel(reached).round(2)) & {0.33, 0.67}  # the members differ
    sums = [float(forecast[1][f"member_{n}_sum_10_min_mm"]) for n in range(3)]
    np.testing.assert_allclose(sums, numbers.mean(axis=0) / 6, rtol=1e-4)
    assert {row["member_0_mm_h"] for row in rows_of("a.csv") if row["source"] == "rain"} == {""}
    with xr.open_dataset("a.nc") as found:
        assert found.rain_rate_members_f.dims[-1] == "realization_f"
        np.testing.assert_allclose(found.rain_rate_members_f.values[0, 0], numbers, rtol=1e-4)
        np.testing.assert_allclose(found.rain_sum_10_min_members_f.values[0, 0, 1], sums, rtol=1e-4)
    faults, _ = cf_faults("a.nc")
    assert not faults


def test_members_keep_the_numbers_of_their_files(record):
    """ECMWF numbers members from 1 on; two forecasts in one table have each member in the column of its number."""
    for name, numbers in (("low", [1, 2, 3]), ("high", [3, 9, 2]), ("named", ["cf", "p1", "p2"])):
        code, _, err = command("predict", "extrapolation", record, "--members", 3, "--leads", 2, "--output", f"{name}.nc")
        assert code == 0, err
        with xr.open_dataset(f"{name}.nc") as made:
            made.load()
        made.precip_intensity[:] = np.array([[[6]], [[12]], [[18]]])  # mm/h, of the first, second and third member
        made = made.assign_coords(realization=("realization", numbers)).rename(realization="number")
        made.to_netcdf(f"{name}.nc", encoding={"precip_intensity": {"dtype": "f4", "_FillValue": -9.0}})
    at = ["--at", f"east={place_of(record, 3, 15)}", "--sums", "10"]
    for output in ("a.csv", "a.nc"):
        code, _, err = command("series", "low.nc", "high.nc", "named.nc", *at, "--output", output)
        assert code == 0, err
    rows = rows_of("a.csv")
    columns = [[f"member_{n}_{kind}" for n in (0, 1, 2, 3, 9)] for kind in ("mm_h", "sum_10_min_mm")]
    assert list(rows[0])[-10:] == [name for kind in columns for name in kind]
    for kind, first, second, third in zip(columns, ("6", "1"), ("12", "2"), ("18", "3"), strict=True):
        low, high, named = ([rows[n][name] for name in kind] for n in (1, 3, 5))
        assert (low, high) == (["", first, second, third, ""], ["", "", third, first, second])
        assert named == [first, second, third, "", ""]  # without numbers: from 0, in the order of the file
    with xr.open_dataset("a.nc") as found:
        numbers = [found[f"realization_{name}"].values.tolist() for name in ("low", "high", "named")]
    assert numbers == [[1, 2, 3], [2, 3, 9], [0, 1, 2]]


def test_a_full_disk_is_told_in_two_lines(record, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("NetCDF: HDF error")  # what the library says of a disk that is full

    place = place_of(record, 3, 15)
    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    says = r"s\.nc cannot be written: NetCDF: HDF error\.\nIs the disk full \(free: .*\), or the folder read-only\?"
    expect(5, "series", record, "--at", place, "--output", "s.nc", "--quiet", says=says)
    with xr.open_dataset(record) as dataset, pytest.raises(OutputError, match=r"cannot be written: NetCDF: HDF error\.\n"):
        nowcast.load("persistence").forecast(dataset[["rainfall_rate"]], leads=1)
