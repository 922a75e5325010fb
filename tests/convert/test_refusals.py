"""What a file of a known format lacks, or states wrongly, is told in two lines with exit code 3, and no record is written."""

import gzip
import re

import numpy as np
import pytest
from makers import expect
from makers.originals import (
    counts,
    grib_message,
    write_fmi,
    write_knmi,
    write_mch,
    write_meteonet,
    write_odim,
    write_radolan,
)

pytestmark = pytest.mark.usefixtures("workplace")
RADOLAN_FIELD = counts(shape=(900, 900))


def edited(write, change):
    """A maker of an HDF5 file that `change` alters."""

    def make(path):
        h5py = pytest.importorskip("h5py")
        pytest.importorskip("pyproj")
        write(path, counts())
        with h5py.File(path, "a") as file:
            change(file)

    return make


def odim(change):
    return "odim", edited(write_odim, change)


def knmi(change):
    return "knmi", edited(write_knmi, change)


def fmi(before, after):
    """A PGM of FMI with other bytes."""

    def make(path):
        pytest.importorskip("pyproj")
        content = gzip.decompress(write_fmi(path, counts()).read_bytes())
        assert before in content
        path.write_bytes(content.replace(before, after, 1))

    return "fmi-pgm", make


def fmi_of(change):
    """A PGM of FMI with its bytes changed as a whole."""
    return "fmi-pgm", lambda path: path.write_bytes(change(gzip.decompress(write_fmi(path, counts()).read_bytes())))


def radolan(before, after):
    """A RADOLAN file with other bytes."""

    def make(path):
        pytest.importorskip("pyproj")
        content = write_radolan(path, RADOLAN_FIELD).read_bytes()
        assert before in content
        path.write_bytes(content.replace(before, after, 1))

    return "radolan", make


def mch(classes, **options):
    return "mch-gif", lambda path: write_mch(path, classes, **options)


def meteonet(frames, **options):
    return "meteonet", lambda path: write_meteonet(path, frames, **options)


def grib(**keys):
    def make(path):
        pytest.importorskip("eccodes")
        path.write_bytes(grib_message(counts() / 10, **keys))

    return "mrms", make


def timeless(file):
    for name in ("date", "time"):
        del file["what"].attrs[name]
    del file["dataset1/what"]


def at(**attributes):
    """An ODIM file with other attributes of its nominal time."""
    return odim(lambda file: file["what"].attrs.update({name: np.bytes_(text) for name, text in attributes.items()}))


def on(projdef):
    return odim(lambda file: file["where"].attrs.update({"projdef": np.bytes_(projdef)}))


def two_times(file):
    file.copy("dataset1", "dataset2")
    file["dataset2/what"].attrs["endtime"] = np.bytes_("001500")


def formula(text):
    return knmi(lambda file: file["image1/calibration"].attrs.update({"calibration_formulas": np.bytes_(text)}))


def projection(text):
    return knmi(lambda file: file["geographic/map_projection"].attrs.update({"projection_proj4_params": np.bytes_(text)}))


CASES = {
    "ODIM without a time": (odim(timeless), "has no time.\nExpected what/date and what/time, or enddate and endtime."),
    "ODIM of two times": (odim(two_times), "has RATE for 2 times.\nExpected one file per time."),
    "ODIM at an hour and a minute": (
        at(time="1200"),
        "has date 20200601 and time 1200.\nExpected YYYYMMDD and HHMMSS.",
    ),
    "ODIM on a day of seven digits": (
        at(date="2020061", time="120000"),
        "has date 2020061 and time 120000.\nExpected YYYYMMDD and HHMMSS.",
    ),
    "ODIM around another pole": (
        on("+proj=ob_tran +o_proj=longlat +o_lat_p=39.25 +o_lon_p=0 +lon_0=18 +R=6371229"),
        "has other longitudes or latitudes.\nExpected degrees from Greenwich and the equator.",
    ),
    "ODIM from another meridian": (
        on("+proj=longlat +pm=paris +ellps=WGS84"),
        "has other longitudes or latitudes.\nExpected degrees from Greenwich and the equator.",
    ),
    "KNMI without its end": (
        knmi(lambda file: file["overview"].attrs.pop("product_datetime_end")),
        "has no time.\nExpected overview/product_datetime_end.",
    ),
    "KNMI at a time that is none": (
        knmi(lambda file: file["overview"].attrs.update({"product_datetime_end": np.bytes_("noon")})),
        "has product_datetime_end 'noon'.\nExpected a time such as 26-AUG-2010;04:00:00.000.",
    ),
    "KNMI without a formula": (formula("PV"), "has calibration_formulas 'PV'.\nExpected GEO=gain*PV+offset."),
    "KNMI of two points": (formula("GEO=0.0.1*PV+0"), "has calibration_formulas 'GEO=0.0.1*PV+0'.\nExpected two numbers."),
    "KNMI of another image": (
        knmi(lambda file: file["image1"].attrs.update({"image_geo_parameter": np.bytes_("[K]")})),
        "Expected an image of [MM] or [DBZ]; --variable names one.",
    ),
    "KNMI without a place": (
        knmi(lambda file: file.pop("geographic")),
        "is not georeferenced.\nExpected the group geographic with map_projection.",
    ),
    "KNMI without the size of its cells": (
        knmi(lambda file: file["geographic"].attrs.pop("geo_pixel_size_x")),
        "Expected geo_pixel_size_y, geo_row_offset, geo_pixel_size_x, geo_column_offset and projection_proj4_params.",
    ),
    "KNMI with cells of NaN": (
        knmi(lambda file: file["geographic"].attrs.update({"geo_pixel_size_y": np.nan})),
        "is not georeferenced.\nExpected geo_pixel_size_y,",
    ),
    "KNMI with text for a length": (
        projection("+proj=stere +lat_0=90 +a=large +b=6356.752"),
        "is damaged or incomplete (could not convert string to float: 'large).\nExpected a whole KNMI HDF5 file.",
    ),
    "FMI of more bits": (
        fmi(b"\n255\n", b"\n65535\n"),
        "has no header of an 8-bit PGM (P5, 255).\nExpected a radar composite of FMI.",
    ),
    "FMI without a time": (
        fmi(b"obstime 202006010000", b"obstime -"),
        "has no obstime such as 201609281445.\nExpected it in the comments.",
    ),
    "FMI without a corner": (
        fmi(b"bottomleft", b"topleft"),
        "is not georeferenced.\nExpected projection, bottomleft and metersperpixel.",
    ),
    "FMI on another map": (fmi(b"stereographic", b"mercator"), "is on a mercator map.\nExpected a stereographic one."),
    "FMI of cells without a size": (
        fmi(b"metersperpixel_x 999.5", b"metersperpixel_x 0"),
        "is not georeferenced.\nExpected projection, bottomleft and metersperpixel.",
    ),
    "FMI at a place of NaN": (
        fmi(b"bottomleft 18.600000", b"bottomleft nan"),
        "is not georeferenced.\nExpected projection, bottomleft and metersperpixel.",
    ),
    "FMI cut off": (fmi_of(lambda content: content[:-14]), "holds 154 values.\nExpected 168: it is cut off."),
    "FMI of two fields": (fmi_of(lambda content: 2 * content), "bytes after its 168 values.\nExpected one field of 8 bits."),
    "FMI of rates": (
        fmi(b"CorrectedReflectivity", b"RainRate"),
        "holds RainRate (param).\nExpected reflectivity: the scale of other quantities is not known.",
    ),
    "RADOLAN without an end": (
        ("radolan", lambda path: path.write_bytes(b"RY010000100000620BY" + b" " * 100)),
        "has no complete RADOLAN header.\nExpected RY011500100000120BY or such, and a byte 3.",
    ),
    "RADOLAN without a size": (
        radolan(b"GP 900x 900", b"PG 900x 900"),
        "(RY) states no size.\nExpected GP with rows and columns; PG is not read.",
    ),
    "RADOLAN without an interval": (
        radolan(b"INT   5", b"IMT   5"),
        "(RY) states no interval.\nExpected INT with minutes in its header.",
    ),
    "RADOLAN at a time that is none": (
        radolan(b"RY010000", b"RY320000"),
        "has the time 320000 0620.\nExpected day, hour, minute, month, year.",
    ),
    "MeteoSwiss of another size": (mch(np.zeros((12, 14))), "has 12 × 14 cells.\nExpected 640 × 710."),
    "MeteoSwiss in another scale": (
        mch(np.zeros((640, 710)), scale="other"),
        "with PRDT and ACCUm.\nExpected AQC; see --colours for others.",
    ),
    "MeteoNet of another region": (
        meteonet(np.zeros((2, 12, 14), np.int16)),
        "has 12 × 14 cells.\nExpected MeteoNet's NW (565 × 784) or SE (515 × 784).",
    ),
    "MeteoNet of fewer dates": (
        meteonet(np.zeros((2, 565, 784), np.int16), minutes=[0]),
        "has 1 date but 2 frames.\nExpected one date per frame.",
    ),
    "MeteoNet of floats": (
        meteonet(np.zeros((1, 565, 784))),
        "holds float64 of shape (1, 565, 784).\nExpected frames of integers (time, y, x).",
    ),
    "GRIB with rows from the east": (
        grib(iScansNegatively=1),
        "has rows from east to west, or in alternating directions.\nExpected rows from west to east.",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_told(workplace, name):
    (kind, make), says = CASES[name]
    make(workplace / "a.gif" if kind == "mch-gif" else workplace / "a")
    expect(3, "convert", *workplace.iterdir(), "--output", "out", "--format", kind, says=re.escape(says))
