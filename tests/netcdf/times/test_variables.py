"""Which time is which: by standard name, then by name; a time of reference is never taken for a valid time."""

import netCDF4
import numpy as np
import pytest

from nowcast.errors import DataError
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.opening import open_records

START = np.datetime64("2020-06-01T12:00:00")
SINCE = "minutes since 2020-06-01 12:00:00"
STARTS = [0, 20]  # minutes after START
LEADS = [5, 10, 15]


def write(path, dims, times, *, text=(), name="rain", coordinates=None):
    """Write rain over the dimensions {name: size}, y and x, with times {name: (dims, values, units, attributes)}.

    The rain of each field is its number, counted over the dimensions. `text` are times as characters: {name: (dims, texts)}.
    """
    with netCDF4.Dataset(path, "w") as file:
        for dim, size in {**dims, "y": 3, "x": 4}.items():
            file.createDimension(dim, size)
        for dim, step in (("y", -1000.0), ("x", 1000.0)):
            coordinate = file.createVariable(dim, "f8", (dim,))
            coordinate.setncatts({"standard_name": f"projection_{dim}_coordinate", "units": "m"})
            coordinate[:] = step * np.arange(len(file.dimensions[dim]))
        for time, (over, values, units, attributes) in times.items():
            variable = file.createVariable(time, "f8", over)
            variable.setncatts({"units": units} | attributes)
            variable[...] = values
        for time, (over, texts) in dict(text).items():
            file.createDimension("length", 19)
            file.createVariable(time, "S1", (*over, "length"))[:] = netCDF4.stringtochar(np.array(texts, "S19"))
        rain = file.createVariable(name, "f4", (*dims, "y", "x"))
        rain.setncatts({"units": "mm h-1", "standard_name": "rainfall_rate"})
        if coordinates:
            rain.coordinates = coordinates
        number = np.arange(np.prod(list(dims.values()), dtype=int)).reshape(*dims.values(), 1, 1)
        rain[...] = np.broadcast_to(number, rain.shape)
    return path


def std(name):
    return {"standard_name": name}


def valid_2d():
    return np.add.outer(STARTS, LEADS)


BY_LEAD = {"lead": 3}
BOTH = {"start": 2, "lead": 3}
FORECASTS = {
    "init_time and lead_time, without standard names (dynamical.org)": (
        {"init_time": 2, "lead_time": 3},
        {"init_time": (("init_time",), STARTS, SINCE, {}), "lead_time": (("lead_time",), LEADS, "minutes", {})},
    ),
    "reference_time and leadtime": (
        {"reference_time": 2, "leadtime": 3},
        {"reference_time": (("reference_time",), STARTS, SINCE, {}), "leadtime": (("leadtime",), LEADS, "minutes", {})},
    ),
    "time and prediction_timedelta (WeatherBench)": (
        {"time": 2, "prediction_timedelta": 3},
        {
            "time": (("time",), STARTS, SINCE, {}),
            "prediction_timedelta": (("prediction_timedelta",), np.array(LEADS) / 60, "hours", {}),
        },
    ),
    "a forecast_time that does not extend over the lead times": (
        {"forecast_time": 2, "lead": 3},
        {"forecast_time": (("forecast_time",), STARTS, SINCE, {}), "lead": (("lead",), LEADS, "minutes", {})},
    ),
    "time, step and valid_time (cfgrib), without standard names": (
        {"time": 2, "step": 3},
        {
            "time": (("time",), STARTS, SINCE, {}),
            "step": (("step",), LEADS, "minutes", {}),
            "valid_time": (("time", "step"), valid_2d(), SINCE, {}),
        },
    ),
    "time and valid_time, without lead times": (
        {"time": 2, "member_of_time": 3},
        {
            "time": (("time",), STARTS, SINCE, {}),
            "valid_time": (("time", "member_of_time"), valid_2d(), SINCE, {}),
        },
    ),
    "standard names against names": (
        BOTH,
        {
            "valid_time": (("start",), STARTS, SINCE, std("forecast_reference_time")),
            "init_time": (("start", "lead"), valid_2d(), SINCE, std("time")),
        },
    ),
    "a valid_time of the first start alone": (
        {"time": 2, "step": 3},
        {
            "time": (("time",), STARTS, SINCE, std("forecast_reference_time")),
            "step": (("step",), LEADS, "minutes", std("forecast_period")),
            "valid_time": (("step",), LEADS, SINCE, std("time")),
        },
    ),
    "the start by its long name": (
        BOTH,
        {
            "time": (("start",), STARTS, SINCE, {"long_name": "Initial time of forecast"}),
            "lead": (("lead",), LEADS, "minutes", std("forecast_period")),
        },
    ),
}


@pytest.mark.parametrize("kind", FORECASTS)
def test_a_forecast_starts_when_it_starts(tmp_path, kind):
    dims, times = FORECASTS[kind]
    found = read_forecast(write(tmp_path / "f.nc", dims, times))
    assert found.reference_times.tolist() == [(START + np.timedelta64(start, "m")).item() for start in STARTS]
    assert (found.lead_times / np.timedelta64(60, "s")).tolist() == LEADS
    for case in (0, 1):
        assert found.read(case)[:, 0, 0].tolist() == [3 * case, 3 * case + 1, 3 * case + 2]


@pytest.mark.parametrize(
    ("start", "lead"),
    [
        ("init_time", "lead_time"),
        ("base_time", "forecast_period"),
        ("analysis_time", "step"),
        ("forecast_reference_time", "step"),
    ],
)
def test_one_start_beside_lead_times_gives_the_valid_times(tmp_path, start, lead):
    times = {start: ((), 20, SINCE, {}), lead: (("lead",), LEADS, "minutes", {})}
    found = read_forecast(write(tmp_path / "f.nc", BY_LEAD, times))
    assert found.reference_times == [START + np.timedelta64(20, "m")]
    assert (found.lead_times / np.timedelta64(60, "s")).tolist() == LEADS


def test_times_that_contradict_each_other_are_refused(tmp_path):
    times = {
        "forecast_reference_time": ((), 0, SINCE, {}),
        "lead_time": (("lead",), LEADS, "minutes", {}),
        "time": (("lead",), np.array(LEADS) + 60, SINCE, {}),
    }
    message = r"f.nc: time is up to 60 min from forecast_reference_time plus lead_time\.\nExpected valid times that are"
    with pytest.raises(DataError, match=message):
        read_forecast(write(tmp_path / "f.nc", BY_LEAD, times))


def test_times_before_the_start_are_refused(tmp_path):
    times = {"init_time": ((), 10, SINCE, {}), "valid_time": (("lead",), LEADS, SINCE, {})}
    message = r"f.nc: valid_time has times before the start of the forecast, init_time\.\nExpected lead times of 0"
    with pytest.raises(DataError, match=message):
        read_forecast(write(tmp_path / "f.nc", BY_LEAD, times))


RECORDS = {
    "time beside a scalar valid_time": (
        {"time": (("time",), LEADS, SINCE, {}), "valid_time": ((), 5, SINCE, std("time"))},
        LEADS,
    ),
    "a start, steps of 0 and a scalar valid_time (xarray's concat with few coordinates)": (
        {
            "time": (("time",), LEADS, SINCE, std("forecast_reference_time")),
            "step": ((), 0, "days", std("forecast_period")),
            "valid_time": ((), 5, SINCE, std("time")),
        },
        LEADS,
    ),
    "valid_time before the time of the start": (
        {"time": (("time",), [0, 0, 0], SINCE, {}), "valid_time": (("time",), LEADS, SINCE, {})},
        LEADS,
    ),
    "starts and lead times": (
        {"init_time": (("time",), [0, 5, 10], SINCE, {}), "lead_time": ((), 5, "minutes", {})},
        LEADS,
    ),
    "a coordinate of another name": ({"Zeit": (("time",), LEADS, SINCE, {})}, LEADS),
    "an interval's ends beside the time": (
        {
            "start_time": (("time",), [0, 5, 10], SINCE, {}),
            "stop_time": (("time",), LEADS, SINCE, {}),
            "time": (("time",), LEADS, SINCE, {}),
        },
        LEADS,
    ),
    "a reference time beside the time": (
        {"reference_time": ((), 0, SINCE, {}), "time": (("time",), LEADS, SINCE, {})},
        LEADS,
    ),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_has_the_valid_times(tmp_path, kind):
    times, minutes = RECORDS[kind]
    coordinates = "Zeit" if "Zeit" in times else None
    (record,) = open_records([write(tmp_path / "a.nc", {"time": 3}, times, coordinates=coordinates)])
    assert record.times.tolist() == [(START + np.timedelta64(minute, "m")).item() for minute in minutes]
    assert record.read(range(3))[:, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("units", [SINCE, "minutes since simulation start"])
@pytest.mark.parametrize("with_text", [True, False])
def test_times_and_xtime_of_wrf(tmp_path, units, with_text):
    text = {"Times": (("Time",), [f"2020-06-01_12:{minute:02}:00" for minute in LEADS])} if with_text else {}
    times = {"XTIME": (("Time",), LEADS, units, {"description": "minutes since start"})}
    path = write(tmp_path / "wrfout.nc", {"Time": 3}, times, text=text, coordinates="XLONG XLAT XTIME")
    if not with_text and units != SINCE:
        with pytest.raises(DataError, match=r"wrfout.nc: XTIME has units"):
            open_records([path])
        return
    (record,) = open_records([path])
    assert record.times.tolist() == [(START + np.timedelta64(minute, "m")).item() for minute in LEADS]


@pytest.mark.parametrize(("name", "attributes"), [("init_time", {}), ("time", std("forecast_reference_time"))])
def test_a_start_alone_is_no_time_of_a_frame(tmp_path, name, attributes):
    path = write(tmp_path / "a.nc", {"time": 3}, {name: (("time",), LEADS, SINCE, attributes)})
    message = rf"a.nc: rain has no times but those of the start of a forecast \({name}\)\.\nExpected a time coordinate"
    with pytest.raises(DataError, match=message):
        open_records([path])


@pytest.mark.parametrize("form", ["%Y%m%d%H%M", "%Y%m%d%H%M%S", "%Y/%m/%d %H:%M", "%Y-%m-%dT%H:%M:%SZ"])
def test_texts_of_times_may_be_digits_or_have_slashes(tmp_path, form):
    path = write(tmp_path / "a.nc", {"time": 2}, {})
    moments = [START, START + np.timedelta64(300, "s")]
    with netCDF4.Dataset(path, "a") as file:
        texts = file.createVariable("time", str, ("time",))
        for number, moment in enumerate(moments):
            texts[number] = moment.item().strftime(form)
    (record,) = open_records([path])
    assert record.times.tolist() == [moment.item() for moment in moments]


def test_the_only_variable_that_counts_from_a_date_holds_the_times(tmp_path):
    times = {"when_seen": (("obs",), [0, 5, 10], SINCE, {"axis": "T"})}
    (record,) = open_records([write(tmp_path / "a.nc", {"obs": 3}, times)])
    assert record.times.tolist() == [(START + np.timedelta64(minutes, "m")).item() for minutes in (0, 5, 10)]
    for name, others in (("created", {}), ("seen", {"received": (("obs",), [1, 2, 3], SINCE, {})})):
        path = write(tmp_path / f"{name}.nc", {"obs": 3}, {name: (("obs",), [0, 5, 10], SINCE, {})} | others)
        if others:
            assert len(open_records([path])[0]) == 3
        else:
            with pytest.raises(DataError, match="rain has no times"):
                open_records([path])


def test_lead_times_without_a_unit_are_named(tmp_path):
    times = {"lead_time": (("lead_time",), LEADS, "1", {}), "forecast_reference_time": ((), 0, SINCE, {})}
    path = write(tmp_path / "f.nc", {"lead_time": 3}, times)
    with pytest.raises(DataError, match=r'lead_time has the units "1" in place of those of a time\.\nExpected units such'):
        read_forecast(path)


def test_a_dimension_of_no_lead_times_is_named(tmp_path):
    times = {"time": (("time",), [], SINCE, std("time")), "forecast_reference_time": ((), 0, SINCE, {})}
    with pytest.raises(DataError, match="has no forecasts: a dimension of its times is 0 long"):
        read_forecast(write(tmp_path / "f.nc", {"time": 0}, times))


@pytest.mark.parametrize("units", ["minutes", SINCE])
def test_times_of_arm_are_offsets_from_a_base_time(tmp_path, units, caplog):
    times = {"base_time": ((), 0, SINCE, {}), "time_offset": (("time",), [5, 10, 15], units, {})}
    (record,) = open_records([write(tmp_path / "a.nc", {"time": 3}, times)])
    np.testing.assert_array_equal(record.times, START + np.array([5, 10, 15]) * np.timedelta64(60, "s"))
    assert not caplog.messages


def test_a_frame_with_start_and_end_alone_has_the_time_of_its_end(tmp_path):
    times = {"start_time": (("time",), [0, 5, 10], SINCE, {}), "end_time": (("time",), [5, 10, 15], SINCE, {})}
    (record,) = open_records([write(tmp_path / "a.nc", {"time": 3}, times)])
    np.testing.assert_array_equal(record.times, START + np.array([5, 10, 15]) * np.timedelta64(60, "s"))
    del times["end_time"]
    with pytest.raises(DataError, match=r"b.nc: rain has no times but those of the start of an interval \(start_time\)\.\nExp"):
        open_records([write(tmp_path / "b.nc", {"time": 3}, times)])


def test_of_two_valid_times_that_with_the_standard_name_is_taken(tmp_path):
    times = {"valid_time": (("frame",), [70, 80, 90], SINCE, {}), "a": (("frame",), LEADS, SINCE, std("time"))}
    (record,) = open_records([write(tmp_path / "a.nc", {"frame": 3}, times)])
    np.testing.assert_array_equal(record.times, START + np.array(LEADS, "timedelta64[m]"))


def test_a_dimension_named_for_lead_times_may_hold_times(tmp_path):
    times = {"lead_time": (("lead_time",), LEADS, SINCE, std("time")), "forecast_reference_time": ((), 0, SINCE, {})}
    found = read_forecast(write(tmp_path / "f.nc", {"lead_time": 3}, times))
    assert found.reference_times.tolist() == [START.item()]
    assert found.lead_times.tolist() == [np.timedelta64(minutes, "m").item() for minutes in LEADS]


def test_a_valid_time_of_the_first_file_alone_shows_that_time_is_the_start(tmp_path):
    """Forecasts of one lead time each, joined: a scalar of the first stays, which does not hold for the second."""
    times = {"time": (("time",), STARTS, SINCE, {}), "lead_time": ((), 5, "minutes", {}), "valid_time": ((), 5, SINCE, {})}
    found = read_forecast(write(tmp_path / "f.nc", {"time": 2}, times))
    assert found.reference_times.tolist() == [(START + np.timedelta64(minutes, "m")).item() for minutes in STARTS]
    assert found.lead_times.tolist() == [np.timedelta64(5, "m").item()]
