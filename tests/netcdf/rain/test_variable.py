"""Fields: the rain variable is found or asked for, and missing numbers of every kind come out as NaN."""

import re

import netCDF4
import numpy as np
import pytest
from makers import write_record
from makers.stored import add_variable, edit, open_one, read_one, write

from nowcast.errors import DataError
from nowcast.netcdf.opening import open_records
from nowcast.quantity import DIMENSIONLESS


def test_a_standard_name_wins_over_units_and_a_rate_over_reflectivity(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"), standard_name="rainfall_rate")
    add_variable(path, "quality", units="1")
    add_variable(path, "other", units="mm/h")
    add_variable(path, "z", units="dBZ", standard_name="equivalent_reflectivity_factor")
    add_variable(path, "error", units="mm/h", standard_name="rainfall_rate standard_error")
    assert open_one(path).variable == "rr"
    assert read_one(path).max() == 1


def test_winds_and_heights_are_not_taken_for_rain(tmp_path):
    path = write(tmp_path / "a.nc", np.full((2, 3, 3), 1e-6, "f4"), units="m s-1")
    add_variable(path, "height", units="m")
    add_variable(path, "wind", units="mm/h", standard_name="eastward_wind")
    with pytest.raises(DataError, match=r"no variable that can be identified as rain; it has rr\(time, y, x\) \[m s-1\], h"):
        open_records([path])
    assert read_one(path, variable="rr").max() == pytest.approx(3.6)


def test_several_equal_candidates_are_named(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"))
    add_variable(path, "rain2", units="mm/h")
    message = f"{path} has several rain variables: rr, rain2.\nChoose one with --variable (data.variable)."
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        open_records([path])
    assert open_one(path, variable="rain2").read([0]).max() == 5


def test_no_candidate_lists_what_there_is(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"), units="K", name="temperature")
    message = (
        f"{path} has no variable that can be identified as rain; it has temperature(time, y, x) [K].\n"
        "Expected a CF standard name such as rainfall_rate; or choose one with --variable (data.variable), and its --units."
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        open_records([path])


def test_rain_beside_groups_is_read(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((1, 2, 3), np.float32))
    with edit(path) as file:
        file.createGroup("quality")
    np.testing.assert_array_equal(read_one(path), np.ones((1, 2, 3)))


def test_groups_are_not_read_and_said_so(tmp_path):
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createGroup("dataset1")
    with pytest.raises(DataError, match=r"but groups \(dataset1\), which are not read\.\nConvert it first: nowcast convert"):
        open_records([tmp_path / "a.nc"])
    with edit(tmp_path / "a.nc") as file:
        file.createVariable("version", "i4")
    with pytest.raises(DataError, match=r"no rain outside of its groups \(dataset1\), which are not read\.\nConvert"):
        open_records([tmp_path / "a.nc"])


def test_a_variable_that_is_not_there_is_named(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"))
    with pytest.raises(DataError, match=r'a.nc has no variable "rain"\.\nIt has rr\(time, y, x\) \[mm h-1\]\.$'):
        open_records([path], variable="rain")


def test_a_variable_without_rows_and_columns_is_refused(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"))
    add_variable(path, "mean", dims=("time", "y"), units="mm/h")
    with pytest.raises(DataError, match=r"a.nc: mean has dimensions \(time, y\)\.\nExpected \(time, y, x\)\."):
        open_records([path], variable="mean")
    assert open_one(path).variable == "rr"


@pytest.mark.parametrize("name", ["rainfall_rate", "precipitation_flux"])
def test_unknown_units_are_refused_where_the_name_says_rain(tmp_path, name):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"), units="counts/pixel", standard_name=name)
    with pytest.raises(DataError, match=r'a\.nc: rr has units "counts/pixel", which is no measure of rain'):
        open_records([path])


def test_missing_units_are_asked_for(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"), standard_name="rainfall_rate")
    with edit(path) as file:
        del file["rr"].units
    with pytest.raises(DataError, match=r"a.nc: rr has no units attribute\."):
        open_records([path])


def test_a_named_variable_may_be_dimensionless(tmp_path):
    path = write(tmp_path / "a.nc", np.full((2, 3, 3), 0.5, "f4"), units="1", name="brightness")
    record = open_one(path, variable="brightness")
    assert (record.quantity, record.units) == (DIMENSIONLESS, "1")
    assert record.read([0]).max() == 0.5


def test_dimensions_one_long_are_dropped_and_longer_ones_refused_by_name(tmp_path):
    path = write(tmp_path / "one.nc", np.ones((1, 2, 3, 4), "f4"), dims=("member", "time", "y", "x"))
    assert read_one(path).shape == (2, 3, 4)
    path = write(tmp_path / "two.nc", np.ones((2, 5, 3, 4), "f4"), dims=("time", "member", "y", "x"))
    message = r"two.nc: rr has more dimensions than time, y and x: member \(5\)\.\nSelect one position"
    with pytest.raises(DataError, match=message):
        open_records([path])
    path = write(tmp_path / "untimed.nc", np.ones((5, 3, 4), "f4"), dims=("member", "y", "x"))
    with pytest.raises(DataError, match=r"untimed.nc: rr has more dimensions than time, y and x: member \(5\)"):
        open_records([path])
    with edit(path) as file:
        file.renameVariable("time", "other")
        file["other"].standard_name = "forecast_reference_time"
    with pytest.raises(DataError, match=r"untimed.nc: rr has more dimensions than time, y and x: member \(5\)"):
        open_records([path])


@pytest.mark.parametrize("dims", [("time", "azimuth", "range"), ("time", "range", "Azimuth"), ("time", "n_rays", "n_gates")])
def test_sweeps_in_polar_coordinates_are_no_grid(tmp_path, dims):
    write(tmp_path / "a.nc", np.ones((2, 3, 4), "f4"), dims=dims)
    with pytest.raises(DataError, match=r"a.nc: rr lies over \w+ and \w+, in polar coordinates\.\nExpected rows and columns"):
        open_records([tmp_path / "a.nc"])


@pytest.mark.parametrize("dims", [("cml_id", "sublink_id", "time"), ("station", "time", "level"), ("time", "id", "height")])
def test_links_and_gauges_are_no_grid(tmp_path, dims):
    write(tmp_path / "a.nc", np.ones((2, 3, 4), "f4"), dims=dims)
    with pytest.raises(DataError, match=r"a.nc: rr lies over \w+ and \w+, a list of places\.\nExpected rows and columns"):
        open_records([tmp_path / "a.nc"])


PACKED = np.tile(np.arange(100, dtype="i2"), (2, 10, 1))  # 0 to 9.9 mm/h in steps of 0.1


def of_packed(path, holes, **attributes):
    """Rain packed in tenths of mm/h, with the number `holes` in the first five rows: read, NaN missing."""
    stored = PACKED.copy()
    stored[:, :5] = holes
    return read_one(write(path, stored, scale_factor=0.1, **attributes))


@pytest.mark.parametrize("name", ["missing", "missing_data", "Missing_Value", "NODATA_value"])
def test_numbers_declared_by_other_names_are_missing(tmp_path, name):
    rates = of_packed(tmp_path / "a.nc", 990, **{name: np.int16(990)})
    assert np.isnan(rates[:, :5]).all()
    np.testing.assert_allclose(rates[:, 5:], PACKED[:, 5:] / 10, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "attributes", "said"),
    [("i2", {"gain": 0.1}, "gain = 0.1"), ("f4", {"gain": 0.1, "offset": 0.0}, "gain = 0.1"),
     ("i2", {"scale": 10}, "scale = 10"),
     ("i2", {"calibration_formulas": "GEO = 0.1 * PV + 0.0"}, 'calibration_formulas = "GEO')],
)  # fmt: skip
def test_a_scale_that_is_not_used_is_told(tmp_path, kind, attributes, said, caplog):
    rates = read_one(write(tmp_path / "a.nc", np.full((2, 3, 4), 7, kind), **attributes))
    np.testing.assert_array_equal(rates, np.full((2, 3, 4), 7.0))
    assert f"a.nc: rr states {said}" in caplog.text
    assert "which is not used: CF's are scale_factor and add_offset" in caplog.text


@pytest.mark.parametrize(
    "attributes",
    [{"gain": 0.1, "offset": 1.0}, {"scale_factor": 0.1, "gain": 45.0}, {"gain": 1.0},
     {"comment": "formula of Marshall and Palmer, see https://example.org"}, {"formula": "Z = 200 * R^1.6"}],
)  # fmt: skip
def test_a_scale_that_is_used_or_does_nothing_is_not(tmp_path, attributes, caplog):
    read_one(write(tmp_path / "a.nc", np.full((2, 3, 4), 7, "i2"), **attributes))
    assert not caplog.messages


def test_a_number_of_missing_cells_is_no_fill_value(tmp_path):
    assert (of_packed(tmp_path / "a.nc", 0, missing=np.int32(0))[:, :5] == 0).all()


def test_a_fill_value_that_is_declared_unpacked_is_found(tmp_path, caplog):
    rates = of_packed(tmp_path / "a.nc", 990, missing_value=99.0)
    assert np.isnan(rates[:, :5]).all()
    np.testing.assert_allclose(rates[:, 5:], PACKED[:, 5:] / 10, rtol=1e-6)
    said = (
        "rr: the missing value 99 is declared unpacked, against CF: 990 is taken as missing, and 99, which would be 9.9, is not"
    )
    assert said in caplog.text


def test_a_fill_value_that_only_fits_packed_is_packed(tmp_path, caplog):
    rates = of_packed(tmp_path / "a.nc", 995, missing_value=99.5)
    assert np.isnan(rates[:, :5]).all()
    np.testing.assert_allclose(rates[:, 5:], PACKED[:, 5:] / 10, rtol=1e-6)
    assert not caplog.messages


def test_a_fill_value_that_is_declared_packed_as_a_float_stays(tmp_path, caplog):
    rates = of_packed(tmp_path / "a.nc", 200, missing_value=200.0)
    assert np.isnan(rates[:, :5]).all()
    np.testing.assert_allclose(rates[:, 5:], PACKED[:, 5:] / 10, rtol=1e-6)
    assert not caplog.messages


@pytest.mark.parametrize("said", ["true", "True", "1", np.int32(1)])
def test_what_says_unsigned_is_read_as_unsigned(tmp_path, said):
    path = write(tmp_path / "a.nc", np.full((2, 3, 4), -56, "i1"), _Unsigned=said)
    assert (read_one(path) == 200).all()


def test_a_grid_may_have_dimensions_that_are_called_as_lists_are(tmp_path):
    numbered = write(tmp_path / "a.nc", np.ones((2, 3, 4), "f4"), dims=("time", "row_id", "col_id"))
    assert open_one(numbered).grid.shape == (3, 4)
    placed = write(tmp_path / "b.nc", np.ones((2, 3, 4), "f4"), dims=("time", "site", "station"))
    with edit(placed) as file:
        for name, dim, values in (("lat", "site", [52, 51, 50]), ("lon", "station", [5, 6, 7, 8])):
            file.createVariable(name, "f8", (dim,))[:] = values
    assert open_one(placed).grid.rows.kind == "latitude"


def test_a_time_dimension_of_no_frames_is_refused(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((0, 3, 4), "f4"))
    with pytest.raises(DataError, match=r"a.nc: rr has no frames\.\nExpected at least one\."):
        open_records([path])


@pytest.mark.parametrize("dims", [("latitude", "longitude"), ("lat", "lon"), ("south_north", "west_east"), ("a", "b")])
def test_rows_and_columns_are_known_by_many_names(tmp_path, dims):
    path = write(tmp_path / "a.nc", np.arange(24, dtype="f4").reshape(2, 3, 4), dims=("time", *dims))
    record = open_one(path)
    assert (record.grid.y_name, record.grid.x_name) == dims
    assert record.read([0]).shape == (1, 3, 4)


def test_coordinates_tell_rows_from_columns_before_names(tmp_path):
    path = write(tmp_path / "a.nc", np.zeros((2, 3, 4), "f4"))
    with edit(path) as file:
        for dim, axis in (("y", "X"), ("x", "Y")):
            file[dim].delncattr("standard_name")
            file[dim].axis = axis
    assert open_one(path).grid.shape == (4, 3)


NOTHING = -32768
FILLS = ("FillValue", "fill_value", "_fillvalue", "MissingValue", "NoData", "nodata_value", "no_data_value")


@pytest.mark.parametrize(
    ("stored", "fill", "attributes"),
    [
        (np.float32([1, -9999, 2]), np.float32(-9999), {}),
        (np.float32([1, -9999, 2]), None, {}),  # an undeclared sentinel
        (np.float32([1, -1, 2]), None, {}),
        (np.float32([1, 9999, 2]), None, {}),
        (np.float32([1, np.nan, 2]), None, {}),
        (np.float32([1, np.inf, 2]), None, {}),
        (np.float32([1, netCDF4.default_fillvals["f4"], 2]), None, {}),
        (np.float32([1, netCDF4.default_fillvals["f4"], 2]), np.float32(-1), {}),
        (np.float32([1, 77, 2]), None, {"missing_value": np.float32(77)}),
        (np.float32([1, 77, 2]), np.float32(-1), {"missing_value": np.float64([55, 77])}),
        *((np.float32([1, 77, 2]), None, {name: np.float32(77)}) for name in FILLS),
        (np.float32([1, 77, 2]), None, {"CodeMissingValue": "77"}),
        (np.float32([1, 77, 2]), None, {"valid_max": np.float32(50)}),
        (np.float32([1, 77, 2]), None, {"valid_range": np.float32([0, 50])}),
        (np.float32([1, 0.25, 2]), None, {"valid_min": np.float32(0.5)}),
        (np.int16([1, netCDF4.default_fillvals["i2"], 2]), None, {}),
        (np.int16([1, -9999, 2]), None, {}),
        (np.int16([1, -9999, 2]), None, {"missing_value": "none"}),
        (np.uint16([10, 65535, 20]), np.uint16(65535), {"scale_factor": 0.1}),
        (np.uint16([10, 65535, 20]), None, {"scale_factor": 0.1}),
        (np.int16([-20, NOTHING, -10]), np.int16(NOTHING), {"scale_factor": 0.1, "add_offset": 3.0}),
        (np.int16([10, 500, 20]), None, {"scale_factor": 0.1, "valid_max": np.int16(499)}),
        (np.int16([10, 500, 20]), None, {"scale_factor": 0.1, "valid_max": np.float32(49.9)}),
        (np.int16([-10, -500, -20]), None, {"scale_factor": -0.1, "valid_range": np.float32([0, 49.9])}),
        (np.int16([-10, 1, -20]), None, {"scale_factor": -0.1, "valid_min": np.float32(0.0)}),
        (np.int8([10, -1, 20]), np.int8(-1), {"scale_factor": 0.1, "_Unsigned": "true"}),
        (np.int8([1, -56, 2]), None, {"_Unsigned": "true", "valid_range": np.int8([0, -57])}),
        (np.int8([1, -56, 2]), None, {"_Unsigned": "true", "missing_value": np.int16(200)}),
    ],
)
def test_missing_of_every_kind_is_nan(tmp_path, stored, fill, attributes):
    stored = np.tile(stored, (1, 2, 1))
    fields = read_one(write(tmp_path / "a.nc", stored, fill=fill, **attributes))
    np.testing.assert_allclose(fields[0], [[1, np.nan, 2]] * 2, rtol=1e-6)


@pytest.mark.parametrize("stored", [np.float32([1, 77, 2]), np.int16([1, 77, 2])])
@pytest.mark.parametrize("limits", [{"valid_max": np.nan}, {"valid_min": np.inf}, {"valid_range": [np.nan, np.inf]}])
def test_limits_that_are_no_numbers_limit_nothing(tmp_path, stored, limits):
    scale = {} if stored.dtype.kind == "f" else {"scale_factor": np.float32(1), "add_offset": np.float32(1)}
    fields = read_one(write(tmp_path / "a.nc", np.tile(stored, (1, 2, 1)), **scale, **limits))
    np.testing.assert_array_equal(fields[0], [stored + (1 if scale else 0)] * 2)


def test_more_fill_values_than_can_be_searched_for_are_refused(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((1, 2, 3), np.float32), missing_value=100 + np.arange(101, dtype=np.float32))
    with pytest.raises(DataError, match=r"declares 1\d\d values as missing\.\nExpected at most 100\.$"):
        read_one(path)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(("scale", "offset", "lowest"), [(0.1, -32.0, 1), (0.01, 0.0, 7), (0.01, 0.0, 29)])
def test_the_numbers_that_limits_given_unpacked_mean_are_valid(tmp_path, kind, scale, offset, lowest):
    stored = np.int16([[[lowest - 1, lowest, lowest + 300, lowest + 301]] * 2])
    limits = kind([lowest * scale + offset, (lowest + 300) * scale + offset])
    packing = {"scale_factor": kind(scale), "add_offset": kind(offset), "units": "dBZ" if offset else "mm h-1"}
    fields = read_one(write(tmp_path / "a.nc", stored, standard_name="", **packing, valid_range=limits), variable="rr")
    assert np.isnan(fields[0, 0]).tolist() == [True, False, False, True]


@pytest.mark.parametrize("said", [{"_Unsigned": "true"}, {"valid_range": np.int16([0, 254])}, {"valid_max": np.int32(255)}])
def test_unsigned_bytes_reach_255(tmp_path, said):
    stored = np.int8([[[0, 127, -128, -2]] * 2])
    assert read_one(write(tmp_path / "a.nc", stored, **said))[0, 0].tolist() == [0, 127, 128, 254]


@pytest.mark.parametrize("said", [{"_Unsigned": "false", "valid_max": np.int16(255)}, {"valid_max": np.int8(126)}, {}])
def test_other_bytes_are_signed(tmp_path, said):
    rates = read_one(write(tmp_path / "a.nc", np.int8([[[0, 100, -128, -2]] * 2]), **said))
    np.testing.assert_array_equal(rates[0, 0], [0, 100, np.nan, np.nan])


@pytest.mark.parametrize(
    ("said", "factor"),
    [({"gain": 0.1, "offset": 2.0}, 0.1), ({"ScaleFactor": 0.1, "AddOffset": 2.0}, 0.1), ({"scale": 0.1, "offset": 2.0}, 0.1),
     ({"SCALING_FACTOR": 0.1, "OFFSET": "2"}, 0.1), ({"scaling_factor": "0.1", "add_offset": 2.0}, 0.1),
     ({"Slope": 0.1}, 0.1), ({"Scale_Factor": 0.1}, 0.1), ({"scale_factor": 0.1, "gain": 9.0, "offset": 9.0}, 0.1),
     ({"Scale": 10.0}, 1), ({"gain": 44.0}, 1)],
)  # fmt: skip
def test_scales_of_integers_have_many_names(tmp_path, said, factor):
    """Of a lone `Scale` nobody knows whether it multiplies or divides."""
    rates = read_one(write(tmp_path / "a.nc", np.int16([[[0, 5, 65]] * 2]), **said))
    offset = 2 if len(said) == 2 else 0
    np.testing.assert_allclose(rates[0, 0], np.float32([0, 5, 65]) * factor + offset, rtol=1e-6)


@pytest.mark.parametrize("sentinel", [-9999, -999, -99.99, -99, 9999, 1e31, -np.inf])
def test_reflectivity_may_be_negative_but_no_sentinel(tmp_path, sentinel):
    stored = np.float32([[[-32, sentinel, 23.0103]] * 2])
    fields = read_one(write(tmp_path / "a.nc", stored, units="dBZ"))
    assert fields[0, 0] == pytest.approx([0.00036, np.nan, 1], abs=1e-4, nan_ok=True)


def test_rounding_below_zero_is_dry(tmp_path):
    fields = read_one(write(tmp_path / "a.nc", np.float32([[[-0.005, 0, -0.02]] * 2])))
    assert fields[0, 0].tolist()[:2] == [0, 0]
    assert np.isnan(fields[0, 0, 2])
    assert not np.signbit(fields[0, 0, 0])


def test_another_relation_of_reflectivity_is_used(tmp_path):
    path = write(tmp_path / "a.nc", np.full((1, 2, 2), 10 * np.log10(223), "f4"), units="dBZ")
    assert read_one(path, zr_a=223, zr_b=1.53) == pytest.approx(1)


def test_an_unlikely_amount_of_rain_is_missing_and_said_once(tmp_path, caplog):
    for number in range(3):
        rain = np.full((1, 4, 4), 1.0)
        rain[0, 0, 0] = 2e4
        write_record(tmp_path / f"{number}.nc", rain, times=[np.datetime64("2020-06-01") + np.timedelta64(300 * number, "s")])
    fields = read_one(tmp_path)
    assert np.isnan(fields[:, 0, 0]).all()
    assert np.nansum(fields) == 45
    message = f"{tmp_path / '0.nc'}: values of rainfall_rate above 10000 mm/h are taken as missing. Are its units right?"
    assert caplog.messages == [message]
