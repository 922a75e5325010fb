"""Write unusual files: each function writes RAIN, or a file that must be refused, in one of the ways found in archives.

`RIGHT` maps a name to (maker, rain that is to be read); `REFUSED` to (maker, the error's text without the file's name).
Makers take the path to write to. Row 0 of the rain is the northernmost; NaN is missing.
"""

import os

import netCDF4
import numpy as np

from makers import write_record
from makers.stored import add_variable, edit, write

RAIN = np.arange(72, dtype=np.float32).reshape(3, 4, 6) / 4  # mm/h, (time, y, x)
HOLE = np.where(np.arange(72).reshape(3, 4, 6) % 7 == 3, np.nan, RAIN)
CLASSIC = ("NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA")


def holed(fill):
    return np.where(np.isnan(HOLE), np.float32(fill), HOLE).astype("f4")


def plain(path, rain=RAIN, **options):
    return write(path, rain, **options)


def maker(stored, **options):
    return lambda path: write(path, stored, **options)


def coordinates(path, rain, y, x, **attributes):
    """Write RAIN with these coordinates; `attributes` of both."""
    write(path, rain, dims=("time", "y", "x"))
    with edit(path) as file:
        for dim, values in (("y", y), ("x", x)):
            file[dim].setncatts(attributes)
            file[dim][:] = values


def without_coordinates(path, **latlon):
    """Write dimensions `rows` and `columns` without coordinate variables; `latlon` are two-dimensional coordinates."""
    write(path, RAIN, dims=("time", "rows", "columns"))
    with edit(path) as file:
        for name, (values, units) in latlon.items():
            variable = file.createVariable(name, "f8", ("rows", "columns"))
            variable.units = units
            variable[:] = values


def degrees(path, *, northwards=False):
    """Write two-dimensional latitude and longitude, 0.01 degrees per cell; row 0 is southernmost if `northwards`."""
    lat = 50 + 0.01 * np.arange(4)[:: 1 if northwards else -1, None] + np.zeros((4, 6))
    lon = 5 + 0.01 * np.arange(6) + np.zeros((4, 6))
    without_coordinates(path, lat=(lat, "degrees_north"), lon=(lon, "degrees_east"))
    if northwards:
        with edit(path) as file:
            file["rr"][:] = RAIN[:, ::-1]


def timed(values, kind="f8", rain=RAIN, calendar=None, **attributes):
    """Return a function that writes RAIN with these times, stored as `kind` (str: text, S1: characters)."""

    def make(path):
        write(path, rain)
        with edit(path) as file:
            file.renameVariable("time", "of_old")
            file["of_old"].standard_name = "other"
            dims = ("time",)
            if kind == "S1":
                file.createDimension("length", len(values[0]))
                dims = ("time", "length")
            time = file.createVariable("time", kind, dims)
            time.setncatts(attributes | ({"calendar": calendar} if calendar else {}))
            if kind == "S1":
                time[:] = netCDF4.stringtochar(np.array(values, "S"))
            elif kind is str:
                for position, value in enumerate(values):
                    time[position] = value
            else:
                time[:] = values

    return make


def minutes(*values, rain=None):
    return timed(values, rain=RAIN if rain is None else rain, units="minutes since 2020-09-13 12:30")


def in_group(path):
    with netCDF4.Dataset(path, "w") as file:
        group = file.createGroup("radar")
        for dim, size in zip(("time", "y", "x"), RAIN.shape, strict=True):
            group.createDimension(dim, size)
        group.createVariable("rr", "f4", ("time", "y", "x")).units = "mm/h"


def cut(path, share, format):
    write(path, np.tile(RAIN, (1, 20, 20)), format=format)
    os.truncate(path, int(path.stat().st_size * share))


def holding(content):
    return lambda path: path.write_bytes(content)


def without_units(path):
    write(path, RAIN, standard_name="rainfall_rate")
    with edit(path) as file:
        del file["rr"].units


def two_candidates(path):
    write(path, RAIN)
    add_variable(path, "other", units="mm/h")


def declared(path, *sizes, chunks):
    """Write a variable of these sizes without data: a small file of any declared size."""
    with netCDF4.Dataset(path, "w") as file:
        for dim, size in zip(("time", "y", "x"), sizes, strict=True):
            file.createDimension(dim, size)
        time = file.createVariable("time", "i4", ("time",))
        time.units = "seconds since 2020-01-01"
        time[:] = 300 * np.arange(sizes[0])
        file.createVariable("rr", "f4", ("time", "y", "x"), chunksizes=chunks, zlib=True).units = "mm/h"


def on_one_file(old, new, count=1):
    """Return a function that writes a classic file with `old` bytes replaced by `new`."""

    def make(path):
        content = write(path, RAIN, format="NETCDF3_CLASSIC").read_bytes()
        assert content.count(old) >= count
        path.write_bytes(content.replace(old, new, count))

    return make


NO_FRAME = np.where(np.arange(3)[:, None, None] == 1, np.nan, RAIN).astype("f4")
BYTES = np.where(np.isnan(HOLE), -1, HOLE * 4).astype("i1")
PACKED = np.where(np.isnan(HOLE), -32768, HOLE * 4).astype("i2")
NAMES = {"spaces": "rain rate now", "utf8": "pluie_é_雨"}

RIGHT = {
    "a sentinel of -9999": (maker(holed(-9999)), HOLE),
    "a sentinel of -999": (maker(holed(-999)), HOLE),
    "a default fill of 9.97e36": (maker(holed(netCDF4.default_fillvals["f4"])), HOLE),
    "a default fill beside another declared": (maker(holed(netCDF4.default_fillvals["f4"]), fill=np.float32(-1)), HOLE),
    "fill and missing_value that differ, the fill": (maker(holed(90), fill=np.float32(90), missing_value=np.float32(95)), HOLE),
    "fill and missing_value that differ, the other": (
        maker(holed(95), fill=np.float32(90), missing_value=np.float32(95)),
        HOLE,
    ),
    "a fill as text": (maker(holed(95), missing_value="95"), HOLE),
    "valid_range": (maker(holed(95), valid_range=np.float32([0, 90])), HOLE),
    "valid_range as text": (maker(holed(95), valid_range="0, 90"), HOLE),
    "_Unsigned": (maker(BYTES, fill=np.int8(-1), scale_factor=0.25, _Unsigned="true"), HOLE),
    "packed with a scale_factor of text": (maker(PACKED, fill=np.int16(-32768), scale_factor="0.25", add_offset="0.0"), HOLE),
    "packed": (maker(PACKED, fill=np.int16(-32768), scale_factor=np.float32(0.25)), HOLE),
    "big-endian": (maker(holed(-9999).astype(">f4"), fill=np.float32(-9999)), HOLE),
    "big-endian, packed": (maker(PACKED.astype(">i2"), fill=np.int16(-32768), scale_factor=0.25), HOLE),
    "float64": (maker(HOLE.astype("f8")), HOLE),
    **{f"in {format}": (maker(holed(-9999), fill=np.float32(-9999), format=format), HOLE) for format in CLASSIC},
    "dimensions the other way round": (maker(RAIN.transpose(2, 1, 0), dims=("x", "y", "time")), RAIN),
    "time in the middle": (maker(RAIN.transpose(1, 0, 2), dims=("y", "time", "x")), RAIN),
    "dimensions one long": (maker(RAIN[None, :, None], dims=("member", "time", "level", "y", "x")), RAIN),
    **{f"a name of {which}": (maker(RAIN, name=name), RAIN) for which, name in NAMES.items()},
    "no coordinate variables": (without_coordinates, RAIN),
    "longitude and latitude over the grid": (degrees, RAIN),
    "the same, rows from the south": (lambda path: degrees(path, northwards=True), RAIN),
    "coordinates in km": (lambda path: coordinates(path, RAIN, [6, 4, 2, 0], range(6), units="km"), RAIN),
    "rows from the south": (lambda path: write_record(path, RAIN, y_ascending=True), RAIN),
    "times as text": (timed(["2020-09-13T12:30:00Z", "2020-09-13 12:35", "2020-09-13T14:40:00+02:00"], str), RAIN),
    "times as characters": (timed(["2020-09-13T12:30", "2020-09-13T12:35", "2020-09-13T12:40"], "S1"), RAIN),
    "times as yyyymmddhhmm": (timed([202009131230, 202009131235, 202009131240], "i8", units="yyyymmddhhmm"), RAIN),
    "times as yyyymmddhhmmss": (timed([20200913123000, 20200913123500, 20200913124000]), RAIN),
    "times in another zone": (timed([0, 5, 10], units="minutes since 2020-09-13 14:30:00 +02:00"), RAIN),
    "times in UTC, said so": (timed([0, 5, 10], units="minutes since 2020-09-13T12:30:00Z"), RAIN),
    "times that come twice": (minutes(0, 0, 5, 10, rain=RAIN[[2, 0, 1, 2]]), RAIN),
    "times in disorder": (minutes(10, 0, 5, rain=RAIN[[2, 0, 1]]), RAIN),
    "negative rain": (maker(holed(-3)), HOLE),
    "infinite rain": (maker(holed(np.inf)), HOLE),
    "a million mm/h": (maker(holed(1e6)), HOLE),
    "all missing": (maker(np.full_like(RAIN, np.nan)), np.full_like(RAIN, np.nan)),
    "all dry": (maker(np.zeros_like(RAIN)), np.zeros_like(RAIN)),
    "a frame missing as a whole": (maker(NO_FRAME), NO_FRAME),
    "a grid of 3 × 3": (maker(RAIN[:, :3, :3]), RAIN[:, :3, :3]),
    "a grid of 37 × 53": (maker(np.ones((3, 37, 53), "f4")), np.ones((3, 37, 53))),
    "a single frame": (maker(RAIN[:1]), RAIN[:1]),
    "a frame of 3 TB in all, never written": (lambda path: declared(path, 200_000, 2000, 2000, chunks=(1, 2000, 2000)), None),
}

CUT = "is cut off: it is shorter than its header says.\nExpected a whole NetCDF file."
NO_TIMES = "time has missing times.\nExpected a time for every frame."
RIGHT_TIMES = 'Expected units such as "seconds since 1970-01-01 00:00:00 +2:00".'
REFUSED = {
    **{
        f"{format} cut at {share}": (lambda path, share=share, format=format: cut(path, share, format), CUT)
        for format in CLASSIC
        for share in (0.02, 0.5, 0.999)
    },
    **{
        f"NETCDF4 cut at {share}": (lambda path, share=share: cut(path, share, "NETCDF4"), "is damaged or incomplete (")
        for share in (0.02, 0.5, 0.999)
    },
    "a flipped byte in a dimension's number": (
        on_one_file(b"\0\0\0\x01x\0\0\0\0\0\0\x06", b"\0\0\0\x01x\0\0\0\0\0\x80\x06"),
        CUT,
    ),
    "a flipped byte in a list's number": (
        on_one_file(b"CDF\x01\0\0\0\0\0\0\0\x0a", b"CDF\x01\0\0\0\0\0\0\0\x4a"),
        "is damaged: its header has a list of an unexpected kind.\nExpected a whole NetCDF file.",
    ),
    "no bytes": (holding(b""), "is empty (0 bytes).\nExpected a NetCDF file with at least one frame."),
    "a web page": (
        holding(b"<!DOCTYPE html><html>not found</html>"),
        (
            'is not a NetCDF file: it starts with "<!DO".\n'
            "It is a web page or another text, perhaps what a server answered: download it again."
        ),
    ),
    "text": (holding(b"time,y,x,rain\n"), 'is not a NetCDF file: it starts with "time".\nConvert it to CF NetCDF first.'),
    "data in a group": (
        in_group,
        ("has nothing but groups (radar), which are not read.\nConvert it first: nowcast convert "),
    ),
    "a scale_factor that is no number": (
        maker(PACKED, scale_factor="a quarter"),
        ": rr has scale_factor = 'a quarter'.\nExpected one finite number, such as 0.01.",
    ),
    "a scale_factor of nought": (
        maker(PACKED, scale_factor=0.0),
        ": rr has scale_factor = 0, which makes all values alike.\nExpected another number, or none.",
    ),
    "an add_offset of NaN": (
        maker(PACKED, add_offset=np.nan),
        ": rr has add_offset = 'nan'.\nExpected one finite number, such as 0.01.",
    ),
    "a thousand fill values": (
        maker(RAIN, missing_value=np.arange(1000, dtype="f4")),
        ": rr declares 1004 values as missing.\nExpected at most 100.",
    ),
    "a dimension more": (
        maker(np.stack([RAIN, RAIN], 1), dims=("time", "member", "y", "x")),
        ": rr has more dimensions than time, y and x: member (2).\nSelect one position of each of these first.",
    ),
    "a dimension more, of one time": (
        maker(RAIN, dims=("level", "y", "x")),
        ": rr has more dimensions than time, y and x: level (3).\nSelect one position of each of these first.",
    ),
    "several candidates": (
        two_candidates,
        "has several rain variables: rr, other.\nChoose one with --variable (data.variable).",
    ),
    "an uneven x": (
        lambda path: coordinates(path, RAIN, [3, 2, 1, 0], [0, 1, 2, 4, 8, 16]),
        ": coordinate x is uneven, in steps of 1 to 8.\nExpected an even grid: interpolate the fields.",
    ),
    "an x that turns": (
        lambda path: coordinates(path, RAIN, [3, 2, 1, 0], [0, 1, 2, 1, 0, 3]),
        ": coordinate x is not monotonic.\nExpected an even grid.",
    ),
    "times as other text": (
        timed(["noon", "one", "two"], str),
        ': time has the text "noon".\nExpected times such as 2020-06-01T00:05:00Z.',
    ),
    "times in float32 since 1900": (
        timed([1058052.5, 1058052.6, 1058052.7], "f4", units="hours since 1900-01-01"),
        (
            ': time, in "hours since 1900-01-01", is stored in steps of 450 s: frames cannot be told apart.\n'
            "Expected int32 or float64."
        ),
    ),
    "times in months": (timed([0, 1, 2], units="months since 2020-01-01"), RIGHT_TIMES),
    "times without a reference": (timed([0, 5, 10], units="minutes"), RIGHT_TIMES),
    "times without units": (timed([0, 5, 10]), RIGHT_TIMES),
    "times with a fill": (minutes(0, 5, netCDF4.default_fillvals["f8"]), NO_TIMES),
    "times with NaN": (minutes(0, 5, np.nan), NO_TIMES),
    "times with NaT": (
        timed(np.array([0, 5, np.iinfo("i8").min]), "i8", units="minutes since 2020-09-13"),
        NO_TIMES,
    ),
    "no times at all": (maker(RAIN[:0]), ": rr has no frames.\nExpected at least one."),
    **{
        f"the calendar {calendar}": (
            timed([0, 5, 10], units="minutes since 2020-09-13", calendar=calendar),
            f': time is in the calendar "{calendar}".\nExpected "standard".',
        )
        for calendar in ("360_day", "noleap", "365_day")
    },
    "no units": (
        without_units,
        (
            ": rr has no units attribute.\n"
            "Give them by --units (data.units): a rate (mm h-1, kg m-2 s-1), an amount per interval (mm, kg m-2) or dBZ."
        ),
    ),
    "units of 1": (
        maker(RAIN, units="1", standard_name="rainfall_rate"),
        (
            ': rr has units "1", which is no measure of rain, as its standard_name rainfall_rate says that it is.\n'
            "Expected a rate (mm h-1, kg m-2 s-1), an amount per interval (mm, kg m-2) or dBZ."
        ),
    ),
    "a frame of 1 TB": (
        lambda path: declared(path, 3, 500_000, 500_000, chunks=(1, 1000, 1000)),
        ": rr declares frames of 500000 × 500000 cells.\nExpected at most 1,073,741,824 cells.",
    ),
    "a chunk of 1 GB": (
        lambda path: declared(path, 64, 2000, 2000, chunks=(64, 2000, 2000)),
        (
            ": rr is stored in chunks of 1.0 GB (64 × 2000 × 2000), read whole for every frame.\n"
            "Expected chunks of one frame: `nccopy -c rr:1,2000,2000 IN.nc OUT.nc`."
        ),
    ),
}
