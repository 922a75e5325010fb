"""The importers of pysteps, another reader of the same original files, give the same rain at the same places."""

import numpy as np
import pytest
from makers import command

from nowcast.netcdf.opening import open_records

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # pysteps leaves files open
]
pyproj = pytest.importorskip("pyproj")
# folder of originals -> name of the importer, its arguments, a and b of Z = a R^b
CASES = {
    "knmi_hdf5": ("knmi_hdf5", {"qty": "ACRR", "accutime": 5.0, "pixelsize": 1000.0}, {}),
    "odim_hdf5": ("odim_hdf5", {"qty": "RATE"}, {}),
    "mch_gif": ("mch_gif", {"product": "AQC", "unit": "mm", "accutime": 5.0}, {}),
    "fmi_pgm_gz": ("fmi_pgm", {"gzipped": True}, {"zr_a": 223.0, "zr_b": 1.53}),
    "bom_netcdf": ("bom_rf3", {}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_pysteps_reads_the_same(shared, tmp_path, name):
    importers = pytest.importorskip("pysteps.io.importers", exc_type=ImportError)
    importer, arguments, relation = CASES[name]
    path = sorted((shared / "radar/raw" / name).iterdir())[0]
    code, _, err = command("convert", path, "--output", tmp_path, "--processes", 1)
    assert code == 0, err
    (record,) = open_records([tmp_path], **relation)
    field, _, about = getattr(importers, f"import_{importer}")(str(path), **arguments)
    rates = in_mm_per_hour(np.ma.filled(field, np.nan).squeeze(), about)
    np.testing.assert_array_equal(np.isnan(record.read([0])[0]), np.isnan(rates))
    np.testing.assert_allclose(record.read([0])[0], rates, rtol=2e-6, atol=2e-3 if about["unit"] == "dBZ" else 1e-5)
    if name != "bom_netcdf":  # of BoM pysteps takes the centres of the outer cells for their edges
        np.testing.assert_allclose(south_west(record.grid), corner(about), atol=2e-4)


def in_mm_per_hour(field, about):
    """The rain rate (y, x), rows from the north, of what an importer gave."""
    assert about["yorigin"] == "upper"
    if about["unit"] == "dBZ":
        return (10 ** (field / 10) / about["zr_a"]) ** (1 / about["zr_b"])
    return field * 60 / about["accutime"] if about["unit"] == "mm" else field


def corner(about):
    """Longitude and latitude of the outer corner in the south-west that an importer tells."""
    factor = 1000.0 if about["cartesian_unit"] == "km" and "+a=6378137" in about["projection"] else 1.0
    return pyproj.Proj(about["projection"])(about["x1"] * factor, about["y1"] * factor, inverse=True)


def south_west(grid):
    """Longitude and latitude of the outer corner of a grid in the south-west."""
    factor = 1000.0 if grid.y_attributes.get("units") == "km" else 1.0
    x, y = (factor * (axis.min() - abs(axis[1] - axis[0]) / 2) for axis in (grid.x, grid.y))
    mapping = grid.mapping_attributes
    projection = pyproj.Proj(mapping["proj4"]) if "proj4" in mapping else pyproj.Proj(pyproj.CRS.from_cf(mapping))
    return projection(x, y, inverse=True)
