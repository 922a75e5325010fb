"""Arguments of nowcast in Python: of any kind that has one sense, else refused with a line that says what would be right."""

from datetime import UTC, date, datetime, timedelta, timezone
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from makers import rain, tiny_experiment, write_record

import nowcast
from nowcast import config
from nowcast.errors import DataError, NotEnoughFrames, OutputError, UsageError, in_words_of_python
from nowcast.prediction.given import as_time

OPTIONS = {"start": "2020-06-01T00:45", "device": "cpu"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_record(tmp_path_factory.mktemp("arguments") / "rain.nc", rain(frames=24, shape=(16, 20)))


@pytest.fixture(scope="module")
def array(file):
    with xr.open_dataset(file, decode_coords="all") as dataset:
        yield dataset.rainfall_rate.load()


@pytest.mark.parametrize(
    "wrong",
    [[np.nan], [-1], 0, [1, 1], [5, 1], np.inf, [], [[1, 5]], [1e7]],
    ids=["nan", "negative", "zero", "twice", "descending", "inf", "none", "nested", "large"],
)
def test_thresholds_are_checked_as_those_of_the_commands(file, wrong):
    says = r"write (ascending numbers above 0, in mm/h|a number or a list of numbers), such as"
    with pytest.raises(UsageError, match=says):
        nowcast.evaluate("persistence", file, thresholds=wrong, **OPTIONS)
    with pytest.raises(UsageError, match=says):
        nowcast.load("extrapolation").probabilities(rain(frames=3), wrong)


def test_a_single_threshold_may_be_a_number(file):
    one, several = (nowcast.evaluate("persistence", file, thresholds=given, **OPTIONS) for given in (np.float32(1), [1, 5]))
    assert one.threshold.values.tolist() == [1]
    np.testing.assert_array_equal(one.csi.sel(threshold=1), several.csi.sel(threshold=1))


SAME_TIME = {
    "datetime": datetime(2020, 6, 1, 0, 45),
    "aware": datetime(2020, 6, 1, 2, 45, tzinfo=timezone(timedelta(hours=2))),
    "in UTC": datetime(2020, 6, 1, 0, 45, tzinfo=UTC),
    "pandas": pd.Timestamp("2020-06-01T00:45"),
    "pandas, aware": pd.Timestamp("2020-06-01T02:45", tz="Europe/Berlin"),
    "NumPy": np.datetime64("2020-06-01T00:45", "ns"),
    "an array": np.array("2020-06-01T00:45", "datetime64[m]"),
    "a coordinate": xr.DataArray(np.datetime64("2020-06-01T00:45", "ns")),
}


@pytest.mark.parametrize("kind", SAME_TIME)
def test_times_of_every_kind_are_taken_in_utc(kind):
    assert as_time(SAME_TIME[kind], "start") == np.datetime64("2020-06-01T00:45:00", "s")


def test_a_date_as_the_end_is_a_whole_day(file):
    """As it is as text; midnight would leave out the day."""
    by_text, by_date = (
        nowcast.evaluate("persistence", file, start=start, end=end, thresholds=1, device="cpu")
        for start, end in (("2020-06-01", "2020-06-01"), (date(2020, 6, 1), date(2020, 6, 1)))
    )
    np.testing.assert_array_equal(by_date.csi, by_text.csi)
    assert as_time(date(2020, 6, 1), "start") == np.datetime64("2020-06-01T00:00:00", "s")
    assert as_time(datetime(2020, 6, 1), "end", whole_day=True) == np.datetime64("2020-06-01T00:00:00", "s")


NO_RAIN = {  # in place of an array of rain
    "a path": (lambda a, f: f, r"rain is of the type PosixPath, and no array\.\nTo open a file: nowcast\.open_records"),
    "text": (lambda a, f: "radar.nc", "rain is of the type str, and no array"),
    "nothing": (lambda a, f: None, "rain is of the type NoneType, and no array"),
    "records": (lambda a, f: nowcast.open_records(f), r"rain is a list of arrays of xarray\.\nExpected one DataArray"),
    "a list of dBZ": (lambda a, f: list(a.assign_attrs(units="dBZ")), r"rain is a list of arrays of xarray\."),
    "a Variable in dBZ": (lambda a, f: a.assign_attrs(units="dBZ").variable, "rain is a Variable without coordinates"),
    "a comparison": (lambda a, f: a >= 1, "persistence takes numbers, and not an array of bool"),
}


@pytest.mark.parametrize("case", NO_RAIN)
def test_what_is_no_array_of_rain_is_refused(array, file, case):
    """Lists of DataArrays and comparisons were forecast as mm/h, whatever their units."""
    given, says = NO_RAIN[case]
    with pytest.raises(UsageError, match=says):
        nowcast.load("persistence").forecast(given(array, file))


def test_a_variable_may_be_one_of_several_and_is_text(file, array):
    (one,) = nowcast.open_records(file, variable=["absent", array.name])
    assert one.equals(nowcast.open_records(file, variable=array.name)[0])
    for call in (nowcast.open_records, partial(nowcast.evaluate, "persistence")):
        for wrong in (3, [3], []):
            with pytest.raises(UsageError, match=r"^variable = .*: write the name of a variable, such as"):
                call(file, variable=wrong)


@pytest.mark.parametrize("wrong", [5, np.int64(5), pd.NaT, np.datetime64("NaT", "s"), {}, [datetime(2020, 6, 1)]], ids=repr)
def test_what_is_no_time_is_refused(file, wrong):
    with pytest.raises(UsageError, match=r"^end = .*: not a time; write it as 2016-09-28T15:00 \(UTC\), or as a datetime$"):
        nowcast.evaluate("persistence", file, end=wrong, device="cpu")


def test_scores_begin_at_a_time_of_the_record(file, array):
    given = {"thresholds": 1, "device": torch.device("cpu")}
    scores = nowcast.evaluate("persistence", file, start=array.time[9], **given)
    np.testing.assert_array_equal(scores.csi, nowcast.evaluate("persistence", file, thresholds=1, **OPTIONS).csi)


def test_several_arrays_are_scored_as_one_record(array):
    halves = [array[:12], array[12:]]
    together, whole = (nowcast.evaluate("persistence", given, thresholds=1, **OPTIONS) for given in (halves, array))
    np.testing.assert_array_equal(together.csi, whole.csi)


@pytest.mark.parametrize("name", ["y", "time", "crs"])
def test_an_array_may_be_called_as_one_of_its_coordinates(array, name):
    net = nowcast.load("persistence")
    xr.testing.assert_identical(net.forecast(array.rename(name)), net.forecast(array))


NO_PATHS = {
    "a NumPy array of observations": (lambda a: nowcast.evaluate("persistence", a.values), "observations: .* type ndarray"),
    "no observations": (lambda a: nowcast.evaluate("persistence", None), "observations: .* type NoneType"),
    "an empty list of forecasters": (lambda a: nowcast.evaluate([], a), "no forecaster is given"),
    "an empty list of observations": (lambda a: nowcast.evaluate("persistence", []), "observations: the list is empty"),
    "a number as forecaster": (lambda a: nowcast.evaluate(5, a), "forecasters: .* type int"),
    "a DataArray to train with": (lambda a: nowcast.train({}, data=a), "data: .* type DataArray"),
    "a number as config": (lambda a: nowcast.train(5), "config: .* type int"),
    "a number as run": (lambda a: nowcast.train({}, output=5), "output: .* type int"),
    "no forecaster": (lambda a: nowcast.load(None), "forecaster: .* type NoneType"),
    "a forecaster that is loaded": (lambda a: nowcast.load(nowcast.load("persistence")), "forecaster: .* type Net"),
    "no records": (lambda a: nowcast.open_records(None), "records: .* type NoneType"),
    "an empty list of records": (lambda a: nowcast.open_records([]), "records: the list is empty"),
    "a DataArray as records": (lambda a: nowcast.open_records([a]), "records: .* type DataArray"),
}


@pytest.mark.parametrize("case", NO_PATHS)
def test_what_is_no_path_is_refused(array, case):
    call, says = NO_PATHS[case]
    with pytest.raises(UsageError, match=rf"^{says}.*\nExpected ") as told:
        call(array)
    assert str(told.value).count("\n") == 1


def test_other_wrong_arguments_are_refused(file, array):
    with pytest.raises(UsageError, match=r"^observations: got a DataArray of bool\.\nExpected rain: give thresholds"):
        nowcast.evaluate("persistence", array >= 1, device="cpu")
    with pytest.raises(UsageError, match=r"^True is not a number"):
        nowcast.evaluate("persistence", array, thresholds=True, device="cpu")
    with pytest.raises(UsageError, match=r"^units = 5: write them as text"):
        nowcast.load("persistence").forecast(array.values, units=5)
    with pytest.raises(UsageError, match=r"^every '5': write minutes between reference times"):
        nowcast.evaluate("persistence", file, every="5", device="cpu")
    with pytest.raises(UsageError, match=r"^device None: there is no such device here"):
        nowcast.load("persistence", device=None)


def test_errors_name_arguments_and_no_temporary_file(file, array, tmp_path):
    both = xr.Dataset({"a": array, "b": array})
    with pytest.raises(DataError, match=r"^rain has several rain variables: a, b\.\nGive one of them, as a DataArray\.$"):
        nowcast.evaluate("persistence", both, device="cpu")
    with pytest.raises(DataError, match=r"^rainfall_rate has no variable that can be .*\n.* or a DataArray of one, with"):
        nowcast.evaluate("persistence", array.drop_attrs(), device="cpu")
    with pytest.raises(UsageError, match=r"^start 2020-06-01T00:45:00 is after end 2020-06-01T00:30:00$"):
        nowcast.evaluate("persistence", file, end="2020-06-01T00:30", **OPTIONS)
    (tmp_path / "config.toml").touch()
    with pytest.raises(OutputError, match="no checkpoint to resume from: overwrite=True starts it again"):
        nowcast.train(config.as_dict(tiny_experiment([file])), output=tmp_path, device="cpu")


def test_warnings_name_the_array_and_no_temporary_file(array, caplog):
    net, dims = nowcast.load("persistence", device="cpu"), array.dims
    net.forecast(array.where(array > 0, -999), 1)
    net.forecast(array.assign_attrs(valid_range=[0.0, 1.0]), 1)
    net.forecast(array * 1e6, 1)
    full = array.copy()
    full[{dims[0]: -1}] = 30000.0
    with pytest.raises(NotEnoughFrames, match="needs 1 frame with something observed"):
        net.forecast(full, 1)
    assert len(caplog.messages) >= 4
    assert {message.split(":")[0] for message in caplog.messages} == {"the array"}, caplog.messages


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("--every 0: write --start", "every 0: write start"),
        ("exists.\nReplace it with --overwrite.", "exists.\nReplace it with overwrite=True."),
        ("Leave it out: nowcast train --resume runs/a goes on", "Leave it out: nowcast train --resume runs/a goes on"),
        ("--at-least --units", "--at-least --units"),
        ("give --resume RUN, or --output FOLDER/", "give resume=True, or output=..."),
        ("4 fit, as with --resume --set training.batch_size=4", '4 fit, as with resume=True, set={"training.batch_size": 4}'),
        ("--set model.name=net: no such model", 'set={"model.name": "net"}: no such model'),
        ("--set data.lags=[4, 8]: too many", 'set={"data.lags": [4, 8]}: too many'),
        ('--set data.sampler="a b".', 'set={"data.sampler": "a b"}.'),
        ("--set training.ema=-1e-3, not --set model.wide=true.", 'set={"training.ema": -1e-3}, not set={"model.wide": True}.'),
        ("--set steps=5: write SECTION.KEY=VALUE", 'set={"steps": 5}: write SECTION.KEY=VALUE'),
        ("--set data.splits={by = 1}: no", "set data.splits={by = 1}: no"),
        ("--set training.steps = 2j: write a number", "set training.steps = 2j: write a number"),
        ("--output a=b.csv: end the name in .csv", "output a=b.csv: end the name in .csv"),
        ("--resume continues it, --overwrite replaces it", "resume=True continues it, overwrite=True replaces it"),
    ],
)
def test_options_become_arguments(said, shown):
    with pytest.raises(NotEnoughFrames) as told, in_words_of_python():
        raise NotEnoughFrames(said)
    assert str(told.value) == shown


def test_the_units_in_which_times_were_stored_do_not_matter(array):
    stored = array.copy()
    stored.time.encoding.update(units="hours since 2020-06-01", calendar="standard")  # in whole hours, these times are not
    net = nowcast.load("persistence")
    xr.testing.assert_identical(net.forecast(stored), net.forecast(array))  # and no warning, which would be an error
    assert stored.time.encoding["units"] == "hours since 2020-06-01"


def test_times_with_a_time_zone_are_read_in_utc(array):
    attributes = array.time.attrs
    aware = array.indexes["time"].tz_localize("UTC").tz_convert("Europe/Berlin")
    local, net = array.assign_coords(time=("time", aware, attributes)), nowcast.load("extrapolation")
    xr.testing.assert_identical(net.forecast(local, leads=2), net.forecast(array, leads=2))
    xr.testing.assert_identical(net.probabilities(local, 1, leads=2), net.probabilities(array, 1, leads=2))
    scores = [nowcast.evaluate("persistence", given, thresholds=1, **OPTIONS).csi for given in (local, array)]
    np.testing.assert_array_equal(*scores)
    assert local.indexes["time"].tz is not None


@pytest.mark.parametrize("dtype", ["float16", "longdouble"])
def test_floats_that_netcdf_lacks_are_read(array, dtype):
    given = array.isel(time=slice(4)).round()  # whole numbers, which every float holds
    net = nowcast.load("persistence")
    forecast = net.forecast(given.astype(dtype).assign_coords(height=np.float16(2)), leads=2)
    np.testing.assert_array_equal(forecast, net.forecast(given, leads=2))
    assert forecast.dtype == np.float32


def test_durations_are_no_numbers(array):
    net, hour = nowcast.load("persistence"), np.timedelta64(60, "m")
    with pytest.raises(UsageError, match=r"leads = .*: write how many lead times"):
        net.forecast(array, leads=hour)
    with pytest.raises(UsageError, match=r"time_step = .*: write the minutes between two frames"):
        net.forecast(array.values, time_step=hour)
