"""Grids on maps that a PROJ string, WKT or an EPSG number alone describes are told apart by it."""

import numpy as np
import pytest
from makers.places import on_map, placed
from makers.stored import edit

from nowcast.netcdf.opening import open_records
from nowcast.netcdf.places.comparison import difference

WKT = 'PROJCS["a",PROJECTION["Azimuthal_Equal_Area"],PARAMETER["latitude_of_center",{}],PARAMETER["longitude_of_center",5]]'
OTHERS = {
    "PROJ": ({"proj4": "+proj=laea +lat_0=50 +lon_0=5"}, {"proj4": "+proj=laea +lat_0=51 +lon_0=5"}, "lat_0 50.0 in place of"),
    "another map": (
        {"proj4_params": "+proj=laea +lat_0=50"},
        {"proj4_params": "+proj=aea +lat_0=50"},
        "proj laea in place of aea",
    ),
    "UTM": ({"proj4": "+proj=utm +zone=31"}, {"proj4": "+proj=utm +zone=32"}, "zone 31 in place of 32"),
    "WKT": ({"crs_wkt": WKT.format(50)}, {"spatial_ref": WKT.format(51)}, "latitude of center 50.0 in place of 51.0"),
    "EPSG": ({"spatial_ref": "EPSG:3035"}, {"spatial_ref": "EPSG:3067"}, "EPSG 3035 in place of 3067"),
}
ALIKE = {
    "order and numbers": (
        {"proj4": "+proj=laea +lat_0=50 +lon_0=5"},
        {"proj4_params": "+lon_0=365 +units=m +lat_0=50.0 +proj=laea"},
    ),
    "one says more": ({"proj4": "+proj=laea +lat_0=50 +x_0=0 +R=6371000"}, {"proj4": "+proj=laea +lat_0=50"}),
    "WKT and PROJ": ({"crs_wkt": WKT.format(50)}, {"proj4": "+proj=laea +lat_0=50 +lon_0=5"}),
    "a former number": ({"spatial_ref": "EPSG:900913"}, {"spatial_ref": "EPSG:3857"}),
}


def write_two(folder, mappings):
    for number, mapping in enumerate(mappings):
        path = placed(folder / f"{number}.nc", on_map(), mapping=mapping, grid_mapping="crs")
        with edit(path) as file:
            file["time"][:] = file["time"][:] + 600 * number
    return open_records([folder])


@pytest.mark.parametrize("name", OTHERS)
def test_another_projection_is_another_series_and_told(tmp_path, name):
    *mappings, told = OTHERS[name]
    records = write_two(tmp_path, mappings)
    assert [len(record) for record in records] == [2, 2]
    assert told in difference(records[0].grid, records[1].grid)


@pytest.mark.parametrize("name", ALIKE)
def test_the_same_projection_in_other_words_is_one_series(tmp_path, name):
    (record,) = write_two(tmp_path, ALIKE[name])
    assert np.diff(record.times).astype(int).tolist() == [300] * 3
