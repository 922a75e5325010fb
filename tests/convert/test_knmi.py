"""KNMI's newer files: the earth in metres, and images of other parameters."""

import numpy as np
import pytest
from makers.originals import counts, write_knmi

from nowcast.convert.formats import knmi
from nowcast.convert.original import Options
from nowcast.errors import DataError

h5py = pytest.importorskip("h5py")
pytest.importorskip("pyproj")


def changed(path, change, **options):
    write_knmi(path, counts(), **options)
    with h5py.File(path, "a") as file:
        change(file)
    return path


def test_an_earth_in_metres_beside_units_of_km(tmp_path):
    """Newer real-time sums and nowcasts state their map like this; its first row is at 55.97 degrees north."""
    text = b"+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378137 +b=6356752 +x_0=0 +y_0=0 +units=km"
    path = changed(tmp_path / "a.h5", lambda file: file["geographic/map_projection"].attrs.update(projection_proj4_params=text))
    (newer,) = knmi.scan(path, Options())
    (older,) = knmi.scan(write_knmi(tmp_path / "b.h5", counts()), Options())
    np.testing.assert_allclose(newer.series.place.degrees(), older.series.place.degrees(), atol=1e-5)
    assert newer.series.place.degrees()[1][0, 0] == pytest.approx(55.97, abs=0.01)


@pytest.mark.parametrize("parameter", ["RAIN_RATE_[MM/H]", "ECHO_TOP_HEIGHT_[KM]"])
def test_a_chosen_image_of_another_parameter_is_refused(tmp_path, parameter):
    """It was read as a sum in mm."""
    path = write_knmi(tmp_path / "a.h5", counts(), parameter=parameter)
    with pytest.raises(DataError, match=r"Expected an image of \[MM\] or \[DBZ\]"):
        knmi.scan(path, Options("image1"))
