"""Amounts: what they are divided by comes from what a file says, is shown, and is doubted where the file contradicts itself."""

import os

import numpy as np
import pytest
from makers import command, write_record
from makers.stored import edit, open_one, read_one, write

from nowcast.errors import DataError
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.index import FileIndex
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.rain.statements import lengths
from nowcast.runtime import log_lines

AMOUNTS = (np.arange(60, dtype="f4") * 7 % 60 + 1).reshape(5, 3, 4)  # mm, every 5 minutes
STATED = {  # seconds, attributes and, in place of rr, the name of the variable
    "interval": (3600, {"cell_methods": "time: sum (interval: 1 hour)"}),
    "interval in minutes": (3600, {"cell_methods": "time: sum (interval: 60 minutes)"}),
    "interval as ISO 8601": (3600, {"cell_methods": "time: sum (interval: PT1H)"}),
    "over": (3600, {"cell_methods": "time: sum over 60 minutes"}),
    "comment": (3600, {"cell_methods": "time: sum (comment: previous 60 minutes)"}),
    "comment beside the interval": (3600, {"cell_methods": "area: mean time: sum (interval: 5 min comment: of 1 h)"}),
    "accutime": (3600, {"accutime": 60.0}),
    "accutime before the interval": (3600, {"accutime": 60.0, "cell_methods": "time: sum (interval: 5 minutes)"}),
    "steps of GRIB": (3600, {"GRIB_stepRange": "0-1", "GRIB_stepUnits": 1}),
    "steps of GRIB in minutes": (900, {"GRIB_stepRange": "15m-30m"}),
    "a text": (3600, {"long_name": "Radar precipitation accumulation 1-hour"}),
    "a text with a word": (86400, {"long_name": "daily precipitation"}),
    "a text with its frequency": (3600, {"long_name": "60 min rain sum, updated every 5 minutes"}),
    "a text of numbers": (3600, {"accutime": "60"}),
    "an attribute": (3600, {"accumulation_time": "60 min"}),
    "an attribute as ISO 8601": (3600, {"accumulation_period": "PT1H"}),
    "an attribute as a clock": (3600, {"accumulation_interval": "01:00:00"}),
    "another attribute as a clock": (900, {"time_period": "00:15:00"}),
    "an attribute with its unit": (900, {"accumulation_minutes": np.int32(15)}),
    "an attribute with another unit": (3600, {"accumulation_time_seconds": 3600}),
    "wradlib's attribute": (3600, {"intervalseconds": 3600}),
    "an interval": (900, {"interval": "15 minutes"}),
    "an interval beside accutime": (3600, {"interval": "15 minutes", "accutime": 60.0}),
    "an interval with its unit": (900, {"interval_minutes": 15}),
    "a period": (3600, {"period": "PT1H"}),
    "a duration": (3600, {"duration": "01:00"}),
    "an interval beside a text": (3600, {"interval": "5 min", "long_name": "60-minute rain"}),
    "a period beside a name": (3600, {"period": "1 day", "name": "rain_1h"}),
    "a duration beside cell_methods": (3600, {"duration": "24 h", "cell_methods": "time: sum (interval: 1 hour)"}),
    "a number without a unit": (3600, {"accumulation_period": 60.0}),
    "a text without a unit": (3600, {"accumulation_time": "60"}),
    "a number of seconds without a unit": (900, {"integration_time": 900}),
    "a number of hours without a unit": (86400, {"accumulation_period": np.int16(24)}),
    "a number that is the time step": (300, {"accumulation_period": 5}),
    "a number at the end of the name": (3600, {"name": "rain_sum60"}),
    "a name that begins with it": (3600, {"name": "1h_rain"}),
    "within": (3600, {"cell_methods": "area: mean time: sum within 1 hour"}),
    "the previous hour": (3600, {"cell_methods": "time: sum (previous hour)"}),
    "the past hour": (3600, {"long_name": "Rain over the past hour"}),
    "one hour": (3600, {"description": "one hour accumulation"}),
    "a unit in brackets": (900, {"comment": "Accumulation time [min]: 15"}),
    "the name of minutes in full": (900, {"name": "rain_accumulation_15_minutes"}),
    "a word in the name": (3600, {"name": "hourly_rain"}),
    "the name of hours": (3600, {"name": "RadarOnly_QPE_01H"}),
    "the name of minutes": (900, {"name": "rain_15min"}),
    "another name of minutes": (900, {"name": "MultiSensor_QPE_15M"}),
}
UNSTATED = {
    "nothing": {},
    "a plain sum": {"cell_methods": "time: sum"},
    "how often": {"long_name": "rain amount, every 5 minutes"},
    "two lengths": {"long_name": "sum over 1 h or 24 h"},
    "another name": {"name": "rain_v2"},
    "a number of intervals": {"intervals": 12},
    "a year": {"name": "rain_total_2020"},
}


def amounts(path, **attributes):
    return write(path, AMOUNTS, units="mm", **attributes)


@pytest.mark.parametrize("case", STATED)
def test_an_amount_is_divided_by_what_the_file_says(tmp_path, case, caplog):
    seconds, attributes = STATED[case]
    record = open_one(amounts(tmp_path / "a.nc", **attributes))
    np.testing.assert_allclose(record.read(range(5)), AMOUNTS * 3600 / seconds, rtol=1e-6)
    (reading,) = record.readings
    assert f" as rain rate: mm per {seconds} s -> mm/h (" in reading
    assert "no interval is stated" not in reading


@pytest.mark.parametrize(
    ("attributes", "where"),
    [({"accumulation_period": 12}, "accumulation_period = 12"), ({"duration": "60"}, "duration = 60"),
     ({"accumulation_time": 43.0}, "accumulation_time = 43"), ({"name": "rain_sum2"}, "the name rain_sum2")],
)  # fmt: skip
def test_a_number_of_unknown_unit_is_doubted(tmp_path, attributes, where, caplog):
    record = open_one(amounts(tmp_path / "a.nc", **attributes))
    np.testing.assert_allclose(record.read(range(5)), AMOUNTS * 12, rtol=1e-6)
    said = f"{record.variable} is divided by 300 s, the time step, but {where} has no unit.\nIf the amounts cover other"
    assert said in caplog.text


@pytest.mark.parametrize(
    ("titles", "seconds", "warned"),
    [
        ({"title": "Hourly precipitation accumulation"}, 3600, ""),
        ({"summary": "1-hour totals, updated every 5 minutes"}, 3600, ""),
        ({"title": "5-minute rainfall sums"}, 300, ""),
        ({"title": "Hourly radar data"}, 300, 'but title "Hourly radar data".'),
        ({"title": "Rain amounts, daily files"}, 300, 'but title "Rain amounts, daily files".'),
        ({"title": "24 h forecast of total rain"}, 300, 'but title "24 h forecast of total rain".'),
        ({"title": "Five-minute radar data"}, 300, ""),
    ],
)
def test_a_title_is_read_or_doubted_where_nothing_else_tells(tmp_path, titles, seconds, warned, caplog):
    path = amounts(tmp_path / "a.nc")
    with edit(path) as file:
        file.setncatts(titles)
    np.testing.assert_allclose(read_one(path), AMOUNTS * 3600 / seconds, rtol=1e-6)
    assert warned in caplog.text
    assert bool(caplog.messages) == bool(warned)
    stated = amounts(tmp_path / "b.nc", accutime=15.0)
    with edit(stated) as file:
        file.setncatts(titles)
    np.testing.assert_allclose(read_one(stated), AMOUNTS * 4, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "units", "factor", "said"),
    [("rainfall_rate", "mm", 12, 'an amount, by its units "mm", but its standard name rainfall_rate is that of a rate'),
     ("rainfall_amount", "mm h-1", 1, 'a rate, by its units "mm h-1", but its standard name rainfall_amount is that of an a'),
     ("rainfall_flux", "kg m-2 s-1", 3600, ""), ("precipitation_amount", "kg m-2", 12, "")],
)  # fmt: skip
def test_a_standard_name_of_another_kind_than_the_units_is_doubted(tmp_path, name, units, factor, said, caplog):
    path = write(tmp_path / "a.nc", AMOUNTS / 1000, units=units, standard_name=name)
    np.testing.assert_allclose(read_one(path), AMOUNTS / 1000 * factor, rtol=1e-6)
    assert f"rr is read as {said}" in caplog.text if said else not caplog.messages


def test_a_doubt_is_kept_in_the_index(tmp_path, monkeypatch, caplog):
    times, index = np.arange(1_600_000_200, 1_600_000_200 + 300 * 22, 300), FileIndex(None)
    for number, time in enumerate(times):
        path = write(tmp_path / f"{number:02}.nc", AMOUNTS[:1], units="mm", times=[time], accumulation_period=12)
        os.utime(path, ns=(1, 1))
    for _ in range(2):
        monkeypatch.setattr(log_lines, "WARNED", set())
        caplog.clear()
        open_records([tmp_path], index=index)
        assert "but accumulation_period = 12 has no unit" in caplog.text


def test_a_number_without_a_unit_is_read_by_the_time_step_of_the_record(tmp_path, caplog):
    for number, time in enumerate(range(1_600_000_200, 1_600_001_400, 300)):
        write(tmp_path / f"{number}.nc", AMOUNTS[:1], units="mm", times=[time], accumulation_period=60)
    record = open_one(tmp_path)
    np.testing.assert_allclose(record.read([2]), AMOUNTS[:1], rtol=1e-6)
    assert record.readings == ["rr as rain rate: mm per 3600 s -> mm/h (accumulation_period = 60 has no unit)"]
    assert not caplog.messages


@pytest.mark.parametrize(("period", "said"), [("1 day", True), ("5 min", False)])
def test_a_weak_word_that_is_not_the_time_step_is_told(tmp_path, period, said, caplog):
    open_one(amounts(tmp_path / "a.nc", period=period))
    assert ('(period "1 day"), but the time step (300 s) contradicts it' in caplog.text) == said
    assert bool(caplog.messages) == said


@pytest.mark.parametrize("attributes", [{"interval": 5}, {"period": "300"}, {"duration": 5.0}, {"time_interval": 300}])
def test_a_number_that_is_the_time_step_is_not_doubted(tmp_path, attributes, caplog):
    np.testing.assert_allclose(read_one(amounts(tmp_path / "a.nc", **attributes)), AMOUNTS * 12, rtol=1e-6)
    (tmp_path / "single").mkdir()
    for number, time in enumerate(range(1_600_000_200, 1_600_001_400, 300)):
        write(tmp_path / "single" / f"{number}.nc", AMOUNTS[:1], units="mm", times=[time], **attributes)
    np.testing.assert_allclose(open_one(tmp_path / "single").read([2]), AMOUNTS[:1] * 12, rtol=1e-6)
    assert not caplog.messages


def test_a_weak_word_contradicts_nothing(tmp_path, caplog):
    open_one(amounts(tmp_path / "a.nc", interval="5 min", duration="24 h", long_name="60-minute rain"))
    assert not caplog.messages


def spaced(path, minutes, *, start="2020-06-01T00:00:00", **attributes):
    """Amounts of 1 mm a frame, at these minutes."""
    times = np.datetime64(start) + np.array(minutes) * np.timedelta64(60, "s")
    return write_record(path, np.ones((len(minutes), 3, 4)), times=times, standard_name="", units="mm", **attributes)


def test_a_file_of_another_time_step_is_told_whether_frames_were_lost_or_not(tmp_path, caplog):
    spaced(tmp_path / "a.nc", range(0, 60, 5))
    spaced(tmp_path / "b.nc", range(0, 40, 10), start="2020-06-01T02:00:00")
    record = open_one(tmp_path)
    np.testing.assert_allclose(record.read([0, 12])[:, 0, 0], [12, 6])
    said = "states no interval and is divided by 10 min, its own time step; that of the record is 5 min"
    assert f"b.nc: rainfall_rate {said}.\nIf the amounts cover other intervals, state them" in caplog.text


def test_sums_over_different_intervals_in_a_folder_are_told(tmp_path, caplog):
    for day, seconds in enumerate((300, 301, 3600)):
        spaced(tmp_path / f"{day}.nc", range(0, 30, 5), start=f"2020-06-0{day + 1}", accumulation_time=f"{seconds} s")
        np.testing.assert_allclose(read_one(tmp_path)[-1], 3600 / seconds, rtol=1e-6)
        assert len(caplog.messages) == (day == 2)
    said = "rainfall_rate is summed over 300 s, but rainfall_rate in 2.nc over 3600 s"
    assert caplog.messages == [f"{tmp_path / '0.nc'}: {said}. Different products belong in folders of their own"]


def test_single_frames_between_files_of_many_are_no_other_time_step(tmp_path, caplog):
    for day in range(4):
        spaced(tmp_path / f"{day}a.nc", [0], start=f"2020-06-0{day + 1}T00:00:00")
        spaced(tmp_path / f"{day}b.nc", range(5, 1440, 5), start=f"2020-06-0{day + 1}T00:00:00")
    record = open_one(tmp_path)
    np.testing.assert_allclose(record.read([0, 1, 288])[:, 0, 0], 12)
    assert not caplog.text


def test_files_of_other_time_steps_are_divided_by_their_own(tmp_path):
    spaced(tmp_path / "a.nc", range(0, 100, 10))
    spaced(tmp_path / "b.nc", range(0, 200, 5), start="2020-06-02T00:00:00")
    record = open_one(tmp_path)
    assert record.time_step == np.timedelta64(300, "s")
    np.testing.assert_allclose(record.read([2, 20])[:, 0, 0], [6, 12])


@pytest.mark.parametrize("minutes", [[*range(0, 30, 5), *range(40, 100, 10)], [*range(0, 60, 10), *range(60, 160, 5)]])
def test_amounts_whose_time_step_changes_in_a_file_are_told(tmp_path, caplog, minutes):
    open_one(spaced(tmp_path / "a.nc", minutes))
    assert "states no interval and is divided by" in caplog.text
    assert "min apart.\nIf the amounts cover other intervals, state them: time bounds, or cell_methods" in caplog.text


@pytest.mark.parametrize(
    "minutes", [[0, 5, 10, 20, 25, 35, 40], [*range(0, 30, 5), *range(600, 630, 5)], [0, 5, 20, 25, 40, 45]]
)
def test_a_gap_is_no_other_time_step(tmp_path, caplog, minutes):
    record = open_one(spaced(tmp_path / "a.nc", minutes))
    np.testing.assert_allclose(record.read([0, 3])[:, 0, 0], 12)
    assert not caplog.text


@pytest.mark.parametrize(
    ("units", "name", "size", "seconds"),
    [("minutes", "accumulation_time", 60, 3600), ("s", "integration_period", 900, 900), (None, "accum_minutes", 15, 900),
     (None, "accumulation_time", 15, 300), ("minutes", "accumulation_time", 9.97e36, 300), ("minutes", "summary", 15, 300)],
)  # fmt: skip
def test_a_variable_of_one_number_or_the_file_may_say_it(tmp_path, units, name, size, seconds):
    path = amounts(tmp_path / "a.nc")
    with edit(path) as file:
        file.createVariable(name, "f8")[...] = size
        if units:
            file[name].units = units
    assert f"mm per {seconds} s -> mm/h (" in open_one(path).readings[0]
    path = amounts(tmp_path / "b.nc")
    with edit(path) as file:
        file.accumulation_time = "15 minutes"
    assert open_one(path).readings == ['rr as rain rate: mm per 900 s -> mm/h (accumulation_time "15 minutes")']


@pytest.mark.parametrize(("name", "size"), [("intervalseconds", 900), ("interval_minutes", 15), ("accumulation_minutes", 15)])
def test_attributes_of_the_file_tell_the_interval(tmp_path, name, size):
    path = amounts(tmp_path / "a.nc")
    with edit(path) as file:
        file.setncattr(name, size)
    assert open_one(path).readings == [f"rr as rain rate: mm per 900 s -> mm/h ({name} {size})"]


@pytest.mark.parametrize("num", [2, 5])
def test_bounds_may_come_with_their_two_ends_first(tmp_path, num):
    path = write(tmp_path / "a.nc", AMOUNTS[:num], units="mm")
    with edit(path) as file:
        file.createDimension("bnds", 2)
        file["time"].bounds = "ends"
        times = file["time"][:]
        file.createVariable("ends", "i4", ("bnds", "time"))[:] = np.stack([times - 600, times])
    np.testing.assert_allclose(read_one(path), AMOUNTS[:num] * 6, rtol=1e-6)


@pytest.mark.parametrize("case", UNSTATED)
def test_an_amount_of_which_nothing_is_said_covers_the_time_step(tmp_path, case, caplog):
    record = open_one(amounts(tmp_path / "a.nc", **UNSTATED[case]))
    np.testing.assert_allclose(record.read(range(5)), AMOUNTS * 12, rtol=1e-6)
    assert record.readings == [f"{record.variable} as rain rate: mm per 300 s -> mm/h (the time step: no interval is stated)"]
    assert not caplog.messages


@pytest.mark.parametrize(
    ("seconds", "text", "told"),
    [
        (600, "hourly rain", "3600 s"),
        (600, "5-min rain", "300 s"),
        (600, "11-min rain", "660 s"),
        (597, "10-min rain", None),  # rounded
    ],
)
def test_bounds_come_before_texts_and_what_contradicts_is_told(tmp_path, caplog, seconds, text, told):
    path = amounts(tmp_path / "a.nc", long_name=text, cell_methods="time: sum (interval: 5 minutes)")
    with edit(path) as file:
        file.createDimension("bnds", 2)
        file["time"].bounds = "time_bnds"
        times = file["time"][:]
        file.createVariable("time_bnds", "i4", ("time", "bnds"))[:] = np.stack([times - seconds, times], axis=1)
    np.testing.assert_allclose(read_one(path), AMOUNTS * (3600 / seconds), rtol=1e-6)
    said = f'{path}: rr is divided by 600 s (the time bounds), but long_name "{text}" ({told}) contradicts it'
    assert caplog.messages == ([said] if told else [])


@pytest.mark.parametrize(
    "names",
    [("time_bnds", None), ("limits", "bounds"), ("limits", "climatology"), ("time_start", None), ("time_start", "time_end")],
)
def test_intervals_are_found_by_the_names_of_bounds_and_starts(tmp_path, names):
    path = amounts(tmp_path / "a.nc")
    with edit(path) as file:
        times = file["time"][:]
        if names[0] != "time_start":
            file.createDimension("bnds", 2)
            file.createVariable(names[0], "i4", ("time", "bnds"))[:] = np.stack([times, times - 600], axis=1)
            if names[1]:
                file["time"].setncattr(names[1], names[0])
        else:  # where the end is given too, the time is that of the start
            late = 600 if names[1] else 0
            for name, values in zip(names, (times - 600 + late, times + late), strict=True):
                if name:
                    file.createVariable(name, "i4", ("time",)).units = file["time"].units
                    file[name][:] = values
    np.testing.assert_allclose(read_one(path), AMOUNTS * 6, rtol=1e-6)


@pytest.mark.parametrize(
    ("units", "methods", "moves"), [("mm", "", True), ("mm h-1", "time: mean", True), ("mm h-1", "time: point", False)]
)
@pytest.mark.parametrize("names", [("time_bnds",), ("start_time", "end_time")])
@pytest.mark.parametrize("before", [0, 150, 300])
def test_frames_of_sums_and_means_have_the_ends_of_their_intervals_as_times(
    tmp_path, caplog, units, methods, moves, names, before
):
    path = write(tmp_path / "a.nc", AMOUNTS, units=units, cell_methods=methods)
    with edit(path) as file:
        ends = file["time"][:]
        starts_and_ends = np.stack([ends - 300, ends], axis=1)
        if len(names) == 1:
            file.createDimension("bnds", 2)
            file.createVariable(*names, "i4", ("time", "bnds"))[:] = starts_and_ends
        for name, values in zip(names, starts_and_ends.T, strict=False) if len(names) == 2 else ():
            file.createVariable(name, "i4", ("time",)).units = file["time"].units
            file[name][:] = values
        expected = open_one(write(tmp_path / "plain.nc", AMOUNTS)).times - np.timedelta64(0 if moves else before, "s")
        file["time"][:] = ends - before
    record = open_one(path)
    assert record.times.tolist() == expected.tolist()
    said = f"{path}: the times of rr are up to {before / 60:g} min before the ends of its intervals (time bounds); "
    assert (f"{said}the ends are taken as valid times" in caplog.messages) == bool(moves and before), caplog.messages


def test_bounds_of_no_length_are_refused(tmp_path):
    path = amounts(tmp_path / "a.nc")
    with edit(path) as file:
        file.createDimension("bnds", 2)
        file.createVariable("time_bnds", "i4", ("time", "bnds"))[:] = np.repeat(file["time"][:][:, None], 2, axis=1)
    with pytest.raises(DataError, match=r"rr is an amount, but its time bounds are 0 s long\.\nExpected those"):
        open_one(path)


def test_what_contradicts_the_interval_of_a_forecast_is_told(tmp_path, caplog):
    path = amounts(tmp_path / "f.nc", name="rain_1h", accutime=10.0)
    with edit(path) as file:
        start = file.createVariable("forecast_reference_time", "i4")
        start.setncatts({"standard_name": "forecast_reference_time", "units": "seconds since 1970-01-01"})
        start[...] = file["time"][0] - 300
    forecasts = read_forecast(path)
    np.testing.assert_allclose(forecasts.read(0), AMOUNTS * 6, rtol=1e-6)
    assert forecasts.conversion == "mm per 600 s -> mm/h"
    said = "rain_1h is divided by 600 s (accutime 10), but the name rain_1h (3600 s) contradicts it"
    assert caplog.messages == [f"{path}: {said}"]


def test_rates_have_no_interval(tmp_path):
    record = open_one(write(tmp_path / "a.nc", AMOUNTS, name="rain_1h", long_name="hourly rain", accutime=60.0))
    np.testing.assert_array_equal(record.read(range(5)), AMOUNTS)
    assert record.readings == ["rain_1h as rain rate: mm h-1 -> mm/h"]


def test_inspect_and_forecasting_say_how_rain_is_read(tmp_path):
    amounts(tmp_path / "a.nc", accutime=60.0, name="rain_shown")  # what was said before in a process is not repeated
    said = "rain_shown as rain rate: mm per 3600 s -> mm/h (accutime 60)"
    _, out, _ = command("inspect", tmp_path / "a.nc", "-q")
    assert f"  unit     {said}\n" in out
    code, _, err = command("predict", "persistence", tmp_path / "a.nc", "--output", tmp_path / "f.nc")
    assert code == 0
    assert err.splitlines()[0] == f"a: {said}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1 h", 3600), ("24-hour", 86400), ("PT30M", 1800), ("5 mins", 300), ("1.5 hours", 5400), ("5 m", None)],
)
def test_lengths_of_time_in_texts(text, seconds):
    assert lengths(text) == ([] if seconds is None else [seconds])


# -- pysteps' attributes ----------------------------------------------------------------------------------------------

RATES = np.float32([0, 0.05, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 80, 120]).reshape(1, 3, 4)


def test_decibels_of_a_rate_or_an_amount_are_undone(tmp_path):
    decibels = np.where(RATES < 0.1, -15, 10 * np.log10(np.maximum(RATES, 0.1))).astype("f4")
    marks = {"transform": "dB", "zerovalue": -15.0, "threshold": -10.0}
    wanted = np.where(RATES < 0.1, 0, RATES)
    rate = write(tmp_path / "rate.nc", decibels, units="mm/h", **marks)
    amount = write(tmp_path / "amount.nc", decibels, units="mm", accutime=10.0, **marks)
    np.testing.assert_allclose(read_one(rate), wanted, rtol=1e-5)
    np.testing.assert_allclose(read_one(amount), 6 * wanted, rtol=1e-5)
    assert open_one(rate).readings == ["rr as rain rate: dB of mm/h -> mm/h"]
    dbz = write(tmp_path / "dbz.nc", np.float32([[[-32, 23.0103]]]), units="dBZ", transform="dB", zerovalue=-32.0)
    np.testing.assert_allclose(read_one(dbz), [[[0, 1]]], rtol=1e-5)


def test_unit_is_read_as_units(tmp_path):
    path = write(tmp_path / "a.nc", RATES, unit="mm/h", standard_name="precipitation_rate")
    with edit(path) as file:
        del file["rr"].units
    np.testing.assert_array_equal(read_one(path), RATES)


def test_another_transform_is_refused(tmp_path):
    write(tmp_path / "a.nc", RATES, transform="sqrt")
    code, _, err = command("inspect", tmp_path / "a.nc")
    assert code == 3
    assert err == f'error: {tmp_path / "a.nc"}: rr has transform = "sqrt".\nExpected "dB" or none: transform it back first.\n'


def test_another_relation_of_reflectivity_and_rain_is_told(tmp_path, caplog):
    path = write(tmp_path / "a.nc", RATES, units="dBZ", zr_a=316.0, zr_b=1.5)
    open_records([path])
    used = "Z = 200 R^1.6 is used (data.zr_a, data.zr_b)"
    assert caplog.messages == [f"{path}: rr states Z = 316 R^1.5, but {used}"]
    open_records([path], zr_a=316.0, zr_b=1.5)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("units", "factor"), [("mm/h*32", 1 / 32), ("mm h-1 * 10", 0.1), ("mm/h x 100", 0.01), ("kg m**-2 h**-1", 1)]
)
def test_numbers_that_are_stored_times_a_factor_are_divided_by_it(tmp_path, units, factor):
    np.testing.assert_allclose(read_one(write(tmp_path / "a.nc", RATES, units=units)), RATES * factor, rtol=1e-6)
