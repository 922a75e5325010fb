"""Conversions of real original files equal the records that were decoded from them by other code."""

import numpy as np
import pytest
from makers import command

from nowcast.netcdf.opening import open_records

pytestmark = [pytest.mark.usefixtures("cache"), pytest.mark.slow]
pytest.importorskip("pyproj")
# folder of originals -> the record, its packing's step (mm/h), packages that are needed, and a and b of Z = a R^b
CASES = {
    "knmi_hdf5": ("knmi/20100826.nc", 0.0, ("h5py",), {}),
    "odim_hdf5": ("opera/20180824_central_europe.nc", 0.01, ("h5py",), {}),
    "mch_gif": ("mch/20150515.nc", 0.01, (), {}),
    "fmi_pgm_gz": ("fmi/20160928.nc", 0.01, (), {"zr_a": 223.0, "zr_b": 1.53}),
    "bom_netcdf": ("bom/melbourne_20180616.nc", 0.0, (), {}),
    "mrms_grib2": ("mrms/20190610_southeast.nc", 0.0, ("eccodes",), {}),
    "radolan_ry_bin": ("dwd/ry_20200101_dry.nc", 0.0, (), {}),
    "radklim_yw_bin": ("dwd/yw_20170816.nc", 0.0, (), {}),
    "meteonet_npz": ("meteofrance/se_201608_gappy.nc", 0.0, (), {}),
    "openmrg_netcdf": ("smhi/gothenburg_20150827.nc", 0.01, (), {}),
}
BOXES = {"mrms_grib2": "-83,27.18,-77.88,32.3"}  # the record is a part of the grid


@pytest.mark.parametrize("name", CASES)
def test_a_conversion_equals_the_record(shared, tmp_path, name):
    known, step, packages, relation = CASES[name]
    for package in packages:
        pytest.importorskip(package)
    box = ["--box", BOXES[name]] if name in BOXES else []
    code, _, err = command("convert", shared / "radar/raw" / name, "--output", tmp_path, "--processes", 1, *box)
    assert code == 0, err
    (mine,), (other,) = open_records([tmp_path], **relation), open_records([shared / "radar" / known])
    common = np.intersect1d(mine.times, other.times)
    assert len(common) == len(mine)
    first, last = ({time: position for position, time in enumerate(record.times)} for record in (mine, other))
    for time in common[[0, -1]]:
        made, expected = mine.read([first[time]])[0], other.read([last[time]])[0]
        made = made[part(mine.grid, other.grid)]
        assert made.shape == expected.shape
        if name == "bom_netcdf":  # beyond the radar's range the record is missing, and the original is not
            made = np.where(np.isnan(expected), np.nan, made)
        np.testing.assert_array_equal(np.isnan(made), np.isnan(expected))
        assert np.nanmax(np.abs(made - expected)) <= 0.5 * step + 1e-6
    assert_same_places(mine.grid, other.grid, part(mine.grid, other.grid))


def part(whole, window):
    """The rows and columns of a grid that a smaller one on the same map covers, rows from the north."""
    if whole.shape == window.shape:
        return slice(None), slice(None)
    y, x = whole.y[:: -1 if whole.y_ascending else 1], whole.x
    row, column = np.abs(y - window.y.max()).argmin(), np.abs(x - window.x[0]).argmin()
    return slice(row, row + window.shape[0]), slice(column, column + window.shape[1])


def assert_same_places(mine, other, chosen):
    """Assert that cells lie within a hundredth of a cell on earth; the false easting of a map may be another."""
    import pyproj

    found = []
    for grid, (rows, columns) in ((mine, chosen), (other, (slice(None), slice(None)))):
        y, x = grid.y[:: -1 if grid.y_ascending else 1][rows], grid.x[columns]
        factor = 1000.0 if grid.y_attributes.get("units") == "km" else 1.0
        corners = np.meshgrid(x[[0, -1]] * factor, y[[0, -1]] * factor)
        mapping = grid.mapping_attributes
        if grid.rows.kind == "latitude":
            found.append(corners)
        else:
            projection = pyproj.Proj(mapping["proj4"]) if "proj4" in mapping else pyproj.Proj(pyproj.CRS.from_cf(mapping))
            found.append(projection(*corners, inverse=True))
    np.testing.assert_allclose(found[0], found[1], atol=2e-4)
