"""Map projections: cells have their size on the ground, and forecasts keep the grid mapping, however it is named."""

import netCDF4
import numpy as np
import pytest
from makers.places import MAP_X, MAP_Y, RAIN, on_map, over, placed
from makers.stored import edit, open_one

from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.quantity import RAIN_RATE

POLAR = {"straight_vertical_longitude_from_pole": 10.0, "latitude_of_projection_origin": 90.0}
CONIC = {"latitude_of_projection_origin": 38.5, "longitude_of_central_meridian": -97.0, "standard_parallel": 38.5}
SOUTH = {"latitude_of_projection_origin": -30.0, "longitude_of_central_meridian": 135.0, "standard_parallel": [-18.0, -36.0]}
# name, attributes, a point on the map in km (y, x), and how many times as long as on the ground pyproj 3.7 says it is there
MAPS = {
    "web Mercator at 41 N": ("mercator", {"standard_parallel": 0.0, "earth_radius": 6378137.0}, (5012.34, 222.64), 1.325),
    "RADOLAN at 51 N": ("polar_stereographic", POLAR | {"standard_parallel": 60.0}, (-4220.16, -147.37), 1.0499),
    "RADOLAN with a false origin": (
        "polar_stereographic",
        POLAR | {"scale_factor_at_projection_origin": 0.933, "false_easting": 5e5, "false_northing": 2e6},
        (-2206.66, 353.10),
        1.05,
    ),
    "HRRR at 25 N": ("lambert_conformal_conic", CONIC | {"false_easting": 1e5}, (-1352.66, 1849.21), 1.0268),
    "two parallels at 12 S": ("lambert_conformal_conic", SOUTH, (1976.47, -556.05), 1.0215),
    "16 degrees beside a meridian": (
        "transverse_mercator", {"scale_factor_at_central_meridian": 0.9996, "false_easting": 5e5}, (5772.74, 1619.51), 1.015,
    ),
}  # fmt: skip
CRS = {"grid_mapping_name": "azimuthal_equidistant", "latitude_of_projection_origin": 50.0, "proj4": "+proj=aeqd +lat_0=50"}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_cells_have_their_size_on_the_ground(tmp_path, name, unit):
    projection, parameters, (y, x), scale = MAPS[name]
    declared = [each | {"units": {1.0: "km", 1000.0: "m"}[unit]} for each in (MAP_Y, MAP_X)]
    coordinates = on_map(y0=(y + 4) * unit, x0=(x - 5) * unit, size=2 * unit, declared=declared)
    mapping = {"grid_mapping_name": projection} | parameters
    grid = open_one(placed(tmp_path / "a.nc", coordinates, mapping=mapping, grid_mapping="crs")).grid
    assert grid.spacing_km == pytest.approx((2 / scale, 2 / scale), rel=0.005)
    assert grid.has_spacing([[9, 9], grid.spacing_km])
    assert grid.has_spacing([[2, 2]]), "the size on the map, as older checkpoints have it"
    assert not grid.has_spacing([[2, 2 / scale], [2.1, 2.1], [0, 0]])
    assert not grid.has_spacing([])


def test_maps_that_are_true_to_a_hundredth_keep_their_own_size(tmp_path):
    mapping = {"grid_mapping_name": "polar_stereographic", "standard_parallel": 60.0} | POLAR
    coordinates = on_map(y0=-3_200_000.0)  # at 60.8 N
    grid = open_one(placed(tmp_path / "a.nc", coordinates, mapping=mapping, grid_mapping="crs")).grid
    assert grid.spacing_km == (1.0, 1.0)


def test_latitudes_over_a_map_without_a_projection_give_the_size_on_the_ground(tmp_path):
    record = open_one(placed(tmp_path / "a.nc", over() + on_map(size=1731.0)))
    assert record.grid.spacing_km == pytest.approx((1.112, 1.072), abs=2e-3)


GEOSTATIONARY = {
    "grid_mapping_name": "geostationary", "perspective_point_height": 35786023.0, "semi_major_axis": 6378137.0,
    "semi_minor_axis": 6356752.31414, "latitude_of_projection_origin": 0.0, "longitude_of_projection_origin": -75.0,
}  # fmt: skip


@pytest.mark.parametrize("sweep", ["x", "y"])
@pytest.mark.parametrize("units", ["rad", "microradian"])
@pytest.mark.parametrize(("y", "x"), [(0.0, 0.0), (0.09, -0.02), (-0.06, 0.08)])
def test_what_a_satellite_sees_has_its_place_and_size_on_the_ground(tmp_path, sweep, units, y, x):
    pyproj = pytest.importorskip("pyproj")
    size = 56e-6  # of a cell, rad; rows from the north
    unit = {"rad": 1.0, "microradian": 1e-6}[units]
    declared = [each | {"units": units} for each in (MAP_Y, MAP_X)]
    coordinates = on_map(y0=(y + 2 * size) / unit, x0=(x - 2.5 * size) / unit, size=size / unit, declared=declared)
    mapping = GEOSTATIONARY | {"sweep_angle_axis": sweep}
    grid = open_one(placed(tmp_path / "a.nc", coordinates, mapping=mapping, grid_mapping="crs")).grid
    assert grid.is_placed
    seen = pyproj.Proj(proj="geos", h=35786023.0, lon_0=-75.0, sweep=sweep, a=6378137.0, b=6356752.31414)
    ground, metres = pyproj.Geod(a=6378137.0, b=6356752.31414), 35786023.0
    for found, (dy, dx) in zip(grid.spacing_km, ((size, 0), (0, size)), strict=True):
        ends = [seen((x + sign * dx / 2) * metres, (y + sign * dy / 2) * metres, inverse=True) for sign in (-1, 1)]
        assert found == pytest.approx(ground.inv(*ends[0], *ends[1])[2] / 1000, rel=1e-3)


def test_beside_the_earth_a_satellite_sees_nothing(tmp_path):
    declared = [each | {"units": "rad"} for each in (MAP_Y, MAP_X)]
    coordinates = on_map(y0=0.2, x0=0.2, size=56e-6, declared=declared)
    grid = open_one(placed(tmp_path / "a.nc", coordinates, mapping=GEOSTATIONARY, grid_mapping="crs")).grid
    assert np.isnan(grid.spacing_km).all()


@pytest.mark.parametrize("turned", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(
    ("mapping", "kinds", "cell"),
    [({"grid_mapping_name": "latitude_longitude"}, ("latitude", "longitude"), 0.5),
     ({"spatial_ref": 'GEOGCS["WGS 84",UNIT["degree",0.01745]]'}, ("latitude", "longitude"), 0.5),
     ({"grid_mapping_name": "lambert_azimuthal_equal_area"}, ("length", "length"), 1000.0)],
)  # fmt: skip
def test_a_geotransform_places_rows_and_columns(tmp_path, turned, mapping, kinds, cell):
    dy, dx = (cell if turned[0] else -cell), (-cell if turned[1] else cell)
    mapping = mapping | {"GeoTransform": f"5 {dx} 0 50 0 {dy} "}
    record = open_one(placed(tmp_path / "a.nc", turned=turned, mapping=mapping, grid_mapping="crs"))
    np.testing.assert_array_equal(record.read(range(2)), RAIN)
    assert (record.grid.rows.kind, record.grid.columns.kind) == kinds
    np.testing.assert_allclose(record.grid.y, 50 + dy * np.array([0.5, 1.5, 2.5, 3.5, 4.5]))
    np.testing.assert_allclose(record.grid.x, 5 + dx * np.array([0.5, 1.5, 2.5, 3.5, 4.5, 5.5]))


@pytest.mark.parametrize(
    ("projection", "km"),
    [("+proj=laea +units=m", 1.0), ("+proj=laea +units=km", 1000.0), ("+proj=laea +units=us-ft", None),
     ('PROJCS["map",UNIT["kilometre",1000]]', 1000.0), ('PROJCS["map",UNIT["US survey foot",0.3048]]', None)],
)  # fmt: skip
def test_a_geotransform_is_in_the_unit_of_its_map_and_not_used_in_one_that_is_not_read(tmp_path, projection, km):
    """Cells are 1000 wide: metres or kilometres, but not feet taken for one of them."""
    mapping = {"GeoTransform": "0 1000 0 0 0 -1000", "proj4_string" if "+" in projection else "spatial_ref": projection}
    grid = open_one(placed(tmp_path / "a.nc", mapping=mapping, grid_mapping="crs")).grid
    assert grid.rows.kind == ("index" if km is None else "length")
    assert grid.spacing_km == (pytest.approx((km, km)) if km else pytest.approx((np.nan, np.nan), nan_ok=True))


@pytest.mark.parametrize(
    ("name", "transform"),
    [("latitude_longitude", "5 1 0 50 0.1 1"), ("rotated_latitude_longitude", "5 1 0 50 0 1"), ("latitude_longitude", "5 1")],
)
def test_a_geotransform_that_is_none_of_rows_and_columns_is_not_used(tmp_path, name, transform):
    mapping = {"grid_mapping_name": name, "GeoTransform": transform}
    assert open_one(placed(tmp_path / "a.nc", mapping=mapping, grid_mapping="crs")).grid.rows.kind == "index"


def test_rows_may_be_even_on_a_mercator_map(tmp_path):
    parallels = np.degrees(np.arcsin(np.tanh(0.8 - 0.1 * np.arange(5))))  # from 41.6 to 22.3 N
    rows = [("lat", ("lat",), parallels, {"units": "degrees_north"})]
    columns = [("lon", ("lon",), np.degrees(0.1) * np.arange(6), {"units": "degrees_east"})]
    record = open_one(placed(tmp_path / "a.nc", rows + columns, dims=("lat", "lon"), turned=(True, False)))
    np.testing.assert_array_equal(record.read([0, 1]), RAIN)
    dy, dx = record.grid.spacing_km
    assert dy == pytest.approx(dx, rel=0.01)


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("crs", ""),
        (None, ""),
        ("crs: y x", ""),
        ("CRS", "rr names the grid mapping CRS, which the file does not have; taken to be crs"),
        ("other", "rr names the grid mapping other, which the file does not have; taken to be crs"),
    ],
)
def test_the_grid_mapping_is_found_and_kept(tmp_path, caplog, named, told):
    options = {"grid_mapping": named} if named else {}
    record = open_one(placed(tmp_path / "a.nc", on_map(), mapping=CRS, **options))
    assert [told] == [line.split(".nc: ")[-1] for line in caplog.messages] or not (told or caplog.messages)
    facts = {"lead_times": np.array([300], "timedelta64[s]"), "quantity": RAIN_RATE, "attributes": {}, "single": False}
    write_forecast(tmp_path / "f.nc", [(record.times[1], RAIN[:1])], grid=record.grid, **facts)
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        assert file["precip_intensity"].grid_mapping == "crs"
        assert {name: file["crs"].getncattr(name) for name in file["crs"].ncattrs()} == CRS


def test_a_grid_mapping_that_is_absent_is_told(tmp_path, caplog):
    assert open_one(placed(tmp_path / "a.nc", on_map(), grid_mapping="crs")).grid.mapping_name is None
    assert caplog.messages == [
        f"{tmp_path / 'a.nc'}: rr names the grid mapping crs, which the file does not have; its map projection is unknown"
    ]


def test_of_several_grid_mappings_that_of_the_coordinates_is_taken(tmp_path):
    path = placed(tmp_path / "a.nc", on_map() + over(), mapping=CRS, grid_mapping="wgs84: lat lon crs: x y")
    with edit(path) as file:
        file.createVariable("wgs84", "i4").grid_mapping_name = "latitude_longitude"
    assert open_one(path).grid.mapping_name == "crs"
