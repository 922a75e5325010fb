"""KNMI's newer files: the earth in metres, nowcasts in one file with their analysis, and images of other parameters."""

import numpy as np
import pytest
from makers import command, expect
from makers.originals import START, counts, write_knmi

from nowcast.convert.formats import knmi
from nowcast.convert.original import Options
from nowcast.errors import DataError

h5py = pytest.importorskip("h5py")
pytest.importorskip("pyproj")
pytestmark = pytest.mark.usefixtures("cache")


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


def of_a_nowcast(file):
    """Make of a file one with three images, valid at the start, 5 and 10 minutes later."""
    for number in (1, 2, 3):
        if number > 1:
            file.copy("image1", f"image{number}")
        text = f"01-JUN-2020;00:{5 * number:02d}:00.000".encode()
        file[f"image{number}"].attrs["image_datetime_valid"] = text
    file["overview"].attrs["product_datetime_start"] = b"01-JUN-2020;00:05:00.000"
    file["overview"].attrs["product_datetime_end"] = b"01-JUN-2020;00:15:00.000"


@pytest.mark.parametrize("variable", [None, "image2"])
def test_a_nowcast_is_a_forecast(tmp_path, variable):
    originals = knmi.scan(changed(tmp_path / "a.h5", of_a_nowcast), Options(variable))
    assert [each.forecast for each in originals] == [0, 5, 10]
    assert [each.time for each in originals] == [START + np.timedelta64(minutes, "m") for minutes in (5, 10, 15)]


def test_a_nowcast_is_not_converted(workplace):
    path = changed(workplace / "a.h5", of_a_nowcast)
    expect(3, "convert", path, "--output", "out", says="3 fields of 1 file are forecasts, the first 0 minutes ahead")


def test_images_are_taken_by_their_number(tmp_path):
    path = changed(tmp_path / "a.h5", lambda file: [file.copy("image1", f"image{number}") for number in (2, 10)])
    with h5py.File(path, "a") as file:
        file["image2/image_data"][...] = 77
        del file["image1"]
    (field,) = knmi.read(path, [0], Options())
    assert (field == 77).all()


@pytest.mark.parametrize("parameter", ["RAIN_RATE_[MM/H]", "ECHO_TOP_HEIGHT_[KM]"])
def test_a_chosen_image_of_another_parameter_is_refused(tmp_path, parameter):
    """It was read as a sum in mm."""
    path = write_knmi(tmp_path / "a.h5", counts(), parameter=parameter)
    with pytest.raises(DataError, match=r"Expected an image of \[MM\] or \[DBZ\]"):
        knmi.scan(path, Options("image1"))


@pytest.mark.parametrize(("parameter", "is_told"), [("RAIN_[MM]", True), ("ADJUSTMENT_FACTOR_[DB]", False)])
def test_a_second_image_of_sums_is_told(tmp_path, parameter, is_told):
    def add(file):
        file.copy("image1", "image2")
        file["image2"].attrs["image_geo_parameter"] = np.bytes_(parameter)
        file["image2/image_data"][...] = 77

    path = changed(tmp_path / "a.h5", add)
    code, _, err = command("convert", path, "--output", tmp_path / "out")
    said = "a.h5: has sums in image1 and in image2 for one time: the first is taken; choose with --variable, such as image2"
    assert (code, said in err) == (0, is_told)
    assert "for one time" not in command("convert", path, "--output", tmp_path / "two", "--variable", "image2")[2]
