"""Where cells lie on the earth: positions and places are inverse, for each way in which files say it."""

import numpy as np
import pytest
from makers import SHARED
from makers.places import LONGITUDES, MAP_X, along, index, on_map, over, packed, placed
from makers.stored import edit, write

from nowcast.errors import DataError, UsageError
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.places.earth import locate

POLAR = {
    "grid_mapping_name": "polar_stereographic", "latitude_of_projection_origin": 90.0, "standard_parallel": 60.0,
    "straight_vertical_longitude_from_pole": 10.0, "false_easting": 0.0, "false_northing": 0.0, "earth_radius": 6371000.0,
}  # fmt: skip


def earth_of(path):
    (record,) = open_records([path])
    return locate(record.grid, record.name)


@pytest.mark.parametrize("turned", [(False, False), (True, True)])
@pytest.mark.parametrize(
    "coordinates", [along(), over(), packed(over()), along(east=-5.05)], ids=["1d", "2d", "packed", "west"]
)
def test_the_cells_are_where_latitude_and_longitude_say(tmp_path, coordinates, turned):
    dims = {"dims": ("lat", "lon")} if coordinates[0][1] == ("y",) else {}
    if dims:
        coordinates = [(name, (name,), *rest) for name, _, *rest in coordinates]
    earth = earth_of(placed(tmp_path / "a.nc", coordinates, turned=turned, **dims))
    shift = LONGITUDES[0] - np.unwrap([LONGITUDES[0], float(earth.degrees(0, 0)[1])], period=360)[1]
    latitudes, longitudes = earth.degrees(np.array([0, 4, 1.5]), np.array([0, 5, 2.5]))
    np.testing.assert_allclose(latitudes, [50.04, 50.0, 50.025], atol=1e-5)
    np.testing.assert_allclose(longitudes + shift, [5, 5.075, 5.0375], atol=1e-5)
    rows, columns = earth.positions(latitudes, longitudes)
    np.testing.assert_allclose([rows, columns], [[0, 4, 1.5], [0, 5, 2.5]], atol=1e-3)


def test_corners_are_those_of_the_outermost_cells(tmp_path):
    earth = earth_of(placed(tmp_path / "a.nc", over()))
    np.testing.assert_allclose(
        earth.corners, [[50.045, 4.9925], [50.045, 5.0825], [49.995, 5.0825], [49.995, 4.9925]], atol=1e-5
    )


@pytest.mark.parametrize("size", [1000.0, 1.0], ids=["m", "km"])
def test_the_cells_of_a_map_are_where_its_projection_says(tmp_path, size):
    pytest.importorskip("pyproj")
    declared = [own | {"units": "m" if size == 1000 else "km"} for own in ({"standard_name": "projection_y_coordinate"}, MAP_X)]
    earth = earth_of(
        placed(tmp_path / "a.nc", on_map(size=size, y0=-3000 * size, declared=declared), mapping=POLAR, grid_mapping="crs")
    )
    # on the central meridian, 3000 km from the pole on a map that is true at 60 °N
    latitude, longitude = earth.degrees(0.0, 0.0)
    colatitude = 2 * np.degrees(np.arctan(3000 / (6371 * (1 + np.sin(np.radians(60))))))
    assert (float(latitude), float(longitude)) == pytest.approx((90 - colatitude, 10.0), abs=1e-6)
    rows, columns = earth.positions(*earth.degrees(np.array([-3.0, 4]), np.array([0.25, 9])))
    np.testing.assert_allclose([rows, columns], [[-3, 4], [0.25, 9]], atol=1e-6)


def test_latitudes_and_longitudes_that_are_no_map_are_refused(tmp_path):
    scattered = np.random.default_rng(0).uniform(40, 60, (2, 5, 6))
    path = placed(tmp_path / "a.nc", [(*named[:2], v, named[3]) for named, v in zip(over(), scattered, strict=True)])
    with pytest.raises(DataError, match="does not say where its cells are"):
        earth_of(path)


@pytest.mark.parametrize("missing", [np.nan, -999.0, 1e20])
def test_cells_without_latitude_and_longitude_lie_on_the_map_of_the_others(tmp_path, missing):
    """As in composites that have them within the radars' range alone."""
    mesh = np.meshgrid(60 - 0.02 * np.arange(30), 10 + 0.03 * np.arange(40), indexing="ij")
    bent = mesh[0] + 0.001 * (mesh[1] - 10) ** 2, mesh[1] + 0.01 * (60 - mesh[0])
    is_known = np.hypot(np.arange(30)[:, None] - 15, np.arange(40) - 20) < 17
    path = write(tmp_path / "a.nc", np.zeros((1, 30, 40), "f4"), dims=("time", "row", "column"))
    with edit(path) as file:
        for name, values, units in zip(("lat", "lon"), bent, ("degrees_north", "degrees_east"), strict=True):
            file.createVariable(name, "f8", ("row", "column")).units = units
            file[name][:] = np.where(is_known, values, missing)
    earth = earth_of(path)
    rows, columns = np.meshgrid(np.arange(30), np.arange(40), indexing="ij")
    np.testing.assert_allclose(earth.degrees(rows, columns), bent, atol=2e-3)  # a tenth of a cell


def test_a_place_on_the_other_side_of_the_earth_has_no_position(tmp_path):
    rows, columns = earth_of(placed(tmp_path / "a.nc", over())).positions(
        np.array([-50.0, 0, 50.02]), np.array([-175.0, 90, 5])
    )
    assert np.isnan(rows[:1]).all()
    assert not (0 <= rows[1] <= 4 and 0 <= columns[1] <= 5)
    assert rows[2] == pytest.approx(2, abs=1e-3)


def test_a_map_that_contradicts_latitude_and_longitude_is_told(tmp_path, caplog):
    pytest.importorskip("pyproj")
    path = placed(tmp_path / "a.nc", [*on_map(), *over()], mapping=POLAR, grid_mapping="crs")
    assert float(earth_of(path).degrees(0.0, 0.0)[0]) == pytest.approx(50.04, abs=1e-4)
    assert "disagree by up to" in caplog.text


@pytest.mark.parametrize("mapping", [{"grid_mapping_name": "latitude_longitude"}, {"spatial_ref": "EPSG:4326"}])
def test_metres_with_a_mapping_in_degrees_have_no_place(tmp_path, mapping):
    pytest.importorskip("pyproj")
    with pytest.raises(DataError, match="it has distances on a map, and no grid mapping that PROJ can use"):
        earth_of(placed(tmp_path / "a.nc", on_map(), mapping=mapping, grid_mapping="crs"))


@pytest.mark.parametrize("code", [np.int32(3035), "3035", "EPSG:3035"])
@pytest.mark.parametrize("name", ["epsg_code", "epsg"])
def test_an_epsg_number_places_the_cells_of_a_map(tmp_path, name, code):
    pytest.importorskip("pyproj")
    path = placed(tmp_path / "a.nc", on_map(y0=3_210_000.0, x0=4_321_000.0), mapping={name: code}, grid_mapping="crs")
    assert np.ravel(earth_of(path).degrees(0.0, 0.0)) == pytest.approx([52, 10], abs=1e-6)  # the origin of the European grid


@pytest.mark.parametrize(
    ("coordinates", "says"),
    [(index(), "row and column numbers"), (on_map(), "distances on a map"), ([], "row and column numbers")],
)
def test_a_record_without_a_place_is_refused_with_what_would_be_right(tmp_path, coordinates, says):
    with pytest.raises(
        DataError, match=rf"does not say where its cells are on the earth: it has {says}[^\n]*\nExpected latitude"
    ):
        earth_of(placed(tmp_path / "a.nc", coordinates))


def test_without_pyproj_the_command_to_install_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyproj", None)
    with pytest.raises(UsageError, match="pip install pyproj"):
        earth_of(placed(tmp_path / "a.nc", on_map(), mapping=POLAR, grid_mapping="crs"))
    assert earth_of(placed(tmp_path / "b.nc", [*on_map(), *over()], mapping=POLAR, grid_mapping="crs")).shape == (5, 6)


@pytest.mark.skipif(not (SHARED / "radar/knmi").is_dir(), reason="real records absent")
def test_the_corners_of_a_real_radar_are_those_that_its_service_gives():
    pytest.importorskip("pyproj")
    published = [[55.974, 0.0], [55.389, 10.856], [48.895, 9.009], [49.362, 0.0]]  # KNMI, geo_product_corners
    np.testing.assert_allclose(earth_of(SHARED / "radar/knmi/20100826.nc").corners, published, atol=0.01)
