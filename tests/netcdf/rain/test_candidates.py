"""Which variable is rain: by what it says of itself; where several could be meant, the user is asked."""

import numpy as np
import pytest
from makers.stored import add_variable, open_one, write

from nowcast.errors import DataError

ONES = np.ones((2, 3, 4), "f4")
REFLECTIVITY = {"name": "DBZH", "units": "dBZ"}
OTHERS = {
    "VIL": {"units": "kg m-2"},
    "vil_density": {"units": "kg m-2", "long_name": "vertically integrated liquid"},
    "D0": {"units": "mm", "long_name": "median volume diameter"},
    "Dm": {"units": "mm"},
    "pwat": {"units": "kg m-2", "long_name": "precipitable water"},
    "snow_depth": {"units": "cm"},
    "evaporation": {"units": "mm"},
    "rain_error": {"units": "mm/h"},
    "rain_sd": {"units": "mm/h", "long_name": "standard deviation of the rain rate"},
    "climatology_of_rain": {"units": "mm/h"},
    "rain_spread": {"units": "mm/h"},
    "pr_anom": {"units": "mm/h", "long_name": "rain rate anomaly"},
    "bias": {"units": "mm", "long_name": "bias of radar rain"},
    "pr_sd": {"units": "mm/h", "standard_name": "rainfall_rate", "cell_methods": "area: mean time: standard_deviation"},
    "pr_var": {"units": "mm/h", "cell_methods": "time: variance"},
    "rain_max": {"units": "mm/h", "standard_name": "rainfall_rate", "cell_methods": "area: mean time: maximum within hours"},
    "pr_min": {"units": "kg m-2 s-1", "cell_methods": "Time: minimum (interval: 1 minute)"},
    "height": {"units": "m"},
    "wind": {"units": "m s-1"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_measured_in_millimetres_and_is_no_rain_is_not_taken(tmp_path, name):
    path = write(tmp_path / "a.nc", ONES, **REFLECTIVITY)
    add_variable(path, name, **OTHERS[name])
    assert open_one(path).variable == "DBZH"
    assert open_one(path, variable=name).variable == name
    alone = write(tmp_path / "b.nc", ONES, name=name, **OTHERS[name])
    with pytest.raises(DataError, match=r"no variable that can be identified as rain.*\n.*--variable"):
        open_one(alone)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [("rr", {"long_name": "bias corrected rain rate"}), ("rr", {"long_name": "rain rate, mean field bias adjusted"}),
     ("rain_bias_corrected", {}), ("bias_adjusted_rain", {}), ("rr", {"long_name": "gauge-bias-adjusted rain rate"}),
     ("rr", {"long_name": "rain rate without anomalous propagation"}),
     ("rr", {"cell_methods": "time: mean (comment: range corrected)"}), ("rr", {"cell_methods": "height: maximum"}),
     ("rr", {"cell_methods": "time: mean area: maximum"})],
)  # fmt: skip
def test_rain_without_its_bias_and_the_highest_of_a_column_is_rain(tmp_path, name, attributes):
    assert open_one(write(tmp_path / "a.nc", ONES, name=name, units="mm/h", **attributes)).variable == name


@pytest.mark.parametrize(
    ("name", "units"),
    [("precip", "mm"), ("rain_amount", "kg m-2"), ("prate", "kg m-2 s-1"), ("rr", "mm/h"), ("x1", "mm/h"), ("tp", "m"),
     ("rain", "m s-1")],
)  # fmt: skip
def test_rain_comes_before_reflectivity(tmp_path, name, units):
    path = write(tmp_path / "a.nc", ONES, **REFLECTIVITY)
    add_variable(path, name, units=units)
    assert open_one(path).variable == name


NAMED = {"rate": ("rainfall_rate", "mm/h"), "sum": ("rainfall_amount", "mm"), "dbz": ("equivalent_reflectivity_factor", "dBZ")}


@pytest.mark.parametrize(("one", "other"), [("rate", "sum"), ("sum", "dbz"), ("rate", "dbz")])
def test_of_two_with_standard_names_a_rate_comes_before_an_amount_and_that_before_reflectivity(tmp_path, one, other):
    for first, second in ((one, other), (other, one)):
        (standard_name, units), (of_second, units_of_second) = NAMED[first], NAMED[second]
        path = write(tmp_path / f"{first}.nc", ONES, name=first, standard_name=standard_name, units=units)
        add_variable(path, second, standard_name=of_second, units=units_of_second)
        assert open_one(path).variable == one


@pytest.mark.parametrize(
    ("name", "long_name"),
    [("bias_corrected_rain_rate", "x"), ("rr", "Bias-adjusted rain rate"), ("rr", "rain rate, bias and noise removed"),
     ("unbiased_rain", "x"), ("rr", "rain rate after removal of anomalous propagation"), ("gauge_adjusted_rain", "x"),
     ("rr", "rain rate with mean field bias correction"), ("rr", "rain rate (bias correction applied)"),
     ("rr", "quality-controlled rain rate"), ("rr", "rain rate, error corrected"), ("rr", "rainfall depth in an hour"),
     ("rr", "rain rate at the lowest sigma level")],
)  # fmt: skip
def test_rain_from_which_an_error_was_removed_is_rain(tmp_path, name, long_name):
    path = write(tmp_path / "a.nc", ONES, **REFLECTIVITY)
    add_variable(path, name, units="mm/h", long_name=long_name)
    assert open_one(path).variable == name


@pytest.mark.parametrize("long_name", ["bias correction of rain", "rain rate bias", "quality of rain", "anomalies of rain"])
def test_an_error_of_rain_is_no_rain(tmp_path, long_name):
    path = write(tmp_path / "a.nc", ONES, **REFLECTIVITY)
    add_variable(path, "rr", units="mm/h", long_name=long_name)
    assert open_one(path).variable == "DBZH"


@pytest.mark.parametrize(
    "methods",
    ["time: mean (comment: range of 150 km)", "time: mean (interval: 5 minutes comment: variance: see rain_var)",
     "time: range: mean", "area: mean time: point"],
)  # fmt: skip
def test_what_cell_methods_say_of_something_else_is_no_reason(tmp_path, methods):
    path = write(tmp_path / "a.nc", ONES, name="rain", units="mm/h", cell_methods=methods)
    add_variable(path, "rain_var", units="mm2 h-2", cell_methods="time: variance")
    assert open_one(path).variable == "rain"


def test_a_variable_of_others_that_is_called_like_that_of_nowcast_is_no_more_than_others(tmp_path):
    path = write(tmp_path / "a.nc", ONES, name="precip_intensity", units="mm/h")
    add_variable(path, "rain_rate", units="mm/h")
    with pytest.raises(DataError, match="several rain variables: precip_intensity, rain_rate\\.\nChoose one with --variable"):
        open_one(path)


def test_an_amount_that_nothing_calls_rain_comes_last_and_is_asked_for_beside_another(tmp_path):
    assert open_one(write(tmp_path / "a.nc", ONES, name="field1", units="mm")).variable == "field1"
    path = write(tmp_path / "b.nc", ONES, name="field1", units="mm")
    add_variable(path, "field2", units="kg m-2")
    with pytest.raises(DataError, match="several rain variables: field1, field2\\.\nChoose one with --variable"):
        open_one(path)
    add_variable(path, "DBZH", units="dBZ")
    assert open_one(path).variable == "DBZH"


@pytest.mark.parametrize(
    ("standard_name", "is_rain"),
    [("unknown", True), ("precipitation_rate", True), ("radar_equivalent_reflectivity_factor_h", True), ("wind_speed", False),
     ("snowfall_amount", False), ("water_evaporation_amount", False)],
)  # fmt: skip
def test_standard_names_that_cf_does_not_have_are_read_as_words(tmp_path, standard_name, is_rain):
    units = "dBZ" if "reflectivity" in standard_name else "mm" if "amount" in standard_name else "mm/h"
    path = write(tmp_path / "a.nc", ONES, units=units, standard_name=standard_name)
    if is_rain:
        assert open_one(path).variable == "rr"
    else:
        with pytest.raises(DataError, match="no variable that can be identified as rain"):
            open_one(path)
