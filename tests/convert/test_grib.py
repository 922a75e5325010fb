"""GRIB: what counts as observed, and where the cells of maps are, by ecCodes' own places."""

import errno
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from makers import command, expect
from makers.originals import START, converted, counts, grib_message, stored

from nowcast.convert.formats.grib import reader
from nowcast.convert.original import ECCODES, Options
from nowcast.convert.sniffing import format_of
from nowcast.errors import DataError
from nowcast.netcdf.opening import open_records

pytest.importorskip("pyproj")
pytest.importorskip("eccodes")
pytestmark = pytest.mark.usefixtures("cache")
FIELD = np.round(counts(shape=(20, 30)) / 100, 2)
SUM = {"productDefinitionTemplateNumber": 8, "parameterCategory": 1, "parameterNumber": 8}
PROCESS, DATA = "typeOfGeneratingProcess", "typeOfProcessedData"


def message(**keys):
    return grib_message(FIELD, mrms=False, west=5.0, decimal=2, **keys)


def edition1(**keys):
    """A sum in edition 1, which says nothing of the process."""
    eccodes = ECCODES.load("GRIB")
    handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib1")
    eccodes.codes_set(handle, "shortName", "tp")
    for name, value in ({"dataDate": 20200601, "dataTime": 0, "indicatorOfUnitOfTimeRange": 1} | keys).items():
        eccodes.codes_set(handle, name, value)
    eccodes.codes_set_values(handle, np.zeros(eccodes.codes_get(handle, "numberOfDataPoints")))
    data = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return data


# of keys what is observed (None) and what is a forecast (minutes ahead)
CASES = {
    "an observation of MRMS": (lambda: grib_message(FIELD, **{PROCESS: 8, DATA: 7}), None),
    "an analysis": (lambda: message(**{PROCESS: 0, DATA: 0}), None),
    "an analysis that does not say so": (lambda: message(**{PROCESS: 255, DATA: 255}), None),
    "a field an hour after its reference time": (lambda: message(stepRange="1", **{PROCESS: 0}), 60),
    "a forecast": (lambda: message(stepRange="6", **{PROCESS: 2, DATA: 1}), 360),
    "the start of a forecast": (lambda: message(**{PROCESS: 2, DATA: 1}), 0),
    "an ensemble's forecast": (lambda: message(stepRange="2", **{PROCESS: 4, DATA: 4}), 120),
    "a nowcast's first field": (lambda: message(**{PROCESS: 14, DATA: 7}), None),
    "a nowcast": (lambda: message(stepUnits="m", stepRange="15", **{PROCESS: 14, DATA: 7}), 15),
    "an analysed sum of an hour": (lambda: message(**SUM, stepRange="0-1", **{PROCESS: 0, DATA: 0}), None),
    "an observed sum of a radar": (lambda: message(**SUM, stepRange="0-1", **{PROCESS: 8, DATA: 7}), None),
    "a sum that ends at its reference time": (
        lambda: message(**SUM, forecastTime=-1, lengthOfTimeRange=1, **{PROCESS: 8}),
        None,
    ),
    "a forecast sum": (lambda: message(**SUM, stepRange="0-1", **{PROCESS: 2, DATA: 1}), 60),
    "a later forecast sum": (lambda: message(**SUM, stepRange="3-6", **{PROCESS: 255, DATA: 255}), 360),
    "a sum called forecast by its data alone": (lambda: message(**SUM, stepRange="0-1", **{PROCESS: 255, DATA: 1}), 60),
    "a sum of an hour in edition 1": (lambda: edition1(timeRangeIndicator=4, P1=0, P2=1), None),
    "a later sum in edition 1": (lambda: edition1(timeRangeIndicator=4, P1=6, P2=9), 540),
    "a rate ahead in edition 1": (lambda: edition1(shortName="prate", timeRangeIndicator=0, P1=3), 180),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_observed_and_what_is_a_forecast(tmp_path, name):
    make, expected = CASES[name]
    (tmp_path / "a.grib").write_bytes(make())
    (original,) = reader.scan(tmp_path / "a.grib", Options(units="mm/h" if "rate" in name else None))
    assert original.forecast == expected


def test_sums_keep_their_interval_and_end(tmp_path):
    for name in ("an analysed sum of an hour", "a sum that ends at its reference time", "a sum of an hour in edition 1"):
        (tmp_path / "a.grib").write_bytes(CASES[name][0]())
        (original,) = reader.scan(tmp_path / "a.grib", Options())
        end = START if "reference" in name else START + np.timedelta64(60, "m")
        assert (original.time, original.series.interval, original.span) == (end, 60, (end - np.timedelta64(60, "m"), end))


@pytest.mark.parametrize(
    ("unit", "period", "minutes"), [(0, 5, 5), (13, 1, 15), (13, 5, 75), (14, 1, 30), (254, 90, 1.5), (10, 2, 360)]
)
def test_sums_of_edition_1_in_any_unit_of_time(tmp_path, unit, period, minutes):
    keys = {"indicatorOfUnitOfTimeRange": unit, "timeRangeIndicator": 4, "P1": 0, "P2": period}
    (tmp_path / "a.grib").write_bytes(edition1(**keys))
    (original,) = reader.scan(tmp_path / "a.grib", Options())
    end = START + np.timedelta64(round(60 * minutes), "s")
    assert (original.series.interval, original.time, original.span, original.forecast) == (minutes, end, (START, end), None)


@pytest.mark.parametrize(
    ("indicator", "first", "last", "steps"), [(2, 5, 20, (5, 20)), (6, 20, 5, (-20, -5)), (7, 5, 10, (-5, 10))]
)
def test_sums_of_edition_1_from_and_to_any_time(tmp_path, indicator, first, last, steps):
    keys = {"indicatorOfUnitOfTimeRange": 0, "timeRangeIndicator": indicator, "P1": first, "P2": last}
    (tmp_path / "a.grib").write_bytes(edition1(**keys))
    (original,) = reader.scan(tmp_path / "a.grib", Options())
    assert original.span == tuple(START + np.timedelta64(step, "m") for step in steps)


@pytest.mark.parametrize(("second", "step", "seconds"), [(0, 90, 90), (30, 300, 330), (30, 330, 360)])
def test_sums_of_edition_2_end_at_a_second(tmp_path, second, step, seconds):
    end = (START + np.timedelta64(seconds, "s")).item()
    keys = {"second": second, "stepUnits": "s", "stepRange": f"0-{step}", PROCESS: 8}
    keys |= {"minuteOfEndOfOverallTimeInterval": end.minute, "secondOfEndOfOverallTimeInterval": end.second}
    (tmp_path / "a.grib2").write_bytes(message(**SUM, **keys))
    (original,) = reader.scan(tmp_path / "a.grib2", Options())
    assert (original.time, original.series.interval) == (START + np.timedelta64(seconds, "s"), step / 60)


@pytest.mark.parametrize("increment", [1, 2])
@pytest.mark.parametrize(("hour", "end"), [(1, 60), (0, 0), (3, None), (23, None)])
def test_the_stated_end_of_an_interval_agrees_with_its_length(tmp_path, caplog, increment, hour, end):
    """With increment 1, as of observations, ecCodes has no step: such sums ended at their start."""
    keys = {"stepRange": "0-1", PROCESS: 8, "hourOfEndOfOverallTimeInterval": hour, "typeOfTimeIncrement": increment}
    (tmp_path / "a.grib2").write_bytes(message(**SUM, **keys))
    if end is None:
        says = f"60 minutes from 2020-06-01T00:00:00, which is said to end at 2020-06-01T{hour:02d}:00:00"
        with pytest.raises(DataError, match=says):
            reader.scan(tmp_path / "a.grib2", Options())
        return
    (original,) = reader.scan(tmp_path / "a.grib2", Options())
    end = START + np.timedelta64(end, "m")
    assert (original.time, original.series.interval, original.span) == (end, 60, (end - np.timedelta64(60, "m"), end))
    assert ("ends where it is said to start" in caplog.text) == (hour == 0)


def test_totals_since_one_time_are_a_model_run(tmp_path):
    """A run of a model in edition 1: totals of one, two and three hours, of which nothing says that they are forecasts."""
    (tmp_path / "a.grib").write_bytes(b"".join(edition1(timeRangeIndicator=4, P1=0, P2=end) for end in (1, 2, 3)))
    assert [each.forecast for each in reader.scan(tmp_path / "a.grib", Options())] == [60, 120, 180]


def test_a_file_of_a_run_and_its_analysis_gives_the_analysis(tmp_path):
    rate = {"parameterNumber": 7}
    analysis = message(**{PROCESS: 0, DATA: 0}, **rate)
    ahead = [message(stepRange=str(step), **{PROCESS: 2, DATA: 1}, **rate) for step in (1, 2)]
    (tmp_path / "a.grib").write_bytes(analysis + b"".join(ahead))
    code, out, err = command("convert", tmp_path / "a.grib", "--output", tmp_path / "out")
    assert (code, "left out: 2 fields of 1 file are forecasts, the first 60 minutes ahead" in err) == (0, True)
    (record,) = open_records(out.split())
    assert record.times == [START]
    np.testing.assert_allclose(record.read([0])[0], FIELD * 3600, rtol=1e-5)


LAMBERT = {"gridType": "lambert", "latitudeOfFirstGridPointInDegrees": 21.138, "longitudeOfFirstGridPointInDegrees": 237.28,
           "LaDInDegrees": 25.0, "LoVInDegrees": 265.0, "Latin1InDegrees": 25.0, "Latin2InDegrees": 25.0}  # fmt: skip
POLAR = {"gridType": "polar_stereographic", "latitudeOfFirstGridPointInDegrees": 23.117, "LaDInDegrees": 60.0,
         "longitudeOfFirstGridPointInDegrees": 240.977, "orientationOfTheGridInDegrees": 255.0}  # fmt: skip
MAPS = {
    "HRRR's Lambert map": LAMBERT,
    "a Lambert map of two parallels": LAMBERT | {"Latin1InDegrees": 30.0, "Latin2InDegrees": 60.0, "LaDInDegrees": 40.0},
    "Stage IV's polar stereographic map": POLAR,
    "a map of the south": POLAR
    | {"projectionCentreFlag": 128, "latitudeOfFirstGridPointInDegrees": -60.0, "LaDInDegrees": -60.0},
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_lie_where_eccodes_has_them(tmp_path, name):
    eccodes = ECCODES.load("GRIB")
    handle = eccodes.codes_grib_new_from_samples("GRIB2")
    keys = MAPS[name] | {
        "Nx": 30,
        "Ny": 20,
        "shapeOfTheEarth": 6,
        "DxInMetres": 4763,
        "DyInMetres": 4763,
        "jScansPositively": 1,
    }
    for key, value in (keys | {"shortName": "prate"}).items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, (FIELD / 3600).ravel())
    (tmp_path / "a.grib2").write_bytes(eccodes.codes_get_message(handle))
    expected = [eccodes.codes_get_array(handle, key).reshape(20, 30) for key in ("longitudes", "latitudes")]
    eccodes.codes_release(handle)
    (original,) = reader.scan(tmp_path / "a.grib2", Options())
    longitude, latitude = original.series.place.degrees()
    np.testing.assert_allclose((longitude - expected[0] + 180) % 360 - 180, 0, atol=1e-6)
    np.testing.assert_allclose(latitude, expected[1], atol=1e-6)
    (field,) = reader.read(tmp_path / "a.grib2", [0], Options())
    np.testing.assert_allclose(original.series.storage.unpacked(field), FIELD, atol=2e-6)


@pytest.mark.parametrize("pole", [90, -90])
@pytest.mark.parametrize("earth", [{"R": 6367470}, {"a": 6378160, "b": 6356775}])
def test_polar_maps_of_edition_1_on_both_earths_and_at_both_poles(tmp_path, pole, earth):
    """In edition 1 ecCodes gives the radius of the sphere also for the ellipsoid, and 60 degrees north also for the south."""
    pyproj, eccodes = pytest.importorskip("pyproj"), ECCODES.load("GRIB")
    handle = eccodes.codes_grib_new_from_samples("polar_stereographic_sfc_grib1")
    keys = {"Nx": 30, "Ny": 20, "earthIsOblate": int("a" in earth), "projectionCentreFlag": 128 * (pole < 0)}
    keys |= {"latitudeOfFirstGridPointInDegrees": pole / 2, "longitudeOfFirstGridPointInDegrees": 5.0}
    keys |= {"orientationOfTheGridInDegrees": 20.0, "DxInMetres": 4000, "DyInMetres": 4000, "jScansPositively": 1}
    for key, value in (keys | {"shortName": "prate"}).items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, (FIELD / 3600).ravel())
    (tmp_path / "a.grib").write_bytes(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    (original,) = reader.scan(tmp_path / "a.grib", Options())
    grid = original.series.place.grid()
    as_written = pyproj.Proj(pyproj.CRS.from_cf(grid.mapping_attributes))
    on_map = pyproj.Proj({"proj": "stere", "lat_0": pole, "lat_ts": 60 * np.sign(pole), "lon_0": 20.0, **earth})
    x, y = on_map(5.0, pole / 2)
    expected = on_map(x + 4000 * 29, y + 4000 * 19, inverse=True)
    np.testing.assert_allclose(as_written(grid.x[-1], grid.y[-1], inverse=True), expected, atol=1e-6)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_mrms_counts_and_western_longitudes(tmp_path, pack):
    pytest.importorskip("eccodes")
    field = counts(shape=(20, 30)) / 10
    field[0, :3] = -3
    path = tmp_path / "PrecipRate.grib2"
    path.write_bytes(pack(grib_message(field, minutes=2)))
    assert format_of(path) == "mrms"
    record = converted(path)
    np.testing.assert_array_equal(record.read([0])[0], np.where(field < 0, np.nan, field).astype(np.float32))
    assert stored(record)[0].dtype == np.int32
    assert stored(record)[1]["scale_factor"] == 0.1
    assert record.times == [START + np.timedelta64(2, "m")]
    np.testing.assert_allclose([record.grid.x[0], record.grid.y[0], record.grid.y[1]], [-129.995, 54.995, 54.985])


def test_a_grib_file_of_many_messages_gives_its_rates(tmp_path):
    pytest.importorskip("eccodes")
    field = counts(shape=(20, 30)) / 3600
    options = {"mrms": False, "decimal": 7, "west": 5.0}
    messages = [grib_message(field * n, minutes=10 * n, **options) for n in (1, 2)]
    other = grib_message(field + 280, **options | {"shortName": "2t", "mrms": False})
    (tmp_path / "a.grb").write_bytes(messages[0] + other + messages[1])
    record = converted(tmp_path / "a.grb")
    np.testing.assert_allclose(record.read([0, 1])[1], field * 2 * 3600, atol=2e-3)
    assert np.diff(record.times).astype(int) == [600]


@pytest.mark.parametrize(("number", "minutes"), [(2, 60), (45, 15)])
def test_mrms_sums_are_divided_by_the_interval_in_their_name(tmp_path, number, minutes):
    pytest.importorskip("eccodes")
    field = counts(shape=(20, 30)) / 10
    field[0, :3], field[1, :3] = -3, -1
    path = tmp_path / "QPE.grib2"
    path.write_bytes(grib_message(field, parameterNumber=number))
    record = converted(path)
    expected = np.where(field < 0, np.nan, field * 60 / minutes)
    np.testing.assert_allclose(record.read([0])[0], expected, rtol=1e-6)
    assert f"over {minutes} minutes" in stored(record)[1]["cell_methods"]


def test_mrms_reflectivity_has_numbers_for_no_echo_and_no_coverage(tmp_path):
    pytest.importorskip("eccodes")
    field = counts(shape=(20, 30)) / 4
    field[0, :3], field[1, :3] = -999, -99
    path = tmp_path / "Composite.grib2"
    path.write_bytes(grib_message(field, parameterCategory=10, parameterNumber=0, decimal=2))
    rates = converted(path, "--variable", "209/10/0", "--units", "dBZ").read([0])[0]
    assert np.isnan(rates[0, :3]).all()
    assert (rates[1, :3] == 0).all()
    np.testing.assert_allclose(rates[2:], (10 ** (field[2:] / 10) / 200) ** (1 / 1.6), rtol=1e-5)


def test_grib_sums_say_their_interval_in_any_unit_of_time(tmp_path):
    pytest.importorskip("eccodes")
    field = np.round(counts(shape=(20, 30)) / 100, 2)
    keys = {"productDefinitionTemplateNumber": 8, "parameterCategory": 1, "parameterNumber": 8, "decimal": 2}
    keys |= {"stepUnits": "m", "stepRange": "0-15"}
    path = tmp_path / "tp.grib2"
    path.write_bytes(grib_message(field, mrms=False, west=5.0, **keys))
    record = converted(path)
    np.testing.assert_allclose(record.read([0])[0], field * 4, rtol=1e-5, atol=1e-6)
    assert record.times == [START + np.timedelta64(15, "m")]


@pytest.mark.parametrize("number", [7, 52, 65])
def test_accumulated_rates_are_sums(tmp_path, number):
    """In edition 2, ecCodes writes total precipitation as an accumulated rate (0, 1, 52), in kg m-2."""
    keys = SUM | {"parameterNumber": number, "typeOfStatisticalProcessing": 1, "stepUnits": "m", "stepRange": "0-15"}
    (tmp_path / "a.grib2").write_bytes(message(**keys))
    (original,) = reader.scan(tmp_path / "a.grib2", Options())
    assert original.series.interval == 15
    (field,) = reader.read(tmp_path / "a.grib2", [0], Options())
    np.testing.assert_allclose(original.series.storage.unpacked(field), FIELD * 4, atol=1e-5)


@pytest.mark.parametrize(("process", "is_read"), [(0, True), (2, False), (3, False), (6, False)])
def test_of_rates_over_an_interval_the_mean_is_read(tmp_path, process, is_read):
    (tmp_path / "a.grib2").write_bytes(message(**SUM | {"parameterNumber": 52, "typeOfStatisticalProcessing": process}))
    if is_read:
        assert reader.scan(tmp_path / "a.grib2", Options())[0].series.product == "tprate"
        return
    with pytest.raises(DataError, match="no known precipitation"):
        reader.scan(tmp_path / "a.grib2", Options())


def test_the_step_of_logarithms_is_none_of_rates(tmp_path):
    """With 24 bits the reference value is a whole number of steps; rates were rounded to 0.0017 mm/h."""
    eccodes = ECCODES.load("GRIB")
    rates = np.geomspace(0.001, 1, 600) / 3600
    handle = eccodes.codes_new_from_message(message())
    eccodes.codes_set_values(handle, rates)
    for key, value in (("packingType", "grid_simple_log_preprocessing"), ("decimalScaleFactor", 0), ("bitsPerValue", 24)):
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, rates)
    expected = eccodes.codes_get_values(handle).reshape(20, 30) * 3600
    (tmp_path / "a.grib2").write_bytes(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    (original,) = reader.scan(tmp_path / "a.grib2", Options())
    (field,) = reader.read(tmp_path / "a.grib2", [0], Options())
    np.testing.assert_allclose(original.series.storage.unpacked(field), expected, rtol=1e-6)


def test_the_rest_of_a_message_of_several_fields_is_not_read_from_the_next_file(tmp_path):
    pytest.importorskip("eccodes")
    several, one = tmp_path / "a.grib2", tmp_path / "b.grib2"
    several.write_bytes(joined(grib_message(np.full((20, 30), 1.0)), grib_message(np.full((20, 30), 2.0), minutes=2)))
    one.write_bytes(grib_message(np.full((20, 30), 3.0), minutes=4))
    assert len(reader.scan(several, Options())) == 2
    for path, expected in ((several, 1.0), (one, 3.0)):
        (field,) = reader.read(path, [0], Options())
        np.testing.assert_allclose(field, expected)


def test_a_full_temporary_folder_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "a.grib2.gz").write_bytes(gzip.compress(grib_message(np.ones((20, 30)))))
    monkeypatch.setattr(Path, "write_bytes", full)
    says = r"grib2\.gz cannot be written: No space left on device\.\nIs the disk full \(free: .*\), or the folder read-only\?"
    expect(5, "convert", tmp_path / "a.grib2.gz", "--output", tmp_path / "out", says=says)


def joined(first, second):
    """One GRIB message of the fields of two: sections 4 to 7 of the second follow those of the first."""
    position = 16
    while second[position + 4] != 4:
        position += int.from_bytes(second[position : position + 4], "big")
    data = first[:-4] + second[position:]
    return data[:8] + len(data).to_bytes(8, "big") + data[16:]
