"""Gauges and areas: which cells they have, with which share, and what is told of those outside."""

import json

import numpy as np
import pytest

pytest.importorskip("shapely")

import shapely

from nowcast.errors import DataError, UsageError
from nowcast.netcdf.places.earth import locate
from nowcast.netcdf.places.grid import Grid
from nowcast.prediction.areas import moved, read_areas
from nowcast.prediction.gauges import read_gauges, require_own_names
from nowcast.prediction.weights import weigh

NORTH, EAST = (
    {"standard_name": name, "units": f"degrees_{way}"} for name, way in (("latitude", "north"), ("longitude", "east"))
)


def grid_of(y, x):
    return Grid(y=y, x=x, y_name="lat", x_name="lon", y_attributes=NORTH, x_attributes=EAST)


# 4 × 5 cells of 0.01 degrees; that of row 0, column 0 goes from 50.03 to 50.04 °N and from 5.00 to 5.01 °E
GRID = grid_of(50.035 - 0.01 * np.arange(4), 5.005 + 0.01 * np.arange(5))
EARTH = locate(GRID, "grid")
NUMBERS = np.arange(20, dtype=np.float32).reshape(4, 5)


def box(south, north, west, east):
    return [[[west, south], [east, south], [east, north], [west, north], [west, south]]]


def areas(path, *boxes, **properties):
    features = [
        {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": box(*b)}} for b in boxes
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return read_areas(path)


def test_a_gauge_has_the_value_of_its_cell():
    places = read_gauges(["50.0399,5.0001", "B=50.0001,5.0499", "50.021, 5.0201"])
    assert [place.name for place in places] == ["50.0399,5.0001", "B", "50.021,5.0201"]
    assert weigh(places, EARTH, "grid").mean(NUMBERS)[0].tolist() == [0, 19, 7]


def test_an_area_of_one_and_a_half_cells_is_their_weighted_mean(tmp_path):
    (place,) = areas(tmp_path / "a.geojson", (50.03, 50.04, 5.0, 5.015))  # cells 0 and half of 1
    weights = weigh([place], EARTH, "grid")
    shares = dict(zip(weights.cells.tolist(), weights.shares.toarray()[0], strict=True))
    assert (shares.pop(0), shares.pop(1)) == (pytest.approx(2 / 3, abs=1e-4), pytest.approx(1 / 3, abs=1e-4))
    assert sum(shares.values()) < 1e-4  # parallels are curved, and the edges of cells are straight
    assert weights.mean(NUMBERS)[0][0] == pytest.approx(1 / 3, rel=1e-3)
    assert weights.covered[0] == pytest.approx(1, abs=1e-6)
    side = 6371.007 * np.pi / 180 * 0.01
    assert weights.areas_km2[0] == pytest.approx(1.5 * side**2 * np.cos(np.radians(50.035)), rel=1e-3)


def test_cells_farther_north_weigh_less_by_their_area(tmp_path):
    """In degrees all cells are alike; on the ground they shrink with the cosine of the latitude."""
    grid = grid_of(70 - 0.1 * np.arange(100), 5 + 0.1 * np.arange(3))
    (place,) = areas(tmp_path / "a.geojson", (60.95, 69.95, 4.95, 5.05))
    shares = weigh([place], locate(grid, "grid"), "grid").shares.toarray()[0]
    bands = -np.diff(np.sin(np.radians(69.95 - 0.1 * np.arange(91))))  # by Archimedes
    np.testing.assert_allclose(shares[shares > 1e-4], bands / bands.sum(), rtol=1e-3)


def test_missing_cells_are_left_out_and_the_known_share_is_given(tmp_path):
    (place,) = areas(tmp_path / "a.geojson", (50.03, 50.04, 5.0, 5.04))
    weights, field = weigh([place], EARTH, "grid"), NUMBERS.copy()
    field[0, 3] = np.nan
    mean, known = weights.mean(field)
    assert (mean[0], known[0]) == (pytest.approx(1, rel=1e-3), pytest.approx(0.75, rel=1e-3))
    field[0, 1:] = np.nan
    mean, known = weights.mean(field)
    assert np.isnan(mean[0])
    assert known[0] == pytest.approx(0.25, rel=1e-3)
    assert np.isnan(weights.exceeding(field, [1.0])).all()


def test_exceedance_is_the_share_of_the_area_that_reaches_a_threshold(tmp_path):
    (place,) = areas(tmp_path / "a.geojson", (50.03, 50.04, 5.0, 5.04))
    weights = weigh([place, *read_gauges(["50.035,5.035"])], EARTH, "grid")
    np.testing.assert_allclose(weights.exceeding(NUMBERS, [1.0, 3.0]), [[0.75, 1], [0.25, 1]], rtol=1e-3)


def test_areas_outside_are_told_with_the_share_covered(tmp_path, caplog):
    places = areas(tmp_path / "a.geojson", (50.0, 50.01, 5.04, 5.056), (51, 52, 5.0, 5.1), (50.0, 50.01, 4.9, 5.01))
    weights = weigh(places, EARTH, "grid")
    np.testing.assert_allclose(weights.covered, [0.625, 0, 1 / 11], atol=1e-3)
    assert "only 62.5 % of it lies in the grid of grid; means are over that part" in caplog.text
    assert '"area 2" lies outside of grid: its values are missing' in caplog.text
    assert "only 9.09 % of it lies in the grid of grid; less than half, so its values are missing" in caplog.text
    mean, _ = weights.mean(NUMBERS)
    assert (mean[0], np.isnan(mean[1:]).all()) == (pytest.approx(19), True)


def test_places_that_all_lie_outside_are_refused():
    with pytest.raises(
        DataError, match=r"swapped: write LAT,LON.\nIts corners are \(latitude,longitude\) 50.04,5; [\d.]+,[\d.]+; "
    ):
        weigh(read_gauges(["5.01,50.02"]), EARTH, "grid")


def test_a_large_area_is_weighed_like_a_small_one(tmp_path):
    """More cells than are in memory at once, most of them inside."""
    grid = grid_of(50 - 0.001 * np.arange(900), 5 + 0.001 * np.arange(500))
    (place,) = areas(tmp_path / "a.geojson", (49.2, 49.9, 5.1, 5.4))
    weights = weigh([place], locate(grid, "grid"), "grid")
    assert len(weights.cells) == pytest.approx(701 * 301, abs=1)
    assert weights.covered[0] == pytest.approx(1, abs=1e-6)
    assert weights.mean(np.full(grid.shape, 12.0))[0][0] == pytest.approx(12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("48,200", None),
        ("91,5", r"latitude 91, longitude 5 is not on the earth; they seem to be swapped\.\nExpected degrees, latitude first"),
        ("-91,90", r"latitude -91, longitude 90 is not on the earth; they seem to be swapped\."),
        ("91,91", r"longitude 91 is not on the earth\.\nExpected"),
        ("181,5", r"latitude 181, longitude 5 is not on the earth\.\nExpected"),
        ("90,361", r"longitude 361 is not on the earth\.\nExpected"),
        ("-90,-181", r"longitude -181 is not on the earth\.\nExpected"),
        ("nan,5", "neither a"),
        ("11.5", "neither a"),
        ("no.csv", "no such file"),
        ("no.txt", "no such file"),
    ],
)
def test_points_that_are_none_are_refused(text, says):
    if says is None:
        assert read_gauges([text])[0].longitude == 200
        return
    with pytest.raises(UsageError, match=says):
        read_gauges([text])


def test_gauges_are_read_from_a_table(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffLon,Lat,Station\n11.58,48.14,Munich\n-3.7,40.42,Madrid\n")
    (tmp_path / "b.csv").write_text("# a comment\nid;latitude;longitude\n7;48,5;11,25\n")
    (tmp_path / "tabs.txt").write_text("Station\tname \tlat\tlon\n\nTaunus, 7\t Frankfurt \t50.1\t8.7\n")
    (tmp_path / "unnamed.csv").write_text("lat,lon\n50,8\n-20.25,359\n")
    places = read_gauges([str(tmp_path / name) for name in ("a.csv", "b.csv", "tabs.txt", "unnamed.csv")])
    found = [(place.name, place.latitude, place.longitude) for place in places]
    expected = [("Munich", 48.14, 11.58), ("Madrid", 40.42, -3.7), ("7", 48.5, 11.25), ("Frankfurt", 50.1, 8.7)]
    assert found == [*expected, ("50,8", 50, 8), ("-20.25,359", -20.25, 359)]
    (tmp_path / "c.csv").write_text("place,north,east\nx,1,2\n")
    with pytest.raises(DataError, match="Expected a header with name, latitude, longitude"):
        read_gauges([str(tmp_path / "c.csv")])
    (tmp_path / "d.csv").write_text("name,lat,lon\nx,1,\n")
    with pytest.raises(DataError, match="gauge 1 has no latitude and longitude"):
        read_gauges([str(tmp_path / "d.csv")])


def test_two_places_of_one_name_are_refused():
    with pytest.raises(UsageError, match='two places are called "A"'):
        require_own_names(read_gauges(["A=1,2", "A=3,4"]))
    with pytest.raises(UsageError, match="no place is given"):
        require_own_names([])


def test_areas_are_named_by_the_property_that_tells_them_apart(tmp_path):
    names = [place.name for place in areas(tmp_path / "a.geojson", (50, 51, 5, 6), (51, 52, 5, 6), NAME="same")]
    assert names == ["area 1", "area 2"]
    (place,) = areas(tmp_path / "b.geojson", (50, 51, 5, 6), gauge_id=3, NAME="Isar", colour="red")
    assert place.name == "Isar"
    (place,) = areas(tmp_path / "c.geojson", (50, 51, 5, 6), id=7, stream="Inn")
    assert place.name == "Inn", "rather a name than a number"
    assert 50 < place.latitude < 51


def collection(path, *features, **stated):
    """Read areas of (properties, geometry), or of features as they stand in the file."""
    made = [each if isinstance(each, dict) else dict(zip(("properties", "geometry"), each, strict=True)) for each in features]
    tree = {"type": "FeatureCollection", "features": [{"type": "Feature"} | feature for feature in made]}
    path.write_text(json.dumps(tree | stated))
    return read_areas(path)


def polygon(*edges):
    return {"type": "Polygon", "coordinates": box(*edges)}


@pytest.mark.parametrize(
    ("properties", "names"),
    [
        ([{"label": "L", "name": "N"}, {"label": "M", "name": "O"}], ["N", "O"]),  # "name" before others that are names
        ([{"name": "A", "id": 0}, {"name": None, "id": 1}], ["0", "1"]),  # one has no name
        ([{"name": " A "}, {"name": "B"}], ["A", "B"]),
    ],
)
def test_every_area_has_a_name_of_its_own(tmp_path, properties, names):
    places = collection(tmp_path / "a.geojson", *((each, polygon(50, 51, 5, 6)) for each in properties))
    assert [place.name for place in places] == names


def test_areas_are_named_by_the_id_of_their_feature_also_in_collections(tmp_path):
    whole = {"id": "Inn", "properties": None, "geometry": polygon(50, 51, 5, 6)}
    part = {"id": "Isar", "geometry": {"type": "GeometryCollection", "geometries": [polygon(51, 52, 5, 6)]}}
    assert [place.name for place in collection(tmp_path / "a.geojson", whole, part)] == ["Inn", "Isar"]


def test_all_parts_of_an_area_count_also_where_its_outline_crosses_itself(tmp_path, caplog):
    parts = {"type": "MultiPolygon", "coordinates": [box(50, 51, 5, 6), box(50, 52, 355, 356)]}
    crossed = {"type": "Polygon", "coordinates": [[[5, 50], [6, 51], [6, 50], [5, 51], [5, 50]]]}
    both = collection(tmp_path / "a.geojson", ({"name": "two"}, parts), ({"name": "knot"}, crossed))
    assert [place.area.area for place in both] == [pytest.approx(3), pytest.approx(0.5)]
    assert all(place.area.is_valid for place in both)
    assert [message for message in caplog.messages if "crosses" in message] == [
        f'{tmp_path / "a.geojson"}: the outline of "knot" crosses itself, and is mended'
    ]


def test_long_straight_edges_of_a_projection_are_bent_in_degrees(tmp_path):
    pyproj = pytest.importorskip("pyproj")
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3035"}}  # metres around 52 °N, 10 °E
    square = polygon(2.5e6, 3.5e6, 3.8e6, 4.8e6)
    (place,) = collection(tmp_path / "a.geojson", ({"name": "A"}, square), crs=crs)
    on_edges = [(4.1e6, 2.5e6), (4.1e6, 3.5e6), (3.8e6, 2.7e6), (4.8e6, 2.7e6)]
    to_degrees = pyproj.Transformer.from_crs(3035, 4326, always_xy=True).transform
    away = [place.area.exterior.distance(shapely.Point(*to_degrees(*point))) for point in on_edges]
    assert max(away) < 1e-5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no GeoJSON"),
        ('{"type": "Point", "coordinates": [1, 2]}', "is a Point.\nExpected polygons; gauges are given by --at"),
        ('{"type": "FeatureCollection", "features": []}', "holds no area"),
        (
            json.dumps({"type": "Polygon", "coordinates": box(5e6, 6e6, 4e5, 5e5)}),
            "which are no longitudes and latitudes.\nExpected WGS 84",
        ),
        (json.dumps({"type": "Polygon", "coordinates": box(5, 5, 4, 5)}), "has no area"),
        (
            '{"type": "Polygon", "coordinates": [[[5, 50], [6, 51]]]}',
            r'"area 1" is no polygon \(.*\)\.\nExpected rings of longitude, latitude',
        ),
    ],
)
def test_files_that_are_no_areas_are_refused(tmp_path, text, says):
    (tmp_path / "a.geojson").write_text(text)
    with pytest.raises(DataError, match=says):
        read_areas(tmp_path / "a.geojson")
    with pytest.raises(UsageError, match="neither GeoJSON nor a shapefile"):
        read_areas(tmp_path / "a.kml")


def test_a_shapefile_in_a_projection_is_read_as_degrees(tmp_path):
    shapefile, pyproj = pytest.importorskip("shapefile"), pytest.importorskip("pyproj")
    to_utm = pyproj.Transformer.from_crs(4326, 32631, always_xy=True)
    ring = [to_utm.transform(*point) for point in box(50.03, 50.04, 5.0, 5.015)[0]]
    with shapefile.Writer(str(tmp_path / "basin.shp")) as writer:
        writer.field("RIVER_NAME", "C")
        writer.poly([ring[::-1]])
        writer.record("Ourthe")
    (tmp_path / "basin.prj").write_text(pyproj.CRS.from_epsg(32631).to_wkt("WKT1_ESRI"))
    (place,) = read_areas(tmp_path / "basin.shp")
    assert place.name == "Ourthe"
    assert weigh([place], EARTH, "grid").mean(NUMBERS)[0][0] == pytest.approx(1 / 3, rel=2e-3)
    (tmp_path / "basin.prj").unlink()
    with pytest.raises(DataError, match=r"no longitudes and latitudes.\nExpected WGS 84.*or a .prj file"):
        read_areas(tmp_path / "basin.shp")


def test_a_package_that_is_absent_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "shapely", None)
    (tmp_path / "a.geojson").write_text("{}")
    with pytest.raises(UsageError, match=r"--areas needs shapely.\nIt is not installed: pip install shapely"):
        read_areas(tmp_path / "a.geojson")


def test_an_outline_whose_points_are_moved_stays_closed():
    def by_position(points):  # as vector units and the others may differ in the last bit
        return points + 1e-9 * np.arange(len(points))[:, None]

    area = moved(shapely.box(0, 0, 2, 3), by_position)
    assert area.is_valid
    assert area.area == pytest.approx(6, abs=1e-6)


@pytest.mark.parametrize(
    ("header", "says"),
    [("name,latitude", "has the columns name, latitude"), ("longitude", "has the columns longitude"), ("", "is empty")],
)
def test_a_list_of_gauges_without_both_columns_is_refused(tmp_path, header, says):
    (tmp_path / "a.csv").write_text(f"{header}\n50.1,5.0\n" if header else "")
    with pytest.raises(DataError, match=rf"a.csv {says}\.\nExpected a header with name, latitude, longitude"):
        read_gauges([str(tmp_path / "a.csv")])
