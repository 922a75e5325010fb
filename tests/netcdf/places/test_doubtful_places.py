"""Coordinates that cannot be right: latitudes beyond the poles, places that are all alike, cells of absurd size."""

import numpy as np
import pytest
from makers.stored import edit, open_one, write

from nowcast.errors import DataError

RAIN = np.arange(60, dtype="f4").reshape(2, 5, 6)  # mm/h
LATITUDES, LONGITUDES = np.meshgrid(50 - 0.01 * np.arange(5), 120 + 0.01 * np.arange(6), indexing="ij")


def over_grid(path, latitudes, longitudes):
    """Write RAIN on cells of 1 km with these latitudes and longitudes (y, x) beside x and y."""
    write(path, RAIN)
    with edit(path) as file:
        for name, values, units in (("lat", latitudes, "degrees_north"), ("lon", longitudes, "degrees_east")):
            variable = file.createVariable(name, "f8", ("y", "x"))
            variable.units = units
            variable[:] = values
    return path


def along(path, y, x, **attributes):
    """Write RAIN with these coordinates (y,) and (x,), whose attributes are replaced."""
    write(path, RAIN)
    with edit(path) as file:
        for name, values, units in (("y", y, attributes["y_units"]), ("x", x, attributes["x_units"])):
            file[name].delncattr("standard_name")
            file[name].units = units
            file[name][:] = values
    return path


def test_latitudes_beyond_the_poles_are_refused(tmp_path):
    exchanged = over_grid(tmp_path / "a.nc", LONGITUDES, LATITUDES)
    degrees = {"y_units": "degrees_north", "x_units": "degrees_east"}
    beyond = along(tmp_path / "b.nc", LONGITUDES[0, :5], LATITUDES[0, 0] + np.arange(6), **degrees)
    for path, said in ((exchanged, "lat has latitudes up to 120.05"), (beyond, "coordinate y has latitudes up to 120.04")):
        with pytest.raises(DataError) as raised:
            open_one(path)
        expected = "Expected -90 to 90: perhaps latitude and longitude are exchanged."
        assert str(raised.value) == f"{path}: {said} degrees.\n{expected}"


@pytest.mark.parametrize(
    "latitudes", [np.zeros((5, 6)), np.full((5, 6), 50.0), 50 - 0.01 * np.arange(5)[:, None] + np.zeros((5, 6))],
    ids=["zeros", "one latitude", "one longitude"],
)  # fmt: skip
def test_latitudes_and_longitudes_that_are_all_alike_are_none(tmp_path, latitudes):
    longitudes = LONGITUDES if np.ptp(latitudes) == 0 and latitudes.any() else np.zeros((5, 6))
    record = open_one(over_grid(tmp_path / "a.nc", latitudes, longitudes))
    assert record.grid.spacing_km == (1.0, 1.0)
    assert record.grid.degrees is None
    np.testing.assert_array_equal(record.read(range(2)), RAIN)


@pytest.mark.parametrize(
    ("y", "x", "units", "size"),
    [
        (1.0, 1.0, "m", "0.001 × 0.001 km, by y and x in m and m"),
        (1000.0, 1000.0, "km", "1000 × 1000 km, by y and x in km and km"),
        (1000.0, 1.0, "m", "1 × 0.001 km, by y and x in m and m"),
        (50.0, 50.0, "m", ""),
        (250.0, 250.0, "km", ""),
        (1000.0, 4000.0, "m", ""),
    ],
)
def test_cells_of_absurd_size_are_doubted(tmp_path, caplog, y, x, units, size):
    path = along(tmp_path / "a.nc", -y * np.arange(5), x * np.arange(6), y_units=units, x_units=units)
    np.testing.assert_array_equal(open_one(path).read(range(2)), RAIN)
    assert caplog.messages == ([f"{path}: cells of {size}. Are these units right?"] if size else [])
