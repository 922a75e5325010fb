"""Units that the user gives, for files that state none: --units and data.units."""

import netCDF4
import numpy as np
import pytest
import torch
from makers import command, write_record

import nowcast
from nowcast.commands.evaluate import open_all
from nowcast.commands.inspect import inspect_record
from nowcast.config.schema import Data
from nowcast.dataset.archive import open_split
from nowcast.errors import DataError, UsageError
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.opening import open_records


def without_units(path, *, units=None, standard_name=None, value=6.0):
    """Write a record of one value whose variable `rr` states these units, or none."""
    write_record(path, np.full((3, 6, 7), value, np.float32), variable="rr", units="mm h-1")
    with netCDF4.Dataset(path, "a") as file:
        for name, kept in (("units", units), ("standard_name", standard_name)):
            file["rr"].delncattr(name)
            if kept:
                file["rr"].setncattr(name, kept)
    return path


@pytest.mark.parametrize(("given", "rate"), [("mm/h", 6), ("inch/hour", 152.4), ("mm", 72), ("0.1 mm", 7.2)])
@pytest.mark.parametrize("stated", [None, "1", "K"])
def test_values_are_read_in_the_units_given(tmp_path, given, rate, stated):
    path = without_units(tmp_path / "a.nc", units=stated)
    (record,) = open_records([path], variable="rr", units=given)
    assert record.read([0]).flat[0] == pytest.approx(rate)
    assert record.quantity.is_rain
    assert "units given by the user; the file states none of rain" in record.readings[0]


def test_reflectivity_can_be_given(tmp_path):
    (record,) = open_records([without_units(tmp_path / "a.nc", value=10 * np.log10(200))], variable="rr", units="dBZ")
    assert record.read([0]).flat[0] == pytest.approx(1)


def test_the_only_field_without_units_need_not_be_named(tmp_path):
    path = without_units(tmp_path / "a.nc")
    with pytest.raises(DataError, match=r"choose one with --variable \(data.variable\), and its --units"):
        open_records([path])
    with pytest.raises(DataError, match=r"rr has no units attribute.\nGive them by --units \(data.units\): a rate"):
        open_records([path], variable="rr")
    (record,) = open_records([path], units="mm/h")
    assert record.variable == "rr"


@pytest.mark.parametrize(("given", "rate"), [("mm/h", 6), ("kg m-2 s-1", 21.6), ("mm", 72)])
def test_forecasts_of_others_are_scored_in_the_units_given(tmp_path, given, rate):
    value = 0.006 if "s-1" in given else 6.0
    path = without_units(tmp_path / "a.nc", value=value)
    with netCDF4.Dataset(path, "a") as file:
        start = file.createVariable("forecast_reference_time", "i8")
        start.setncatts({"standard_name": "forecast_reference_time", "units": file["time"].units})
        start[...] = file["time"][0] - (file["time"][1] - file["time"][0])
    with pytest.raises(DataError, match=r"Give them by --units"):
        open_all([str(path)], device=torch.device("cpu"), variable="rr")
    forecaster = open_all([str(path)], device=torch.device("cpu"), units=given)["a"]
    np.testing.assert_allclose(forecaster.forecasts.read(0), rate, rtol=1e-6)
    with pytest.raises(UsageError, match="no measure of rain"):
        read_forecast(path, units="m2")


def test_units_that_a_file_states_hold_and_a_warning_tells(tmp_path, caplog):
    path = without_units(tmp_path / "a.nc", units="mm h-1", standard_name="rainfall_rate")
    (record,) = open_records([path], units="mm hour-1")
    assert not caplog.text
    (record,) = open_records([path], units="dBZ")
    assert record.read([0]).flat[0] == 6
    assert 'rr states units "mm h-1", which are used; "dBZ" (--units, data.units) is for files that state none' in caplog.text


def test_units_that_are_none_of_rain_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r'--units "K" \(data.units\) is no measure of rain.\nExpected a rate'):
        open_records([without_units(tmp_path / "a.nc")], units="K")


def test_a_relation_that_gives_nothing_but_nan_is_refused(tmp_path):
    path = without_units(tmp_path / "a.nc", units="dBZ", value=10 * np.log10(300 * 4**1.4))
    (record,) = open_records([path], zr_a=np.int64(300), zr_b=np.float32(1.4))
    assert record.read([0]).flat[0] == pytest.approx(4)
    assert float(nowcast.open_records(path, zr_a=300, zr_b=1.4)[0][0, 0, 0]) == pytest.approx(4)
    for name in ("zr_a", "zr_b"):
        for value in (-1, 0, np.nan, np.inf, True, "200", None):
            for opened in (open_records, read_forecast, nowcast.open_records):
                with pytest.raises(UsageError, match=rf"{name} = {value!r}: write a number above 0, for Z = zr_a R\^zr_b"):
                    opened(path if opened is read_forecast else [path], **{name: value})


def test_the_config_and_the_commands_take_them(tmp_path, monkeypatch):
    path = without_units(tmp_path / "a.nc")
    (record,) = open_split([path], Data(records=(str(path),), units="0.1 mm"))
    assert record.read([0]).flat[0] == pytest.approx(7.2)
    monkeypatch.chdir(tmp_path)
    code, out, err = command("inspect", path, "--units", "inch/hour")
    assert code == 0, err
    assert "inch/hour -> mm/h (units given by the user" in out
    assert "--units inch/hour" in err
    assert command("predict", "persistence", path, "--units", "mm/h", "--output", "f.nc")[0] == 0
    assert inspect_record(open_records(["f.nc"])[0])["maximum"] == 6
