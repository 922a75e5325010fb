"""Coordinates that are told in words, in units that CF does not have, over both dimensions of a map, or by bounds alone."""

import netCDF4
import numpy as np
import pytest
from makers.places import EAST, LATITUDES, LONGITUDES, MAP_X, MAP_Y, NORTH, RAIN, along, over, placed
from makers.stored import open_one

from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.places.comparison import difference
from nowcast.netcdf.places.earth import locate
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
    "lat2d and lon2d": (over(names=("lat2d", "lon2d"), declared=({}, {})), {}),
    "latitude_deg and longitude_deg": (over(names=("latitude_deg", "longitude_deg"), declared=({}, {})), {}),
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


def bounds_of(names, declared, dims=("lat", "lon"), turned=(False, False), first=False):
    """Bounds of the cells along dimensions without coordinates, (cell, 2) or (2, cell)."""
    found = []
    for name, own, dim, values, turn in zip(names, declared, dims, (LATITUDES, LONGITUDES), turned, strict=True):
        edges = (values[:, None] + np.array([-0.5, 0.5]) * (values[1] - values[0]))[:: -1 if turn else 1]
        found.append((name, ("nv", dim) if first else (dim, "nv"), edges.T if first else edges, own))
    return found


@pytest.mark.parametrize("turned", [(False, False), (True, True)], ids=str)
@pytest.mark.parametrize("first", [False, True], ids=["(cell, 2)", "(2, cell)"])
@pytest.mark.parametrize("declared", [({}, {}), (NORTH, EAST)], ids=["without attributes", "with units"])
def test_a_dimension_called_lat_is_no_latitude(tmp_path, turned, first, declared):
    """Its numbers of rows were taken for degrees from the equator, in place of the bounds."""
    edges = bounds_of(("lat_bnds", "lon_bnds"), declared, turned=turned, first=first)
    path = placed(tmp_path / "a.nc", dims=("lat", "lon"), indices=edges, turned=turned)
    record = open_one(path)
    np.testing.assert_array_equal(record.read([0, 1]), RAIN)
    assert locate(record.grid, "a").corners[0] == pytest.approx([50.045, 4.9925])
    assert not open_one(placed(tmp_path / "b.nc", dims=("lat", "lon"))).grid.is_placed


RADIANS = ({"standard_name": "latitude", "units": "radians"}, {"standard_name": "longitude", "units": "rad"})
ANGLES = {
    "radians": (RADIANS, np.pi / 180),
    "degrees south and west": (({"units": "degrees_south"}, {"units": "degrees_west"}), -1.0),
}


@pytest.mark.parametrize("make", [along, over], ids=["lat(y)", "lat(y, x)"])
@pytest.mark.parametrize("angles", ANGLES)
@pytest.mark.parametrize("turned", [(False, False), (True, True)], ids=str)
def test_angles_in_other_units_are_places_in_degrees(tmp_path, make, angles, turned):
    declared, factor = ANGLES[angles]
    coordinates = [(name, dims, values * factor, own) for (name, dims, values, _), own in zip(make(), declared, strict=True)]
    record = open_one(placed(tmp_path / "a.nc", coordinates, turned=turned))
    np.testing.assert_array_equal(record.read([0, 1]), RAIN)
    assert locate(record.grid, "a").corners[0] == pytest.approx([50.045, 4.9925])
    facts = {"lead_times": np.array([300], "timedelta64[s]"), "quantity": RAIN_RATE, "attributes": {}, "single": True}
    write_forecast(tmp_path / "f.nc", [(record.times[1], record.read([1]))], grid=record.grid, **facts)
    forecast = open_one(tmp_path / "f.nc").grid
    assert locate(forecast, "f").corners[0] == pytest.approx([50.045, 4.9925])
    assert difference(forecast, open_one(placed(tmp_path / "b.nc", make(), turned=turned)).grid) is None


def test_coordinates_without_a_standard_name_are_known_by_names_and_units(tmp_path):
    path = placed(tmp_path / "a.nc", metres(("Y", "X"), ("n1", "n2")), dims=("n1", "n2"), order="txy", turned=(True, False))
    record = open_one(path)
    np.testing.assert_array_equal(record.read([0, 1]), RAIN)
    assert record.grid.spacing_km == (1.0, 1.0)
