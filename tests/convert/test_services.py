"""Files as weather services lay them out, made by what they document: HDF5 of MeteoSwiss and DWD, GeoTIFF of FMI, RADOLAN."""

import numpy as np
import pytest
from makers import command
from makers.cf_checker import cf_faults
from makers.originals import counts, stamp, write_geotiff, write_odim, write_radolan

from nowcast.convert.formats import geotiff, odim, radolan
from nowcast.convert.original import Options
from nowcast.convert.sniffing import format_of
from nowcast.netcdf.opening import open_records

pytestmark = pytest.mark.usefixtures("cache")
pytest.importorskip("pyproj")
SWISS = "+proj=somerc +lat_0=46.95240555555556 +lon_0=7.439583333333333 +k_0=1 +x_0=2600000 +y_0=1200000 +ellps=bessel"
# WGS 84, of the corners of MeteoSwiss' grid, as its files state them to four digits
CORNERS = {"LL_lon": 3.1688, "LL_lat": 43.6290, "UR_lon": 12.4623, "UR_lat": 49.3633}


def scanned(reader, path):
    """The only field of a file."""
    (original,) = reader.scan(path, Options())
    (field,) = reader.read(path, [original.number], Options())
    return original, original.series.storage.unpacked(field)


@pytest.mark.parametrize("datum", ["", " +towgs84=674.374,15.056,405.346,0,0,0,0"])
def test_meteoswiss_hdf5_is_on_the_swiss_grid_and_keeps_its_floats(tmp_path, datum):
    """Doubles with NaN for no data and 0 for no echo, ODIM 2.4; corners of WGS 84, from which the Swiss datum is 200 m away."""
    field = np.round(np.tile(counts(shape=(64, 71)), (10, 10)) / 16, 4)
    field[:5] = np.nan
    where = CORNERS | {"projdef": np.bytes_(SWISS + datum), "xscale": 1000.0, "yscale": 1000.0}
    path = write_odim(tmp_path / "rzc201530000vl.001.h5", field, gain=1.0, nodata=np.nan, undetect=0.0, where=where)
    assert format_of(path) == "odim"
    original, rates = scanned(odim, path)
    np.testing.assert_array_equal(rates, field.astype(np.float32))
    place = original.series.place
    np.testing.assert_allclose([place.x.first, place.y.first], [2255500, 1479500], atol=10)
    (longitude, latitude), side = (each[-1, 0] for each in place.degrees()), 0.5 / 111
    assert abs(latitude - CORNERS["LL_lat"] - side) < 0.0015  # the datum is worth 0.0016 degrees
    assert abs(longitude - CORNERS["LL_lon"] - side / np.cos(np.radians(latitude))) < 0.001


def test_meteoswiss_combiprecip_is_a_sum_of_an_hour_every_ten_minutes(tmp_path):
    for minutes in (60, 70):
        write_odim(tmp_path / f"{minutes}.h5", counts(seed=minutes) / 4, minutes=minutes, quantity="ACRR", sums=60, gain=1.0,
                   nodata=np.nan)  # fmt: skip
    code, out, _ = command("convert", tmp_path, "--output", tmp_path / "out")
    (record,) = open_records(out.split())
    assert (code, np.diff(record.times).astype(int)) == (0, [600])
    np.testing.assert_array_equal(record.read([1])[0], counts(seed=70) / 4)


def test_a_record_on_the_swiss_grid_is_valid_cf(tmp_path):
    where = CORNERS | {"projdef": np.bytes_(SWISS), "xscale": 1000.0, "yscale": 1000.0}
    path = write_odim(tmp_path / "rzc.h5", np.tile(counts(shape=(64, 71)), (10, 10)), where=where)
    out = command("convert", path, "--output", tmp_path / "out", "--processes", 1)[1]
    assert cf_faults(out.strip())[0] == []


def test_dwd_hx_keeps_its_counts_of_reflectivity(tmp_path):
    """HX: DBZH in two bytes, 0.0029 dBZ apart from -64 on, 65535 no data, 0 no echo; here a part of its 4800 × 4400 cells."""
    field = (counts() * 150).astype(np.uint16)
    field[0] = 65535
    where = {"projdef": np.bytes_("+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +a=6378137 +b=6356752.3142451802 "
                                  "+x_0=543571.83521776402 +y_0=3622213.8619310018")}  # fmt: skip
    where |= {"xscale": 250.0, "yscale": 250.0, "LL_lon": 9.0, "LL_lat": 51.0, "UR_lon": 9.0505, "UR_lat": 51.0271}
    gain = 0.00293246
    options = {"quantity": "DBZH", "gain": gain, "offset": -64.0, "where": where, "product": np.bytes_("MAX")}
    path = write_odim(tmp_path / "composite_hx_20200601_0000-hd5", field, **options)
    original, values = scanned(odim, path)
    assert (original.series.storage.kind, original.series.storage.reflectivity) == ("u2", True)
    np.testing.assert_allclose(values[1], field[1] * gain - 64, rtol=1e-5)
    assert np.isnan(values[0]).all()
    assert np.isneginf(values[-3:, :4]).all()


@pytest.mark.parametrize(("lead", "expected"), [(0, None), (5, 5.0), (120, 120.0)])
def test_dwd_nowcasts_in_hdf5_are_forecasts_but_for_the_first(tmp_path, lead, expected):
    """RV: what/date and time are those of the nowcast, dataset1/what has the interval of five minutes that ends at the lead."""
    path = write_odim(tmp_path / "rv.h5", counts(), minutes=lead, quantity="ACRR", gain=0.01)
    add_product(path, "RV_top_view", minutes=0)
    assert scanned(odim, path)[0].forecast == expected


def add_product(path, name, *, minutes):
    h5py = pytest.importorskip("h5py")
    time = stamp(minutes)
    with h5py.File(path, "a") as file:
        file["what"].attrs.update({"date": f"{time:%Y%m%d}", "time": f"{time:%H%M%S}"})
        file["dataset1/what"].attrs["prodname"] = np.bytes_(name)


FMI = (
    "<GDALMetadata>\n"
    '<Item name="Observation time" format="YYYYMMDDhhmm">202006010100</Item>\n'
    '<Item name="Quantity" unit="mm">Precipitation accumulation</Item>\n'
    '<Item name="Gain">0.010000</Item>\n<Item name="Offset">0.000000</Item>\n'
    '<Item name="Nodata">65535</Item>\n<Item name="Undetect">0</Item>\n'
    '<Item name="Accumulation time" unit="h">12</Item>\n</GDALMetadata>\n'
)
PLAIN = {"Observation time": "202006010100", "Quantity": "Precipitation accumulation", "Gain": "0.010000", "Nodata": "65535",
         "Undetect": "0", "Accumulation time": "12"}  # fmt: skip


@pytest.mark.parametrize("tags", [{"GDAL_METADATA": FMI}, PLAIN, {}], ids=["in XML", "as tags", "by its name"])
def test_fmi_sums_are_told_by_tags_or_else_by_the_name(tmp_path, tags):
    pytest.importorskip("rasterio")
    field = counts()
    field[0] = 65535
    path = write_geotiff(
        tmp_path / "202006010100_FIN-ACRR12H-3067-1KM.tif", field[None], nodata=None if tags else 65535, **tags
    )
    original, rates = scanned(geotiff, path)
    assert (str(original.time), original.series.interval) == ("2020-06-01T01:00:00", 720)
    np.testing.assert_allclose(rates, np.where(field == 65535, np.nan, field * 0.01 / 12), rtol=1e-6)
    assert original.series.product == "FIN-ACRR12H"


@pytest.mark.parametrize("tags", [{"SCALE": "0.5", "OFFSET": "-32", "UNITS": "DBZH"}, {}], ids=["by tags", "by its name"])
def test_fmi_reflectivity_has_half_decibels_and_0_for_no_echo(tmp_path, tags):
    pytest.importorskip("rasterio")
    field = counts().astype(np.uint8)
    field[0] = 255
    path = write_geotiff(tmp_path / "202006010100_FIN-DBZ-3067-250M.tif", field[None], nodata=255, **tags)
    original, values = scanned(geotiff, path)
    assert (original.series.storage.kind, original.series.interval) == ("u1", None)
    np.testing.assert_array_equal(values[1], field[1] * 0.5 - 32)
    assert np.isnan(values[0]).all()
    assert np.isneginf(values[-3:, :4]).all()


def test_fmi_rates_are_hundredths_of_mm_per_hour(tmp_path):
    pytest.importorskip("rasterio")
    path = write_geotiff(tmp_path / "202006010100_FIN-RR-3067-1KM.tif", counts()[None], nodata=65535)
    np.testing.assert_allclose(scanned(geotiff, path)[1], counts() * 0.01, rtol=1e-6)


@pytest.mark.parametrize(("product", "byte", "precision", "step"), [("RX", True, 0, 0.5), ("WX", False, -1, 0.05)])
def test_radolan_reflectivity_in_one_and_two_bytes(tmp_path, product, byte, precision, step):
    """RX: a byte in RVP6 units, dBZ = number / 2 - 32.5; WX: two bytes in tenths of them, on 1100 × 900 cells."""
    shape = (900, 900) if byte else (1100, 900)
    field = np.tile(counts(shape=(10, 10)), (shape[0] // 10, shape[1] // 10))
    field[0, :2] = (250, 249) if byte else (0x29C4, 0x8005)
    path = write_radolan(tmp_path / "a.bin", field, product=product, precision=precision, byte=byte)
    original, values = scanned(radolan, path)
    assert original.series.interval is None
    assert np.isnan(values[0, :2]).all()
    np.testing.assert_allclose(values[1:], field[1:] * step - 32.5, rtol=1e-5, atol=1e-5)


def test_radolan_numbers_of_four_bytes_are_refused(tmp_path):
    path = write_radolan(tmp_path / "hg.bin", np.zeros((1200, 2200), np.uint16), product="HG")
    path.write_bytes(path.read_bytes().replace(b"GP1200x2200", b"GP1200x1100"))
    code, _, err = command("convert", path, "--output", tmp_path / "out")
    assert (code, "(HG) has values of 4 bytes" in err) == (3, True)
