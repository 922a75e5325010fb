"""Sizes on the ground of maps that only a PROJ string, WKT or an EPSG number describes, as pyproj computes them."""

import pytest

from nowcast.netcdf.places.distance import map_scale

pyproj = pytest.importorskip("pyproj")
MAPS = {  # any definition, and a place on it: longitude, latitude
    "web Mercator": ("EPSG:3857", (2.0, 41.0)),
    "Mercator of another latitude": ("+proj=merc +lat_ts=40 +lon_0=0 +R=6371000", (2.0, 45.0)),
    "Lambert of two parallels": ("+proj=lcc +lat_1=30 +lat_2=60 +lat_0=46 +lon_0=0 +R=6371000", (3.0, 48.0)),
    "Lambert of France": ("EPSG:2154", (3.0, 44.0)),
    "polar stereographic of DWD": ("+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +R=6370040", (9.0, 51.0)),
    "polar stereographic of KNMI": ("+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378137 +b=6356752", (5.0, 52.0)),
    "polar stereographic of EPSG": ("EPSG:3995", (20.0, 75.0)),
    "oblique stereographic": ("+proj=sterea +lat_0=52.15616 +lon_0=5.387638 +k=0.9999079 +x_0=155000 +R=6371000", (5.0, 52.0)),
    "UTM": ("+proj=utm +zone=32 +ellps=WGS84", (11.5, 46.0)),
    "equal areas": ("+proj=laea +lat_0=52 +lon_0=10 +R=6371000", (12.0, 50.0)),
}  # fmt: skip


def texts(definition):
    """The attributes of a grid mapping that programs write: WKT of either version, a PROJ string, a number."""
    crs = pyproj.CRS(definition)
    yield {"crs_wkt": crs.to_wkt("WKT2_2019")}
    yield {"spatial_ref": crs.to_wkt("WKT1_GDAL")}
    if definition.startswith("+"):
        yield {"proj4": definition}
        yield {"proj4_string": definition.replace("+proj=", "+units=m +proj=")}


@pytest.mark.parametrize("name", MAPS)
def test_a_kilometre_on_the_map_is_as_long_as_pyproj_says(name):
    definition, (longitude, latitude) = MAPS[name]
    projection = pyproj.Proj(definition)
    x, y = projection(longitude, latitude)
    factors = projection.get_factors(longitude, latitude)
    expected = 1.0 if name == "equal areas" else (factors.parallel_scale * factors.meridional_scale) ** 0.5
    for attributes in texts(definition):
        assert map_scale(attributes, y / 1000, x / 1000) == pytest.approx(expected, rel=0.008), attributes


@pytest.mark.parametrize("attributes", [{"epsg_code": "EPSG:3857"}, {"spatial_ref": "EPSG:3857"}, {"epsg": 3857}])
def test_web_mercator_is_known_by_its_number(attributes):
    assert map_scale(attributes, 5_012_341.66 / 1000, 200.0) == pytest.approx(1.325, abs=0.002)  # 1 / cos 41 degrees


@pytest.mark.parametrize("attributes", [{}, {"crs_wkt": ""}, {"proj4": "+proj=geos +h=35785831"}, {"spatial_ref": "EPSG:4326"}])
def test_other_texts_leave_the_map_as_it_is(attributes):
    assert map_scale(attributes, 5000.0, 200.0) == 1.0
