"""Where rows and columns lie on earth, and back: by degrees, by latitudes over the grid, by map projections."""

import logging
import sys

import numpy as np
import pytest
from makers.places import EAST, LATITUDES, LONGITUDES, MAP_X, MAP_Y, NORTH, along, over, placed

from nowcast.netcdf.opening import open_records
from nowcast.netcdf.places.locating import locate

# the map of the Netherlands' rain radar, and Amsterdam on it, by PROJ's `cs2cs`
STEREOGRAPHIC = {
    "grid_mapping_name": "polar_stereographic", "latitude_of_projection_origin": 90.0, "standard_parallel": 60.0,
    "straight_vertical_longitude_from_pole": 0.0, "false_easting": 0.0, "false_northing": 0.0,
    "semi_major_axis": 6378137.0, "semi_minor_axis": 6356752.0,
}  # fmt: skip
AMSTERDAM = (52.3731, 4.8922)
AMSTERDAM_METRES = (346_498.2, -4_048_202.2)  # x, y


@pytest.fixture
def heard(caplog, monkeypatch):
    """What is logged, also after a test that ran the command line."""
    monkeypatch.setattr(logging.getLogger("nowcast"), "propagate", True)
    caplog.set_level(logging.INFO, logger="nowcast")
    return caplog


def located(path):
    (record,) = open_records([path])
    return locate(record.grid)


def cells_of(locator, latitude, longitude):
    row, column = locator.cells(np.array([latitude]), np.array([longitude]))
    return float(row[0]), float(column[0])


def on_map(path, *, units="m", turned=(False, False), mapping=STEREOGRAPHIC):
    """A record of 5 × 6 cells of 1 km whose cell (1, 2) lies in Amsterdam."""
    scale = {"m": 1, "km": 1000}[units]
    x = (AMSTERDAM_METRES[0] + 1000 * (np.arange(6) - 2)) / scale
    y = (AMSTERDAM_METRES[1] - 1000 * (np.arange(5) - 1)) / scale
    coordinates = [("y", ("y",), y, MAP_Y | {"units": units}), ("x", ("x",), x, MAP_X | {"units": units})]
    return placed(path, coordinates, turned=turned, mapping=mapping, grid_mapping="crs")


@pytest.mark.parametrize("turned", [(False, False), (True, True)])
@pytest.mark.parametrize("coordinates", [along(), over()], ids=["along", "over"])
def test_degrees_give_rows_and_columns_from_the_north_and_the_west(tmp_path, coordinates, turned):
    locator = located(placed(tmp_path / "a.nc", coordinates, turned=turned))
    assert cells_of(locator, LATITUDES[0], LONGITUDES[5]) == pytest.approx((0, 5), abs=0.01)
    assert cells_of(locator, LATITUDES[3], LONGITUDES[1]) == pytest.approx((3, 1), abs=0.01)
    latitude, longitude = locator.degrees(np.array([3.0]), np.array([1.0]))
    assert (latitude[0], longitude[0]) == pytest.approx((LATITUDES[3], LONGITUDES[1]), abs=1e-4)


def test_longitudes_may_be_written_from_0_to_360_degrees(tmp_path):
    locator = located(placed(tmp_path / "a.nc", along(east=280.0)))
    assert cells_of(locator, LATITUDES[1], LONGITUDES[2] + 280 - 360) == pytest.approx((1, 2))


@pytest.mark.parametrize("turned", [(False, False), (True, True)])
@pytest.mark.parametrize("units", ["m", "km"])
def test_a_projection_gives_rows_and_columns(tmp_path, units, turned):
    locator = located(on_map(tmp_path / "a.nc", units=units, turned=turned))
    assert cells_of(locator, *AMSTERDAM) == pytest.approx((1, 2), abs=0.02)
    latitude, longitude = locator.degrees(np.array([1.0]), np.array([2.0]))
    assert (latitude[0], longitude[0]) == pytest.approx(AMSTERDAM, abs=1e-3)


def test_a_projection_may_be_a_text_of_proj(tmp_path):
    text = {"proj4": "+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378137 +b=6356752 +units=m"}
    assert cells_of(located(on_map(tmp_path / "a.nc", mapping=text)), *AMSTERDAM) == pytest.approx((1, 2), abs=0.02)


def test_sampled_latitudes_of_a_map_give_its_cells_without_pyproj(tmp_path, monkeypatch):
    """A stereographic grid of 600 km that tells only its latitudes and longitudes: within a fiftieth of a cell."""
    locator = located(on_map(tmp_path / "a.nc"))
    rows, columns = np.meshgrid(np.linspace(-300, 300, 5), np.linspace(-300, 300, 6), indexing="ij")
    latitude, longitude = (each.reshape(5, 6) for each in locator.degrees(rows.ravel(), columns.ravel()))
    path = placed(tmp_path / "b.nc", [("lat", ("y", "x"), latitude, NORTH), ("lon", ("y", "x"), longitude, EAST)])
    monkeypatch.setitem(sys.modules, "pyproj", None)
    assert cells_of(located(path), latitude[2, 3], longitude[2, 3]) == pytest.approx((2, 3), abs=0.02)


def test_nothing_is_known_of_grids_without_coordinates(tmp_path):
    assert located(placed(tmp_path / "a.nc")) is None


def test_scattered_latitudes_are_no_map(tmp_path):
    scattered = np.random.default_rng(0).uniform(40, 60, (2, 5, 6))
    path = placed(tmp_path / "a.nc", [("lat", ("y", "x"), scattered[0], NORTH), ("lon", ("y", "x"), scattered[1], EAST)])
    assert located(path) is None


def test_without_pyproj_a_map_is_not_located_and_a_line_says_how(tmp_path, monkeypatch, heard):
    monkeypatch.setitem(sys.modules, "pyproj", None)
    assert located(on_map(tmp_path / "a.nc")) is None
    assert "pip install -e '.[pictures]'" in heard.text


def test_a_projection_that_is_not_understood_is_none(tmp_path, heard):
    assert located(on_map(tmp_path / "a.nc", mapping={"grid_mapping_name": "flat_earth"})) is None
    assert "not understood" in heard.text
