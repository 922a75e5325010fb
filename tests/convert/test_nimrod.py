"""Nimrod files of the Met Office become records: values, times, places and missing cells, or a message of two lines."""

import tarfile

import numpy as np
import pytest
from makers import command
from makers.originals import START, converted, counts, nimrod_field, stored, write_nimrod

from nowcast.convert.sniffing import format_of
from nowcast.netcdf.opening import open_records

pytestmark = pytest.mark.usefixtures("cache")
pytest.importorskip("pyproj")
FIELD = counts().astype(np.int16)


@pytest.mark.parametrize("name", ["a.dat", "a.dat.gz"])
def test_rates_keep_their_counts(tmp_path, name):
    field = FIELD.copy()
    field[0, :5] = -1
    path = write_nimrod(tmp_path / name, nimrod_field(field, minutes=5))
    assert format_of(path) == "nimrod"
    record = converted(path)
    np.testing.assert_allclose(record.read([0])[0], np.where(field == -1, np.nan, field / 32), rtol=1e-6)
    assert record.times == [START + np.timedelta64(5, "m")]
    assert record.grid.mapping_attributes["scale_factor_at_central_meridian"] == 0.9996012717
    assert stored(record)[0].dtype == np.int16
    np.testing.assert_array_equal(stored(record)[0][0], field)


def test_a_grid_of_more_cells_than_its_header_could_count(tmp_path):
    field = np.arange(250 * 300, dtype=np.int16).reshape(250, 300) % 100
    np.testing.assert_allclose(converted(write_nimrod(tmp_path / "a.dat", nimrod_field(field))).read([0])[0], field / 32)


def test_the_national_grid_is_placed_with_its_datum(tmp_path):
    """The towers of Caister: 651 409.903 m E, 313 177.270 m N; the OS gives 52.6579786, 1.7160519 in ETRS89, to 5 m."""
    record = converted(write_nimrod(tmp_path / "a.dat", nimrod_field(FIELD, north=313_177.27, west=651_409.903)))
    assert (record.grid.x[1] - record.grid.x[0], record.grid.y[1] - record.grid.y[0]) == (1000, -1000)
    import pyproj

    crs = pyproj.CRS.from_cf(record.grid.mapping_attributes)
    to_degrees = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    longitude, latitude = to_degrees.transform(record.grid.x[0], record.grid.y[0])
    assert (longitude, latitude) == pytest.approx((1.7160519, 52.6579786), abs=6e-5)


def test_other_maps_are_those_of_the_header(tmp_path):
    europe = nimrod_field(FIELD, map=4, ellipsoid=1, origin=(10.0, -5.0, 1e6, 2e6), scale=0.9, north=3e6, west=9e5, step=5000.0)
    attributes = converted(write_nimrod(tmp_path / "a.dat", europe)).grid.mapping_attributes
    expected = {
        "grid_mapping_name": "transverse_mercator", "latitude_of_projection_origin": 10.0, "false_easting": 1e6,
        "longitude_of_central_meridian": -5.0, "false_northing": 2e6, "semi_major_axis": 6378388.0,
    }  # fmt: skip
    assert {name: attributes[name] for name in expected} == expected
    assert attributes["scale_factor_at_central_meridian"] == pytest.approx(0.9)


def test_seconds_that_are_not_stated_are_0(tmp_path):
    data = bytearray(nimrod_field(FIELD))
    data[14:16] = (-32767).to_bytes(2, signed=True)
    assert converted(write_nimrod(tmp_path / "a.dat", bytes(data))).times == [START]


def test_degrees(tmp_path):
    (tmp_path / "a").mkdir()
    record = converted(write_nimrod(tmp_path / "a" / "a.dat", nimrod_field(FIELD, map=1, north=60.0, west=-10.0, step=0.5)))
    np.testing.assert_allclose(record.grid.y, 60 - 0.5 * np.arange(12))
    np.testing.assert_allclose(record.grid.x, -10 + 0.5 * np.arange(14))
    assert record.grid.rows.kind == "latitude"


@pytest.mark.parametrize("stated", [{"period": 15}, {"period": 32767, "seconds": 900}, {"period": 15, "data_time": 15}])
def test_sums_are_divided_by_their_period(tmp_path, stated):
    """Where the data time is the start of the period, as in the last, they are observed all the same."""
    record = converted(write_nimrod(tmp_path / "a.dat", nimrod_field(FIELD, units="mm*10^2", code=61, **stated)))
    np.testing.assert_allclose(record.read([0])[0], FIELD / 100 * 4, rtol=1e-6)
    assert stored(record)[1]["cell_methods"] == "time: mean (comment: of sums over 15 minutes)"


@pytest.mark.parametrize("kind", [(0, 4), (1, 1), (1, 4), (2, 1)])
def test_values_of_other_types(tmp_path, kind):
    field = np.minimum(FIELD, 120)
    field[3, :4], field[4] = -2, -1
    for missing in (-2, -32767):
        made = nimrod_field(field, kind=kind, units="mm/hr", missing=missing)
        record = converted(write_nimrod(tmp_path / "a.dat", made), "--overwrite")
        np.testing.assert_allclose(record.read([0])[0], np.where(field < 0, np.nan, field), rtol=1e-6)


def test_reflectivity_stays_reflectivity(tmp_path):
    record = converted(write_nimrod(tmp_path / "a.dat", nimrod_field(FIELD, units="dBZ*10", code=1)))
    assert record.is_reflectivity
    np.testing.assert_allclose(record.read([0])[0], (10 ** (FIELD / 100) / 200) ** (1 / 1.6), rtol=1e-4)


def test_of_several_fields_in_a_file_each_is_read_and_forecasts_are_left_out(tmp_path):
    fields = [nimrod_field(FIELD + n, minutes=5 * n) for n in range(3)] + [nimrod_field(FIELD, minutes=15, data_time=5)]
    path = write_nimrod(tmp_path / "a.dat", *fields)
    code, _, err = command("convert", str(path), "--output", str(tmp_path / "out"))
    assert code == 0, err
    assert "1 field of 1 file is a forecast, the first 5 minutes ahead" in err
    (record,) = open_records([tmp_path / "out"])
    np.testing.assert_allclose(record.read([0, 1, 2]), np.stack([FIELD + n for n in range(3)]) / 32, rtol=1e-6)


def test_daily_archives_of_files_that_are_compressed(tmp_path):
    names = [f"metoffice-c-band-rain-radar_uk_202006010{n}00_1km-composite.dat.gz" for n in range(3)]
    with tarfile.open(tmp_path / "day.tar", "w") as archive:
        for n, name in enumerate(names):
            write_nimrod(tmp_path / name, nimrod_field(FIELD + n, minutes=60 * n))
            archive.add(tmp_path / name, name)
    record = converted(tmp_path / "day.tar")
    np.testing.assert_allclose(record.read([0, 1, 2]), np.stack([FIELD + n for n in range(3)]) / 32, rtol=1e-6)
    converted(tmp_path / names[0], "--per", "file", "--overwrite")
    assert (tmp_path / "archive" / names[0].replace(".dat.gz", ".nc")).is_file()


def test_a_field_is_chosen_by_its_units_code_or_title(tmp_path):
    path = write_nimrod(tmp_path / "a.dat", nimrod_field(FIELD, units="K", code=58, title="Temperature"), nimrod_field(FIELD))
    for options in ((), ("--variable", "213"), ("--variable", "Rainfall rate Composite")):
        record = converted(path, *options, "--overwrite")
        np.testing.assert_allclose(record.read([0])[0], FIELD / 32, rtol=1e-6)
    for options, says in (
        (("--variable", "58"), 'has units "K", which is no measure of rain'),
        (("--variable", "9"), 'has no field 9.\nExpected one of those in the file: 58 "Temperature", 213 "Rainfall rate Comp'),
    ):
        code, _, err = command("convert", str(path), *options, "--output", str(tmp_path / "other"))
        assert (code, says in err) == (3, True), err


def test_units_of_a_file_without_any(tmp_path):
    path = write_nimrod(tmp_path / "a.dat", nimrod_field(FIELD, units=""))
    code, _, err = command("convert", str(path), "--output", str(tmp_path / "out"))
    assert (code, "states no units.\nExpected --units with" in err) == (3, True), err
    np.testing.assert_allclose(converted(path, "--units", "0.1 mm/h").read([0])[0], FIELD / 10, rtol=1e-6)


REFUSED = {
    "cut off": (lambda data: data[:-5], "is cut off or damaged after byte 516.\nExpected 336 bytes of values."),
    "a piece more": (lambda data: data + b"\0\0", "is cut off or damaged at byte 864.\nExpected the header of a Nimrod field."),
    "corner": (nimrod_field(FIELD, corner=1), "starts in corner 1.\nExpected 0: rows from north to south."),
    "map": (nimrod_field(FIELD, map=3), "is on a map of type 3.\nExpected 0, 1 or 4, with an origin and a scale."),
    "origin": (nimrod_field(FIELD, map=4, scale=-32767.0), "is on a map of type 4.\nExpected 0, 1 or 4, with an origin"),
    "cells": (nimrod_field(FIELD, step=0.0), "has cells of 0 × 0.\nExpected lengths above 0."),
    "units": (nimrod_field(FIELD, units="mm/h*0"), 'has units "mm/h*0", which is no measure of rain.'),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_faults_are_told(tmp_path, fault):
    made, says = REFUSED[fault]
    data = made(nimrod_field(FIELD)) if callable(made) else made
    path = write_nimrod(tmp_path / "a.dat", data)
    code, _, err = command("convert", str(path), "--output", str(tmp_path / "out"))
    assert (code, says in err) == (3, True), err


def test_values_of_an_unknown_type_and_times_are_told(tmp_path):
    for position, stored_bytes, says in (
        (4 + 22, b"\0\7", "has values of type 7 in 2 bytes.\nExpected numbers of 1, 2 or 4 bytes."),
        (4 + 10, b"\0\x3c", "has the time [2020, 6, 1, 0, 0, 60].\nExpected year, month, day, hour, minute, second."),
        (4 + 2, b"\0\x0d", "has the time [2020, 13, 1, 0, 0, 0].\nExpected year, month, day, hour, minute, second."),
        (4, b"\0\0", "has no valid time.\nExpected the year, month, day and time of each field."),
    ):
        data = bytearray(nimrod_field(FIELD))
        data[position : position + 2] = stored_bytes
        path = write_nimrod(tmp_path / "a.dat", bytes(data))
        code, _, err = command("convert", str(path), "--output", str(tmp_path / "out"))
        assert (code, says in err) == (3, True), err
