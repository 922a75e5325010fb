"""Write small original files in the formats of weather services: each function writes counts (y, x) and returns the path."""

import datetime
import gzip
import io
import pickle
import struct
import zipfile
from pathlib import Path

import netCDF4
import numpy as np

from makers import command
from nowcast.netcdf.opening import open_records

START = np.datetime64("2020-06-01T00:00:00")
LAEA = "+proj=laea +lat_0=55.0 +lon_0=10.0 +x_0=1950000.0 +y_0=-2100000.0 +units=m +ellps=WGS84"


def counts(*, shape=(12, 14), seed=0) -> np.ndarray:
    """Return counts (y, x) uint16 from 1 to 200, with 0 (no echo) in a corner."""
    field = np.random.default_rng(seed).integers(1, 200, shape).astype(np.uint16)
    field[-3:, :4] = 0
    return field


def stamp(minutes=0) -> datetime.datetime:
    return (START + np.timedelta64(round(60 * minutes), "s")).item()


def write_odim(path, field, *, minutes=0, quantity="RATE", gain=0.1, offset=0.0, nodata=65535.0, undetect=0.0, level="data1",
               where=None, sums=5, **attributes):  # fmt: skip
    """Write an ODIM_H5 composite of 2 km cells. `level`: the group of `what`: root, dataset1 or data1; `attributes` of it."""
    import h5py
    import pyproj

    rows, columns = field.shape
    edges = pyproj.Proj(LAEA)
    (west, south), (east, north) = (edges(x, y, inverse=True) for x, y in ((0, -2000 * rows), (2000 * columns, 0)))
    place = {"projdef": np.bytes_(LAEA), "xsize": columns, "ysize": rows, "xscale": 2000.0, "yscale": 2000.0}
    place |= {"LL_lon": west, "LL_lat": south, "UR_lon": east, "UR_lat": north} | (where or {})
    time, start = stamp(minutes), stamp(minutes - sums)
    with h5py.File(path, "w") as file:
        file.attrs["Conventions"] = np.bytes_("ODIM_H5/V2_2")
        data = file.create_group("dataset1/data1")
        data.create_dataset("data", data=field)
        root = file.create_group("what")
        date, clock = np.bytes_(f"{time:%Y%m%d}"), np.bytes_(f"{time:%H%M%S}")
        root.attrs.update({"object": np.bytes_("COMP"), "date": date, "time": clock})
        file["dataset1"].create_group("what").attrs.update({
            "startdate": np.bytes_(f"{start:%Y%m%d}"), "starttime": np.bytes_(f"{start:%H%M%S}"),
            "enddate": date, "endtime": clock,
        })  # fmt: skip
        what = {"quantity": np.bytes_(quantity), "gain": gain, "offset": offset, "nodata": nodata, "undetect": undetect}
        what |= attributes
        group = {"root": root, "dataset1": file["dataset1/what"], "data1": data.require_group("what")}[level]
        group.attrs.update({name: value for name, value in what.items() if value is not None})
        file.create_group("where").attrs.update({name: value for name, value in place.items() if value is not None})
    return Path(path)


def write_knmi(path, field, *, minutes=5, formula="GEO=0.01*PV+0.0", parameter="ACCUMULATED_PRECIPITATION_[MM]", missing=65535,
               outside=65535):  # fmt: skip
    """Write a KNMI HDF5 file of 5-minute sums in 1 km cells."""
    import h5py

    with h5py.File(path, "w") as file:
        overview = file.create_group("overview")
        for name, when in (("start", minutes - 5), ("end", minutes)):
            text = f"{stamp(when):%d-%b-%Y;%H:%M:%S.000}".upper()
            overview.attrs[f"product_datetime_{name}"] = np.array([text.encode()])
        overview.attrs["product_group_name"] = np.bytes_("RAD_TEST_5min")
        place = file.create_group("geographic")
        place.attrs.update({
            "geo_dim_pixel": np.bytes_("KM,KM"), "geo_pixel_size_x": np.float32([1.0]), "geo_pixel_size_y": np.float32([-1.0]),
            "geo_row_offset": np.float32([3650.0]), "geo_column_offset": np.float32([0.0]),
        })  # fmt: skip
        text = "+proj=stere +lat_0=90 +lon_0=0.0 +lat_ts=60.0 +a=6378.137 +b=6356.752 +x_0=0 y_0=0"
        place.create_group("map_projection").attrs["projection_proj4_params"] = np.bytes_(text)
        image = file.create_group("image1")
        image.attrs["image_geo_parameter"] = np.bytes_(parameter)
        image.create_dataset("image_data", data=field)
        image.create_group("calibration").attrs.update({
            "calibration_formulas": np.bytes_(formula), "calibration_missing_data": np.int32([missing]),
            "calibration_out_of_image": np.int32([outside]),
        })  # fmt: skip
    return Path(path)


def radolan_bytes(field, *, minutes=0, product="RY", precision=-2, interval="   5", lead=None, byte=False,
                  version=3) -> bytes:  # fmt: skip
    """Return the bytes of a RADOLAN file: counts with flags (y, x), row 0 southernmost."""
    time = stamp(minutes)
    middle = f"VS{version:2d}SW   2.21.0PR E{precision:+03d}INT{interval}GP{field.shape[0]:4d}x{field.shape[1]:4d}"
    middle += (f"VV {lead:03d}" if lead is not None else "") + "MS 10<boo,ros>"
    data = field.astype("u1" if byte else "<u2").tobytes()
    length = len(data) + 17 + 2 + 7 + len(middle) + 1
    return f"{product}{time:%d%H%M}10000{time:%m%y}BY{length:7d}{middle}\x03".encode("latin-1") + data


def write_radolan(path, field, **options):
    """Write a RADOLAN file, compressed if its name ends in .gz."""
    data = radolan_bytes(field, **options)
    Path(path).write_bytes(gzip.compress(data, 1, mtime=0) if str(path).endswith(".gz") else data)
    return Path(path)


def nimrod_field(values, *, minutes=0, data_time=0, kind=(1, 2), units="mm/h*32", title="Rainfall rate Composite", code=213,
                 period=-32767, seconds=-32767, corner=0, map=0, origin=(-32767.0,) * 4, scale=-32767.0, ellipsoid=-32767,
                 member=-32767, north=1_549_500.0, west=-404_500.0, step=1000.0, missing=-1) -> bytes:  # fmt: skip
    """Return a field of a Nimrod file: stored values (y, x), row 0 northernmost; data_time: minutes before the valid time.

    The header is that of CEDA's composite of 00:00 on 7 February 2020, but for time and size.
    """
    valid, analysed = stamp(minutes), stamp(minutes - data_time)
    times = [*valid.timetuple()[:6], *analysed.timetuple()[:5]]
    integers = [*times, *kind, -32767, map, *values.shape, 2, code, 5, -32767, 0, 11]
    integers += [corner, missing, period, -32767, ellipsoid, member, -32767, -32767]
    numbers = [9999.0, -32767.0, north, step, west, step, float(missing), 0.0, 0.0, -32767.0, -32767.0, *origin, scale]
    header = struct.pack(">31h", *integers) + struct.pack(">73f", *numbers, *[-32767.0] * (73 - len(numbers)))
    texts = ((units, 8), ("Plr single site radars", 24), (title, 24))
    header += b"".join(text.encode().ljust(size, b"\0") for text, size in texts)
    header += struct.pack(">51h", 0, -5124, 94, *[0] * 6, 1, *[-32767] * 39, seconds, -32767)
    stored = values.astype({(0, 4): ">f4", (1, 1): "i1", (1, 2): ">i2", (1, 4): ">i4", (2, 1): "i1"}[kind]).tobytes()
    return b"".join(struct.pack(">l", len(part)) + part + struct.pack(">l", len(part)) for part in (header, stored))


def write_nimrod(path, *fields):
    """Write a Nimrod file of fields, which are bytes, compressed if its name ends in .gz."""
    data = b"".join(fields)
    Path(path).write_bytes(gzip.compress(data, 1, mtime=0) if str(path).endswith(".gz") else data)
    return Path(path)


def write_fmi(path, field, *, minutes=0, longitude=25, true=60, corner=(18.6, 57.93), east_north=None):
    """Write FMI's PGM of dBZ = count / 2 - 32, compressed, of cells of 999.5 m from their lower left corner, degrees."""
    import pyproj

    on_map = pyproj.Proj(proj="stere", lat_0=90, lon_0=longitude, lat_ts=true, R=6371288)
    start = on_map(*corner)
    right, top = east_north or on_map(*(at + 999.5 * n for at, n in zip(start, field.shape[::-1], strict=True)), inverse=True)
    lines = [
        f"obstime {stamp(minutes):%Y%m%d%H%M}", "producttype CAPPI", "productname LOWEST", "param CorrectedReflectivity",
        "metersperpixel_x 999.5", "metersperpixel_y 999.5", "projection radar {", "type stereographic",
        f"centrallongitude {longitude}",
        "centrallatitude 90", f"truelatitude {true}", "bottomleft {:.6f} {:.6f}".format(*corner),
        f"topright {right:.6f} {top:.6f}", "}",
    ]  # fmt: skip
    header = "P5\n" + "".join(f"# {line}\n" for line in lines) + f"{field.shape[1]} {field.shape[0]}\n255\n"
    Path(path).write_bytes(gzip.compress(header.encode() + field.astype(np.uint8).tobytes(), 1, mtime=0))
    return Path(path)


def write_mch(path, classes, *, minutes=0, scale="mmh2LASSEN8bitmm_mn"):
    """Write MeteoSwiss' GIF of 640 × 710 classes."""
    from PIL import Image

    image = Image.fromarray(classes.astype(np.uint8), "P")
    image.putpalette([part for n in range(255) for part in (255, 255 - n, 255 - n)] + [0, 0, 0])
    text = f"generated by Meteoswiss\nPRDT=AQC{stamp(minutes):%y%j%H%M} SCALE={scale} ACCUm=000005"
    image.save(path, comment=text.encode())
    return Path(path)


def write_meteonet(path, frames, *, minutes=None, protocol=2):
    """Write MeteoNet's npz: frames (time, y, x) int16 and pickled times, every 5 minutes or at `minutes`."""
    dates = np.array([stamp(n) for n in (minutes or range(0, 5 * len(frames), 5))], object)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in (("data", frames), ("dates", dates), ("miss_dates", dates[:0])):
            member = io.BytesIO()
            if values.dtype == object:
                np.lib.format.write_array_header_1_0(member, {"descr": "|O", "fortran_order": False, "shape": values.shape})
                pickle.dump(values, member, protocol)
            else:
                np.lib.format.write_array(member, values)
            archive.writestr(f"{name}.npy", member.getvalue())
    return Path(path)


def grib_message(values, *, minutes=0, decimal=1, west=230.005, north=54.995, mrms=True, **keys) -> bytes:
    """A GRIB2 message of values (y, x) on a grid of 0.01 degrees, packed to whole tenths; of MRMS' PrecipRate, else prate."""
    from nowcast.convert.original import ECCODES

    eccodes = ECCODES.load("GRIB")
    handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    rows, columns = values.shape
    time = stamp(minutes)
    settings = {
        "Ni": columns, "Nj": rows, "latitudeOfFirstGridPointInDegrees": north, "longitudeOfFirstGridPointInDegrees": west,
        "latitudeOfLastGridPointInDegrees": north - 0.01 * (rows - 1), "iDirectionIncrementInDegrees": 0.01,
        "longitudeOfLastGridPointInDegrees": west + 0.01 * (columns - 1), "jDirectionIncrementInDegrees": 0.01,
        "dataDate": int(f"{time:%Y%m%d}"), "dataTime": int(f"{time:%H%M}"), "decimalPrecision": decimal,
    }  # fmt: skip
    settings |= {"discipline": 209, "parameterCategory": 6, "parameterNumber": 1} if mrms else {"shortName": "prate"}
    for name, value in (settings | keys).items():
        eccodes.codes_set(handle, name, value)
    eccodes.codes_set_values(handle, values.astype(np.float64).ravel())
    message = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return message


def write_geotiff(path, bands, *, descriptions=(), scale=None, nodata=None, units=None, crs="EPSG:3067", **tags):
    """A GeoTIFF of bands (band, y, x) in 1 km cells."""
    import rasterio

    options = {"width": bands.shape[2], "height": bands.shape[1], "count": len(bands), "dtype": bands.dtype, "nodata": nodata}
    transform = rasterio.Affine(1000.0, 0.0, 100000.0, 0.0, -1000.0, 7000000.0)
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **options) as file:
        file.write(bands)
        file.update_tags(**tags)
        for number, description in enumerate(descriptions, 1):
            file.set_band_description(number, description)
        if scale:
            file.scales = [scale] * len(bands)
        if units:
            file.units = [units] * len(bands)
    return Path(path)


TABLE = """
units = "mm/h"
projection = "EPSG:3857"
west = 600000.0
south = 5700000.0
east = 614000.0
north = 5712000.0
missing = ["#808080"]

[values]
"#ffffff" = 0.0
"#00aaff" = 0.5
"#ff0000" = 12.5
"""
COLOURS = [(0xFF, 0xFF, 0xFF), (0x00, 0xAA, 0xFF), (0xFF, 0x00, 0x00), (0x80, 0x80, 0x80), (1, 2, 3)]  # the last is unknown


def write_image(path, numbers, *, mode="P"):
    """A PNG or GIF of numbers (y, x) in COLOURS."""
    from PIL import Image

    if mode == "P":
        image = Image.fromarray(numbers.astype(np.uint8), "P")
        image.putpalette([part for colour in COLOURS for part in colour])
    else:
        image = Image.fromarray(np.array(COLOURS, np.uint8)[numbers]).convert(mode)
    image.save(path)
    return Path(path)


def converted(path, *options):
    """The record that `nowcast convert` makes of a file."""
    output = path.parent / "archive"
    code, _, err = command("convert", path, "--output", output, "--processes", 1, *options)
    assert code == 0, err
    (record,) = open_records([output])
    return record


def stored(record):
    """The stored numbers and the attributes of the variable of a record of one file."""
    with netCDF4.Dataset(record.paths[0]) as file:
        file.set_auto_maskandscale(False)
        return file[record.variable][:], file[record.variable].__dict__
