"""Original files of every format become records with their values, times, places, and missing and dry cells apart."""

import numpy as np
import pytest
from makers import command
from makers.originals import (
    COLOURS,
    LAEA,
    START,
    TABLE,
    converted,
    counts,
    stored,
    write_fmi,
    write_geotiff,
    write_image,
    write_knmi,
    write_mch,
    write_meteonet,
    write_odim,
    write_radolan,
)

from nowcast.convert.formats import geotiff, radolan
from nowcast.convert.original import Options
from nowcast.convert.place import projection_of
from nowcast.convert.sniffing import FORMATS, format_of
from nowcast.errors import DataError

pytestmark = pytest.mark.usefixtures("cache")
pytest.importorskip("pyproj")


def test_odim_corners_that_are_centres_of_cells(tmp_path):
    """The size of the cells tells corners at the centres of the outer cells from ODIM's own, at their outer corners."""
    pytest.importorskip("h5py")
    on_map = projection_of(LAEA)
    (west, south), (east, north) = (on_map(x, y, inverse=True) for x, y in ((1000, -23000), (27000, -1000)))
    where = {"LL_lon": west, "LL_lat": south, "UR_lon": east, "UR_lat": north}
    found = []
    for name, corners in (("centres", where), ("outer", None)):
        (tmp_path / name).mkdir()
        found.append(converted(write_odim(tmp_path / name / "a.h5", counts(), where=corners)))
    for axis in ("x", "y"):
        np.testing.assert_allclose(getattr(found[0].grid, axis), getattr(found[1].grid, axis), atol=1e-3)


@pytest.mark.parametrize("level", ["root", "dataset1", "data1"])
def test_odim_rates_keep_their_counts(tmp_path, level):
    pytest.importorskip("h5py")
    field = counts()
    field[0, :5] = 65535
    path = write_odim(tmp_path / "a.hdf", field, level=level)
    assert format_of(path) == "odim"
    record = converted(path)
    expected = np.where(field == 65535, np.nan, field * 0.1)
    np.testing.assert_allclose(record.read([0])[0], expected, rtol=1e-6)
    assert record.times == [START]
    assert stored(record)[0].dtype == np.uint16
    np.testing.assert_array_equal(stored(record)[0][0], field)
    assert (record.grid.x[0], record.grid.y[0], record.grid.y[-1]) == (1000.0, -1000.0, -23000.0)
    assert record.grid.mapping_attributes["grid_mapping_name"] == "lambert_azimuthal_equal_area"


def test_odim_sums_are_divided_by_their_interval_and_timed_at_its_end(tmp_path):
    pytest.importorskip("h5py")
    field = counts()
    record = converted(write_odim(tmp_path / "a.h5", field, quantity="ACRR", gain=0.01, minutes=15, sums=15))
    np.testing.assert_allclose(record.read([0])[0], field * 0.01 * 4, rtol=1e-6)
    assert record.times == [START + np.timedelta64(15, "m")]
    assert stored(record)[1]["cell_methods"] == "time: mean (comment: of sums over 15 minutes)"


def test_odim_reflectivity_stays_reflectivity_and_no_echo_is_dry(tmp_path):
    pytest.importorskip("h5py")
    field = counts().astype(np.uint8)
    field[1] = 255
    path = write_odim(tmp_path / "a.h5", field, quantity="DBZH", gain=0.5, offset=-32.0, nodata=255.0, undetect=0.0)
    record = converted(path)
    rates = record.read([0])[0]
    expected = (10 ** ((field * 0.5 - 32) / 10) / 200) ** (1 / 1.6)
    expected[field == 0] = 0
    expected[field == 255] = np.nan
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    numbers, attributes = stored(record)
    np.testing.assert_array_equal(numbers[0], field)
    assert (attributes["_FillValue"], attributes["_Undetect"], attributes["units"]) == (255, 0, "dBZ")


@pytest.mark.parametrize(
    ("kind", "nodata", "undetect"), [("u1", 255, 0), ("i1", -1, 0), ("i1", 255, 0), (">i2", -1, 0), ("i2", 65535, 0)]
)
def test_odim_signed_integers_with_codes_of_unsigned_ones_are_these(tmp_path, kind, nodata, undetect):
    pytest.importorskip("h5py")
    unsigned = np.dtype(kind.replace("i", "u"))
    most, gain = np.iinfo(unsigned).max, 89 / np.iinfo(unsigned).max  # up to 57 dBZ
    field = np.linspace(0, most, 24 * 30).astype(unsigned).reshape(24, 30)
    codes = {"gain": gain, "offset": -32.0, "nodata": float(nodata), "undetect": float(undetect)}
    path = write_odim(tmp_path / "a.h5", field.view(kind), quantity="DBZH", **codes)
    expected = (10 ** ((field * gain - 32) / 10) / 200) ** (1 / 1.6)
    expected[field == 0], expected[field == most] = 0, np.nan
    np.testing.assert_allclose(converted(path).read([0])[0], expected, rtol=1e-4)


@pytest.mark.parametrize(("nodata", "undetect"), [(255.0, -128.0), (-2.0, 255.0)])
def test_odim_codes_of_both_signs_are_those_of_unsigned_numbers(tmp_path, nodata, undetect):
    pytest.importorskip("h5py")
    field = np.arange(1, 241, dtype=np.uint8).reshape(12, 20)
    field[0, :2] = int(nodata) % 256, int(undetect) % 256
    codes = {"gain": 0.25, "offset": -32.0, "nodata": nodata, "undetect": undetect}
    rates = converted(write_odim(tmp_path / "a.h5", field.view(np.int8), quantity="DBZH", **codes)).read([0])[0]
    np.testing.assert_array_equal(np.isnan(rates), field == int(nodata) % 256)
    np.testing.assert_array_equal(rates[field == int(undetect) % 256], 0)


def test_odim_signed_integers_stay_signed(tmp_path):
    pytest.importorskip("h5py")
    field = np.arange(-120, 120, dtype=np.int8).reshape(12, 20)
    codes = {"gain": 0.25, "offset": 32.0, "nodata": -128.0, "undetect": -127.0}
    rates = converted(write_odim(tmp_path / "a.h5", field, quantity="DBZH", **codes)).read([0])[0]
    np.testing.assert_allclose(rates, (10 ** ((field * 0.25 + 32) / 10) / 200) ** (1 / 1.6), rtol=1e-4)


def test_odim_floats_with_numbers_for_missing_and_dry(tmp_path):
    pytest.importorskip("h5py")
    field = counts() / 7.0
    field[0, 0], field[0, 1], field[0, 2] = -9999000.0, -8888000.0, np.nan
    record = converted(write_odim(tmp_path / "a.h5", field, gain=1.0, nodata=-9999000.0, undetect=-8888000.0))
    expected = field.astype(np.float32)
    expected[0, :3] = np.nan, 0, np.nan
    np.testing.assert_array_equal(record.read([0])[0], expected)


def test_odim_counts_whose_dry_number_is_not_zero_rain(tmp_path):
    """Undetect 65534 is stored as the count of 0 mm/h, so that no reader takes it for 6553 mm/h."""
    pytest.importorskip("h5py")
    field = counts()
    field[2, 2] = 65534
    record = converted(write_odim(tmp_path / "a.h5", field, undetect=65534.0))
    assert record.read([0])[0, 2, 2] == 0
    assert stored(record)[0][0, 2, 2] == 0


def test_odim_on_longitudes_and_latitudes(tmp_path):
    where = {"projdef": np.bytes_("+proj=longlat +datum=WGS84"), "xscale": 0.02, "yscale": 0.01}
    where |= {"LL_lon": 5.0, "LL_lat": 47.0, "UR_lon": 5.28, "UR_lat": 47.12}
    record = converted(write_odim(tmp_path / "a.h5", counts(shape=(12, 14)), where=where))
    assert (record.grid.rows.kind, record.grid.columns.kind) == ("latitude", "longitude")
    np.testing.assert_allclose([*record.grid.x[:2], *record.grid.y[:2]], [5.01, 5.03, 47.115, 47.105], atol=1e-9)
    np.testing.assert_allclose(record.grid.spacing_km, (1.112, 1.515), rtol=5e-3)


def test_odim_on_a_map_in_kilometres(tmp_path):
    metres = converted(write_odim(tmp_path / "a.h5", counts())).grid
    (tmp_path / "km").mkdir()
    where = {"projdef": np.bytes_(LAEA.replace("=m ", "=km ")), "xscale": 2.0, "yscale": 2.0}
    record = converted(write_odim(tmp_path / "km/a.h5", counts(), where=where))
    np.testing.assert_allclose(record.grid.x, metres.x / 1000, atol=1e-6)
    np.testing.assert_allclose(record.grid.spacing_km, metres.spacing_km, rtol=1e-6)


def test_odim_of_several_times_is_refused(tmp_path):
    import h5py

    path = write_odim(tmp_path / "a.h5", counts())
    with h5py.File(path, "a") as file:
        file.copy("dataset1", "dataset2")
    assert converted(path).grid.shape == counts().shape, "a second field of the same time is left out"
    with h5py.File(path, "a") as file:
        file["dataset2/what"].attrs["endtime"] = np.bytes_("235500")
    code, _, err = command("convert", path, "--output", tmp_path / "other")
    assert code == 3
    assert "a.h5 has RATE for 2 times" in err


def test_odim_chooses_the_quantity_asked_for(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = write_odim(tmp_path / "a.h5", counts())
    with h5py.File(path, "a") as file:
        file.copy("dataset1", "dataset2")
        file["dataset2/data1/what"].attrs.update({"quantity": np.bytes_("DBZH"), "offset": -10.0})
    assert converted(path, "--variable", "DBZH").variable == "reflectivity"


def test_knmi_sums(tmp_path):
    pytest.importorskip("h5py")
    field = counts()
    field[0] = 65535
    path = write_knmi(tmp_path / "a.h5", field)
    assert format_of(path) == "knmi"
    record = converted(path)
    np.testing.assert_allclose(record.read([0])[0], np.where(field == 65535, np.nan, field * 0.12), rtol=1e-6)
    assert record.times == [START + np.timedelta64(5, "m")]
    assert (record.grid.x[0], record.grid.y[0]) == (500.0, -3650500.0)
    assert record.grid.mapping_attributes["semi_major_axis"] == 6378137.0


def test_knmi_reflectivity_has_zero_for_no_echo(tmp_path):
    pytest.importorskip("h5py")
    field = counts().astype(np.uint8)
    field[0] = 255
    told = {"formula": "GEO = 0.500000 * PV + -32.000000", "parameter": "REFLECTIVITY_[DBZ]", "missing": 0, "outside": 255}
    path = write_knmi(tmp_path / "a.h5", field, **told)
    rates = converted(path).read([0])[0]
    assert np.isnan(rates[0]).all()
    assert (rates[-3:, :4] == 0).all()
    np.testing.assert_allclose(rates[1], (10 ** ((field[1] * 0.5 - 32) / 10) / 200) ** (1 / 1.6), rtol=1e-5)


def radolan_field():
    field = np.tile(counts(shape=(9, 10)), (100, 90))
    field[0, :4] = 0x29C4, 0x8005, 0x4003, 0x1007  # no data, clutter, negative, from a second source
    return field


def test_radolan_flags_and_rows_from_the_south(tmp_path):
    path = write_radolan(tmp_path / "raa01-ry_10000-2006010005-dwd---bin.gz", radolan_field(), minutes=5)
    assert format_of(path) == "radolan"
    record = converted(path)
    rates = record.read([0])[0][::-1]
    assert record.times == [START + np.timedelta64(5, "m")]
    assert np.isnan(rates[0, :3]).all()
    assert rates[0, 3] == np.float32(7 * 0.12)
    np.testing.assert_allclose(rates[1:], radolan_field()[1:] * 0.12, rtol=1e-6)
    assert stored(record)[0][0, 0, 2] == -3
    assert record.grid.y_ascending
    assert (record.grid.x[0], record.grid.y[0]) == (-522962.2, -4658145.0)


def test_radolan_hours_and_bytes_of_reflectivity(tmp_path):
    (tmp_path / "rw").mkdir()
    record = converted(write_radolan(tmp_path / "rw" / "rw.bin", radolan_field(), product="RW", precision=-1, interval="  60"))
    assert record.read([0])[0][-1, 3] == np.float32(0.7)
    field = radolan_field().astype(np.uint8)
    field[0, :3] = 250, 249, 0
    record = converted(write_radolan(tmp_path / "rx.bin", field, product="RX", precision=0, byte=True))
    rates = record.read([0])[0][::-1]
    assert np.isnan(rates[0, :2]).all()
    np.testing.assert_allclose(rates[5, 5], (10 ** ((field[5, 5] / 2 - 32.5) / 10) / 200) ** (1 / 1.6), rtol=1e-5)


@pytest.mark.parametrize(("version", "shape", "middle"), [(3, (900, 900), (449, 449)), (5, (900, 900), (449, 449)),
                                                          (5, (1100, 900), (369, 549)), (3, (1200, 1100), (469, 599)),
                                                          (5, (1200, 1100), (469, 599))])  # fmt: skip
def test_radolan_grids_meet_at_9_east_51_north_on_the_earth_of_their_version(tmp_path, version, shape, middle):
    path = write_radolan(tmp_path / "a.bin", np.zeros(shape, np.uint16), version=version)
    (original,) = radolan.scan(path, Options())
    place, (column, row) = original.series.place, middle
    corner = place.x.values[column] + 500, place.y.values[row] + 500  # of the cell south-west of the point
    longitude, latitude = projection_of(place.projection)(*corner, inverse=True)
    np.testing.assert_allclose([longitude, latitude], [9, 51], atol=2e-6)
    assert ("+R=6370040" in place.projection) == (version == 3)


def test_a_radolan_forecast_is_no_observation(tmp_path):
    path = write_radolan(tmp_path / "rv.bin", radolan_field(), product="RV", lead=30)
    code, _, err = command("convert", path, "--output", tmp_path / "archive")
    assert code == 3
    assert "1 field of 1 file is a forecast, the first 30 minutes ahead" in err


def test_meteoswiss_classes_stay_apart(tmp_path):
    classes = np.tile(np.arange(256), 1775).reshape(640, 710)
    path = write_mch(tmp_path / "AQC201530000.gif", classes)
    assert format_of(path) == "mch-gif"
    record = converted(path)
    levels = np.unique(stored(record)[0])
    assert len(levels) == 251  # 0, 249 classes of rain, and missing
    rates = record.read([0])[0]
    assert np.isnan(rates[classes == 255]).all()
    expected = (10 ** ((100 - 71.5) / 20) / 316) ** (1 / 1.5) * 12
    np.testing.assert_allclose(rates[classes == 100], expected, rtol=1e-6)


def test_fmi_pgm(tmp_path):
    field = counts(shape=(30, 40)).astype(np.uint8)
    field[:2] = 255
    path = write_fmi(tmp_path / "202006010000.pgm.gz", field)
    assert format_of(path) == "fmi-pgm"
    record = converted(path)
    numbers, attributes = stored(record)
    np.testing.assert_array_equal(numbers[0], field)
    assert (attributes["scale_factor"], attributes["add_offset"]) == (0.5, -32.0)
    assert np.isnan(record.read([0])[0][:2]).all()
    np.testing.assert_allclose(record.grid.spacing_km, (1.02, 1.02), atol=0.03)


def test_fmi_pgm_lies_where_its_header_says_to_the_millimetre(tmp_path):
    """The meridian and the parallel of the map were rounded to six digits."""
    map_of = {"longitude": 24.4401336, "true": 61.1234567, "corner": (18.6, 57.93)}
    record = converted(write_fmi(tmp_path / "202006010000.pgm.gz", counts(), **map_of))
    on_map = pytest.importorskip("pyproj").Proj(proj="stere", lat_0=90, lon_0=24.4401336, lat_ts=61.1234567, R=6371288)
    left, bottom = on_map(*map_of["corner"])
    np.testing.assert_allclose([record.grid.x[0], record.grid.y[-1]], [left + 499.75, bottom + 499.75], rtol=0, atol=1e-3)
    assert record.grid.mapping_attributes["straight_vertical_longitude_from_pole"] == 24.4401336


@pytest.mark.parametrize(("east_north", "is_told"), [(None, False), ((20.0, 60.0), True)])
def test_fmi_pgm_whose_corners_disagree_is_told(tmp_path, east_north, is_told):
    path = write_fmi(tmp_path / "202006010000.pgm.gz", counts(), east_north=east_north)
    code, _, err = command("convert", path, "--output", tmp_path / "out")
    assert (code, "from where the cells of metersperpixel end; they are counted from bottomleft" in err) == (0, is_told)


@pytest.mark.parametrize("protocol", [0, 2, 3, 4])
def test_meteonet_times_are_read_from_any_pickle_without_running_it(tmp_path, protocol):
    frames = np.zeros((3, 515, 784), np.int16)
    frames[:, 3, 4], frames[:, 5, 6] = (1, 2, 3), -1
    path = write_meteonet(tmp_path / "rainfall_SE.npz", frames, minutes=[0, 5, 30], protocol=protocol)
    assert format_of(path) == "meteonet"
    record = converted(path)
    assert (record.times - START).astype(int).tolist() == [0, 300, 1800]
    fields = record.read([0, 1, 2])
    np.testing.assert_allclose(fields[:, 3, 4], [0.12, 0.24, 0.36], rtol=1e-6)
    assert np.isnan(fields[:, 5, 6]).all()
    np.testing.assert_allclose([record.grid.y[0], record.grid.x[0]], [46.245, 2.005])


def test_geotiff_bands_are_times(tmp_path):
    pytest.importorskip("rasterio")
    bands = np.stack([counts(seed=n) for n in (0, 1)])
    bands[:, 0] = 65535
    path = write_geotiff(
        tmp_path / "a.tif", bands, descriptions=["2020-06-01T00:00", "2020-06-01T00:05"], scale=0.01, nodata=65535, units="mm/h"
    )
    assert format_of(path) == "geotiff"
    record = converted(path)
    np.testing.assert_allclose(record.read([0, 1]), np.where(bands == 65535, np.nan, bands * 0.01), rtol=1e-6)
    assert stored(record)[0].dtype == np.uint16
    assert (record.grid.x[0], record.grid.y[0]) == (100500.0, 6999500.0)
    assert record.grid.mapping_attributes["grid_mapping_name"] == "transverse_mercator"


@pytest.mark.parametrize("inside", [True, False])
def test_a_geotiff_is_missing_where_its_mask_says_so(tmp_path, inside):
    rasterio = pytest.importorskip("rasterio")
    field = counts()
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
        path = write_geotiff(tmp_path / "202006010010.tif", field[None], units="mm/h")
        with rasterio.open(path, "r+") as file:
            file.write_mask(field > 100)
    record = converted(path)
    np.testing.assert_array_equal(record.read([0])[0], np.where(field > 100, field, np.nan).astype(np.float32))


def test_a_geotiff_of_several_images_is_refused(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    path = write_geotiff(tmp_path / "202006010010.tif", counts()[None], units="mm/h")
    with rasterio.open(path) as file:
        profile = file.profile
    with rasterio.open(path, "w", append_subdataset=True, **profile) as file:
        file.write(counts(seed=1)[None])
    with pytest.raises(DataError, match="holds 2 images"):
        geotiff.scan(path, Options())


def test_a_geotiff_in_grads_from_paris_is_refused(tmp_path):
    pytest.importorskip("rasterio")
    path = write_geotiff(tmp_path / "202006010010.tif", counts()[None], units="mm/h", crs="EPSG:4807")
    with pytest.raises(DataError, match="has other longitudes or latitudes"):
        geotiff.scan(path, Options())


def test_a_geotiff_has_the_time_of_its_name_and_not_that_of_its_making(tmp_path):
    pytest.importorskip("rasterio")
    field = counts()[None]
    path = write_geotiff(tmp_path / "202006010010.tif", field, units="mm/h", TIFFTAG_DATETIME="2021:02:03 04:05:06")
    assert converted(path).times == [START + np.timedelta64(10, "m")]
    (tmp_path / "unnamed").mkdir()
    path = write_geotiff(tmp_path / "unnamed/rain.tif", field, units="mm/h", TIFFTAG_DATETIME="2020:06:01 00:20:00")
    assert converted(path).times == [START + np.timedelta64(20, "m")]


@pytest.mark.parametrize(("tag", "minutes"), [("2020-06-01T02:05:00+02:00", 5), ("2020-05-31T19:05:00-05:00", 5),
                                              ("2020-06-01 00:05:00Z", 5)])  # fmt: skip
def test_a_geotiff_with_a_time_of_another_zone_has_it_in_utc(tmp_path, tag, minutes):
    pytest.importorskip("rasterio")
    path = write_geotiff(tmp_path / "rain.tif", counts()[None], units="mm/h", TIMESTAMP=tag)
    assert converted(path).times == [START + np.timedelta64(minutes, "m")]


def test_a_geotiff_with_a_zone_told_by_name_is_refused(tmp_path):
    pytest.importorskip("rasterio")
    path = write_geotiff(tmp_path / "rain.tif", counts()[None], units="mm/h", time="2016-09-28 15:00 CEST")
    code, _, err = command("convert", path, "--output", tmp_path / "out")
    told = f"error: {path} has the time '2016-09-28 15:00 CEST' in a named time zone.\nExpected UTC, or an offset"
    assert (code, told in err) == (3, True)


def test_geotiff_of_packed_reflectivity_with_the_time_in_its_name(tmp_path):
    pytest.importorskip("rasterio")
    field = counts().astype(np.uint8)
    path = write_geotiff(tmp_path / "202006010010_FIN-DBZ.tif", field[None], nodata=255)
    record = converted(path, "--units", "0.5 dBZ - 32")
    np.testing.assert_allclose(record.read([0])[0, 1], (10 ** ((field[1] * 0.5 - 32) / 10) / 200) ** (1 / 1.6), rtol=1e-5)
    assert record.times == [START + np.timedelta64(10, "m")]


@pytest.mark.parametrize(("name", "mode"), [("rain_202006010005.png", "P"), ("rain_202006010005.png", "RGB"),
                                            ("rain_202006010005.png", "RGBA"), ("rain_202006010005.gif", "P")])  # fmt: skip
def test_images_by_a_table_of_colours(tmp_path, name, mode):
    numbers = np.arange(12 * 14).reshape(12, 14) % len(COLOURS)
    path = write_image(tmp_path / name, numbers, mode=mode)
    (tmp_path / "table.toml").write_text(TABLE)
    assert format_of(path) == "image"
    record = converted(path, "--colours", tmp_path / "table.toml")
    np.testing.assert_array_equal(record.read([0])[0], np.array([0, 0.5, 12.5, np.nan, np.nan], np.float32)[numbers])
    assert record.times == [START + np.timedelta64(5, "m")]
    assert (record.grid.x[0], record.grid.y[0]) == (600500.0, 5711500.0)


@pytest.mark.parametrize(("line", "expected"), [("", np.nan), ("transparent = 0.25\n", 0.25)])
@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_transparent_pixels_are_missing_or_what_the_table_says(tmp_path, line, expected, mode):
    from PIL import Image

    numbers = np.arange(12 * 14).reshape(12, 14) % 3  # the first colour is transparent
    path = write_image(tmp_path / "rain_202006010005.png", numbers, mode=mode)
    with Image.open(path) as image:
        image.load()
    if mode == "P":
        image.save(path, transparency=0)
    else:
        image.putalpha(Image.fromarray(np.where(numbers == 0, 0, 255).astype(np.uint8)))
        image.save(path)
    (tmp_path / "table.toml").write_text(line + TABLE)
    record = converted(path, "--colours", tmp_path / "table.toml")
    np.testing.assert_array_equal(record.read([0])[0], np.array([expected, 0.5, 12.5], np.float32)[numbers])


def test_every_format_is_a_choice_of_the_command():
    from nowcast.commands.arguments_of_convert import InputFormat

    assert {name.value for name in InputFormat} == {"auto", *FORMATS}
