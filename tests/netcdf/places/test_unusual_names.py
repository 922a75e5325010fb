"""Coordinates that are told in words, in units that CF does not have, over both dimensions of a map, or by bounds alone."""

import netCDF4
import numpy as np
import pytest
from makers.places import MAP_X, MAP_Y, NORTH, RAIN, along, over, placed
from makers.stored import open_one

from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.places.comparison import difference
from nowcast.quantity import RAIN_RATE


def said(*units, names=("a", "b"), texts=("latitude", "longitude"), make=along):
    """Latitudes and longitudes that long names or units tell alone."""
    declared = [{"units": unit, "long_name": text} for unit, text in zip(units, texts, strict=True)]
    return [(name, dims, values, each) for name, (_, dims, values, _), each in zip(names, make(), declared, strict=True)]


def metres(names, dims=("y", "x"), declared=({"units": "m"}, {"units": "m"})):
    values = 1000.0 * np.arange(5)[::-1], 1000.0 * np.arange(6)
    return [(name, (dim,), each, dict(own)) for name, dim, each, own in zip(names, dims, values, declared, strict=True)]


def map_over(dims=("y", "x")):
    y, x = np.meshgrid(1000.0 * np.arange(5)[::-1], 1000.0 * np.arange(6), indexing="ij")
    return [("Y", dims, y, dict(MAP_Y)), ("X", dims, x, dict(MAP_X))]


LAYOUTS = {  # coordinates and other arguments of `placed`
    "long names": (said("degrees", "degrees"), {}),
    "long names over the grid": (said("degrees", "degrees", make=over, texts=("latitude of cell", "longitude of cell")), {}),
    "units in words": (said("degrees north", "degrees east", texts=("", "")), {}),
    "units of signs": (said("°N", "°E", texts=("", "")), {}),
    "decimal degrees": (said("decimal degrees", "decimal degrees"), {}),
    "northing and easting": (metres(("northing", "easting"), ("northing", "easting")), {
        "dims": ("northing", "easting"), "order": "txy"}),
    "y0 and x0": (metres(("y0", "x0"), ("y0", "x0")), {"dims": ("y0", "x0"), "order": "txy"}),
    "a map over the grid": (map_over(), {}),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("turned", [(False, False), (True, True)], ids=str)
def test_rain_is_the_right_way_round_and_forecasts_stay_in_place(tmp_path, layout, turned):
    coordinates, options = LAYOUTS[layout]
    record = open_one(placed(tmp_path / "a.nc", coordinates, turned=turned, **options))
    np.testing.assert_array_equal(record.read([0, 1]), RAIN)
    assert record.grid.turned == turned
    assert record.grid.is_placed
    leads, fields = np.array([300, 600], "timedelta64[s]"), record.read([1, 0])
    facts = {"lead_times": leads, "quantity": RAIN_RATE, "attributes": {}, "single": True}
    write_forecast(tmp_path / "f.nc", [(record.times[1], fields)], grid=record.grid, **facts)
    forecasts = read_forecast(tmp_path / "f.nc")
    np.testing.assert_array_equal(forecasts.read(0), fields)
    assert forecasts.grid.turned == turned
    assert difference(forecasts.grid, record.grid) is None


def test_bounds_alone_are_coordinates(tmp_path):

    path = placed(tmp_path / "a.nc", turned=(True, False))
    with netCDF4.Dataset(path, "a") as file:
        file.createDimension("nv", 2)
        edges = 50 + 0.01 * np.arange(5)[:, None] + [-0.005, 0.005]
        file.createVariable("lat_bnds", "f8", ("y", "nv")).setncatts(NORTH)
        file["lat_bnds"][:] = edges
    record = open_one(path)
    np.testing.assert_array_equal(record.read([0, 1]), RAIN)
    np.testing.assert_allclose(record.grid.y, edges.mean(axis=1))
    assert record.grid.rows.name == "lat"


def test_the_pole_of_a_rotated_grid_is_no_place(tmp_path):
    declared = {"units": "degrees", "long_name": "rotated latitude"}
    assert not open_one(placed(tmp_path / "a.nc", [("b", ("y",), 10.0 + np.arange(5), declared)])).grid.is_placed
