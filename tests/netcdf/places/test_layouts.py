"""Whatever way a file says where its cells are: rain the right way round, cells of the right size, grids told apart, kept."""

from math import cos, radians

import netCDF4
import numpy as np
import pytest
from makers.places import RAIN, along, corners, edges, index, on_map, over, packed, placed, timed
from makers.stored import open_one

from nowcast.errors import DataError
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.places.comparison import difference
from nowcast.netcdf.places.grid import Grid
from nowcast.quantity import RAIN_RATE

SPACING = (1.112, 1.112 * 1.5 * cos(radians(50.02)))  # km
DEGREES = {"units": "degrees"}
WITHOUT_STANDARD_NAMES = ({"units": "degreesN"}, {"units": "degree_E"})
WITH_HOLES = [
    (name, dims, np.where(np.arange(30).reshape(5, 6) % 7 == 0, -999.0, values), declared | {"_FillValue": -999.0})
    for name, dims, values, declared in over()
]
LAYOUTS = {  # coordinates, and other arguments of `placed`
    "lat(lat)": (along(("lat", "lon")), {"dims": ("lat", "lon")}),
    "lat(y)": (along(), {}),
    "lat(nlat)": (along(("nlat", "nlon")), {"dims": ("nlat", "nlon")}),
    "lat of nameless dimensions": (along(("d1", "d2")), {"dims": ("d1", "d2")}),
    "lat(x), lon(y)": (along(("x", "y")), {"dims": ("x", "y")}),
    "columns before rows": (along(), {"order": "txy"}),
    "time last": (along(), {"order": "yxt"}),
    "columns before rows of nameless dimensions": (over(("d1", "d2")), {"dims": ("d1", "d2"), "order": "txy"}),
    "lat(y) beside an index": (along(), {"indices": index(units="1", long_name="row")}),
    "lat(y) without attributes": ([(name, dims, values, {}) for name, dims, values, _ in along()], {}),
    "lat(y, x)": (over(), {}),
    "lat(y, x) by units": (over(names=("a", "b"), declared=WITHOUT_STANDARD_NAMES), {}),
    "lat(y, x) by names": (over(declared=(DEGREES, DEGREES)), {}),
    "lat(x, y)": (over(("x", "y")), {"dims": ("x", "y")}),
    "lat(y, x) packed": (packed(over()), {}),
    "lat(y, x) with holes": (WITH_HOLES, {}),
    "lat(time, y, x)": (timed(over(("south_north", "west_east"))), {"dims": ("south_north", "west_east")}),
    "lat(y, x) beside an index from 0": (over(), {"indices": index()}),
    "lat(y, x) beside an index from 1": (over(), {"indices": index(1)}),
    "lat(y, x) beside an index that falls": (over(), {"indices": index(step=-1)}),
    "lat(y, x) beside an index with a name": (over(), {"indices": index(long_name="row")}),
    "lat(y, x) beside an index in 1": (over(), {"indices": index(units="1")}),
    "lat(y, x) beside an index with an axis": (over(), {"indices": index(axis="Y")[:1] + index(axis="X")[1:]}),
    "lat(y, x) beside a map": (over() + on_map(size=1112.0), {}),
}
EDGES = {  # n + 1 values in place of n, and what the middles are called
    "lat_edges(y_b)": (edges(), {"lat", "lon"}),
    "latitude_bounds(y_b) beside an index": (
        edges(("latitude_bounds", "longitude_bounds")) + index(),
        {"latitude", "longitude"},
    ),
    "lat(y_b) without attributes": (edges(("lat", "lon"), ({}, {})), {"lat", "lon"}),
    "lat_b(y_b, x_b)": (corners(), {"lat", "lon"}),
    "lat_b(y, x, v)": (corners(of_cells=True), {"lat", "lon"}),
    "lat_b(y, x, v) without attributes": (corners(({}, {}), of_cells=True), {"lat", "lon"}),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)
turns = pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)], ids=str)
LEADS = np.array([300, 600], "timedelta64[s]")


def forecast(record, path):
    """Write a forecast on the record's grid, whose first field is the record's newest frame; return the path."""
    fields = np.concatenate([record.read([1]), record.read([0])])
    facts = {"lead_times": LEADS, "quantity": RAIN_RATE, "attributes": {}, "single": True}
    write_forecast(path, [(record.times[1], fields)], grid=record.grid, **facts)
    return path


def coordinates_of(path, without):
    """The stored numbers and the attributes of the variables of a file over y, x or both, but for one variable."""
    found = {}
    with netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        for name, variable in file.variables.items():
            if name not in (without, "time") and variable.ndim:
                values = variable[0] if variable.ndim == 3 else variable[:]  # latitudes that have a time
                found[name] = values.tolist(), {key: str(variable.getncattr(key)) for key in variable.ncattrs()}
    return found


@layouts
@turns
def test_rows_run_from_the_north_and_columns_from_the_west(tmp_path, layout, turned):
    coordinates, options = LAYOUTS[layout]
    record = open_one(placed(tmp_path / "a.nc", coordinates, turned=turned, **options))
    np.testing.assert_array_equal(record.read([0, 1]), RAIN)
    assert record.grid.turned == turned
    assert record.grid.spacing_km == pytest.approx(SPACING, rel=0.03)


@turns
@pytest.mark.parametrize("layout", EDGES)
def test_cells_lie_between_edges_and_corners(tmp_path, layout, turned):
    coordinates, named = EDGES[layout]
    record = open_one(placed(tmp_path / "a.nc", coordinates, turned=turned))
    np.testing.assert_array_equal(record.read([0, 1]), RAIN)
    assert record.grid.turned == turned
    forecasts = read_forecast(forecast(record, tmp_path / "f.nc"))
    middles = open_one(placed(tmp_path / "b.nc", along() if record.grid.degrees is None else over(), turned=turned))
    for grid in (record.grid, forecasts.grid):
        assert grid.spacing_km == pytest.approx(SPACING, rel=0.03)
        assert difference(grid, middles.grid) is None
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        assert named <= {*file["precip_intensity"].dimensions, *file["precip_intensity"].coordinates.split()}


def test_edges_of_another_number_of_cells_are_no_place(tmp_path):
    fewer = [(name, dims, values[:-1], declared) for name, dims, values, declared in edges()]
    assert not open_one(placed(tmp_path / "a.nc", fewer)).grid.is_placed
    missing = [(name, dims, np.where(values == values[2], np.nan, values), each) for name, dims, values, each in edges()]
    placed(tmp_path / "b.nc", missing)
    with pytest.raises(DataError, match=r"edges of lat have missing values\.\nExpected a number for every edge"):
        open_records([tmp_path / "b.nc"])


@layouts
def test_a_forecast_keeps_the_coordinates(tmp_path, layout):
    coordinates, options = LAYOUTS[layout]
    record = open_one(placed(tmp_path / "a.nc", coordinates, turned=(True, True), **options))
    forecast(record, tmp_path / "f.nc")
    before, after = coordinates_of(tmp_path / "a.nc", "rr"), coordinates_of(tmp_path / "f.nc", "precip_intensity")
    assert before
    assert before.items() <= after.items()
    forecasts = read_forecast(tmp_path / "f.nc")
    np.testing.assert_array_equal(forecasts.read(0), RAIN[::-1])
    assert difference(forecasts.grid, record.grid) is None
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        variable = file["precip_intensity"]
        named = {*variable.dimensions, *variable.coordinates.split()}
        np.testing.assert_array_equal(variable[0], RAIN[1, ::-1, ::-1])
    assert set(before) <= named


@layouts
def test_another_place_is_another_series_and_no_forecast_for_it_is_scored(tmp_path, layout):
    coordinates, options = LAYOUTS[layout]
    moved = [(name, dims, _to_the_south(name, values), declared) for name, dims, values, declared in coordinates]
    here = open_one(placed(tmp_path / "here.nc", coordinates, **options))
    there = open_one(placed(tmp_path / "there.nc", moved, **options))
    assert len(open_records([tmp_path])) == 2
    grid = read_forecast(forecast(here, tmp_path / "f.nc")).grid
    assert difference(grid, here.grid) is None
    assert "in place of" in difference(grid, there.grid)


def _to_the_south(name, values):
    """Return latitudes 20 degrees further south, in the units that they are stored in; longitudes and fill values stay."""
    if not name.startswith(("lat", "a")):
        return values
    return np.where(values == -999, values, values - (20_000 if values.dtype == "i2" else 20)).astype(values.dtype)


def test_a_grid_that_moves_is_refused(tmp_path):
    placed(tmp_path / "a.nc", timed(over(), moving=0.5))
    with pytest.raises(DataError, match=r"a.nc: lat changes with time\.\nExpected a grid that stays where it is\."):
        open_records([tmp_path / "a.nc"])


def test_a_value_that_is_no_latitude_is_missing(tmp_path):
    for name, fill in (("declared", -999.0), ("undeclared", 1e20)):
        coordinates = [
            (angle, dims, np.where(np.arange(30).reshape(5, 6) < 2, fill, values), declared)
            for angle, dims, values, declared in over()
        ]
        coordinates = [(*rest, declared | ({"_FillValue": fill} if fill < 0 else {})) for *rest, declared in coordinates]
        record = open_one(placed(tmp_path / f"{name}.nc", coordinates, turned=(True, False)))
        np.testing.assert_array_equal(record.read([0, 1]), RAIN)
        assert record.grid.spacing_km == pytest.approx(SPACING, rel=0.01)


# -- one grid is one series -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("west", [-5.005, -0.03, 179.96, 354.995])
@pytest.mark.parametrize("over_both", [False, True])
def test_longitudes_of_either_count_and_either_precision_are_one_grid(tmp_path, west, over_both):
    east = west - 5
    for hour, (turn, kind) in enumerate([(0, "f8"), (360 if west < 180 else -360, "f8"), (0, "f4"), (180, "f8")]):
        coordinates = over(east=east) if over_both else along(("lat", "lon"), east=east)
        if turn == 180:  # from -180 to 180, or from 0 to 360: a step within the grid if it lies there
            wrapped = [(values + 180) % 360 - 180 if "lon" in name else values for name, _, values, _ in coordinates]
        else:
            wrapped = [(values + turn if "lon" in name else values).astype(kind) for name, _, values, _ in coordinates]
        coordinates = [(name, dims, values, each) for (name, dims, _, each), values in zip(coordinates, wrapped, strict=True)]
        path = placed(tmp_path / f"{hour}.nc", coordinates, dims=("lat", "lon") if not over_both else ("y", "x"))
        with netCDF4.Dataset(path, "a") as file:
            file["time"][:] += 3600 * hour
    (record,) = open_records([tmp_path])
    np.testing.assert_array_equal(record.read(range(8)), np.tile(RAIN, (4, 1, 1)))
    assert record.grid.spacing_km == pytest.approx(SPACING, rel=0.01)


def test_coordinates_of_either_precision_are_one_grid(tmp_path):
    for hour, kind in enumerate(("f4", "f8")):
        coordinates = [(*rest, values.astype(kind), each) for *rest, values, each in on_map(y0=5_321_851.657, x0=-443_462.25)]
        with netCDF4.Dataset(placed(tmp_path / f"{kind}.nc", coordinates), "a") as file:
            file["time"][:] += 3600 * hour
    assert [len(record) for record in open_records([tmp_path])] == [4]


def test_radars_that_differ_in_what_lies_beside_equal_coordinates_are_two(tmp_path):
    local = on_map(y0=2000.0, x0=-2500.0)
    for name, more in {"a": over(), "b": over(north=2.0), "c": []}.items():
        placed(tmp_path / f"{name}.nc", local + more)
    assert len(open_records([tmp_path])) == 3


def test_lat_along_and_over_the_grid_are_compared(tmp_path):
    grids = [open_one(placed(tmp_path / "a.nc", along())).grid, open_one(placed(tmp_path / "b.nc", over())).grid]
    assert difference(*grids) is None
    away = open_one(placed(tmp_path / "c.nc", over(north=0.1))).grid
    assert difference(away, grids[0]) == "latitude 50.1 to 50.14, longitude 5 to 5.075 in place of 50 to 50.04, 5 to 5.075"


def test_a_coordinate_with_a_missing_value_is_refused(tmp_path):
    (name, dims, values, declared), columns = along()
    rows = name, dims, np.where(np.arange(len(values)) == 1, np.nan, values), declared
    with pytest.raises(DataError, match=r"coordinate lat has missing values\.\nExpected a number for every cell\.$"):
        open_one(placed(tmp_path / "a.nc", [rows, columns]))


@pytest.mark.parametrize(("slant", "is_along"), [(0.0, True), (300.0, False)])
def test_rows_that_are_slanted_on_the_map_are_no_coordinate(tmp_path, slant, is_along):
    """5321 km from the equator, beside which the steps between rows are small."""
    rows, columns = np.meshgrid(5_321_000.0 - 1000.0 * np.arange(5), 1000.0 * np.arange(6), indexing="ij")
    both = ((rows + slant * np.arange(6), "projection_y_coordinate"), (columns, "projection_x_coordinate"))
    coordinates = [
        (name, ("y", "x"), values, {"standard_name": standard, "units": "m"})
        for name, (values, standard) in zip(("my", "mx"), both, strict=True)
    ]
    grid = open_one(placed(tmp_path / "a.nc", coordinates)).grid
    assert (grid.rows.kind, grid.columns.kind) == ("length" if is_along else "index", "length")


@pytest.mark.parametrize("shape", [(40, 3), (3, 40)])
@pytest.mark.parametrize(("moved", "same"), [(0.0009, True), (0.0012, False)])
def test_positions_may_differ_by_a_tenth_of_a_cell(shape, moved, same):
    latitudes, longitudes = np.meshgrid(-0.01 * np.arange(shape[0]), 0.01 * np.arange(shape[1]), indexing="ij")
    grids = [
        Grid(np.arange(shape[0]), np.arange(shape[1]), degrees=np.stack([latitudes, longitudes + east])) for east in (0, moved)
    ]
    assert (difference(*grids) is None) == same
