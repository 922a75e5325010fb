"""Damaged, false and huge original files end in two lines that name them, with exit code 3 and no record."""

import gzip
import re
import struct
import zlib

import numpy as np
import pytest
from makers import expect
from makers.originals import COLOURS, TABLE, counts, grib_message, write_image, write_odim, write_radolan

from nowcast.convert.original import ECCODES

pytest.importorskip("pyproj")
pytestmark = pytest.mark.usefixtures("workplace")


def edited(change):
    """A maker of an ODIM file that `change` alters."""

    def make(path):
        h5py = pytest.importorskip("h5py")
        write_odim(path, counts())
        with h5py.File(path, "a") as file:
            change(file)

    return make


def with_where(**where):
    return lambda path: write_odim(path, counts(), where=where)


def with_what(**what):
    return lambda path: write_odim(path, counts(), **what)


def cut(make, size):
    def make_cut(path):
        make(path)
        path.write_bytes(path.read_bytes()[:size])

    return make_cut


def replace_field(file, **options):
    del file["dataset1/data1/data"]
    file["dataset1/data1"].create_dataset("data", **options)


ODIM = {
    "cut off": (cut(lambda path: write_odim(path, counts()), 3000), "is damaged or incomplete"),
    "cut to its signature": (cut(lambda path: write_odim(path, counts()), 64), "is damaged|no radar files"),
    "huge": (edited(lambda f: replace_field(f, shape=(200_000, 200_000), dtype="u2", chunks=(256, 256))), "declares fields of"),
    "without cells": (edited(lambda f: replace_field(f, shape=(0, 0), dtype="u2")), "declares fields of 0 × 0"),
    "of text": (edited(lambda f: replace_field(f, data=np.full((12, 14), b"rain"))), "no field of numbers"),
    "of three dimensions": (edited(lambda f: replace_field(f, shape=(2, 12, 14), dtype="u2")), "no field of numbers"),
    "of another size than stated": (with_where(xsize=99), "states 12 × 99 cells but has 12 × 14"),
    "without a projection": (with_where(projdef=None), "has no map projection"),
    "with a false projection": (with_where(projdef=np.bytes_("+proj=nonsense")), "is not a map projection"),
    "without corners": (with_where(LL_lon=None), "has no corners"),
    "with corners in the wrong order": (with_where(LL_lon=60.0, LL_lat=70.0), "do not span a grid"),
    "with corners of NaN": (with_where(UR_lat=np.nan), "do not span a grid"),
    "with a gain of 0": (with_what(gain=0.0), "has gain 0"),
    "with a gain of NaN": (with_what(gain=np.nan), "has gain nan"),
    "with text for a number": (with_what(nodata=np.bytes_("none")), "has nodata = 'none'"),
    "of another quantity": (with_what(quantity="VRAD"), "has VRAD.\nExpected one of RATE"),
    "of sums over no time": (with_what(quantity="ACRR", sums=0), "sums over 0 minutes"),
    "of a date that is none": (edited(lambda f: f["what"].attrs.update({"date": np.bytes_("20209999")})), "has date 20209999"),
    "of a polar volume": (edited(lambda f: f["what"].attrs.update({"object": np.bytes_("PVOL")})), "is a polar volume"),
    "without its what": (edited(lambda f: f["dataset1/data1"].pop("what")), "has None"),
    "whose data is a group": (edited(lambda f: (f["dataset1/data1"].pop("data"), f.create_group("dataset1/data1/data"))),
                              "no field of numbers"),
}  # fmt: skip


def link_field(file, make):
    """Put a link in the place of the field."""
    h5py = pytest.importorskip("h5py")
    del file["dataset1/data1/data"]
    file["dataset1/data1/data"] = make(h5py)


def link_beside(file):
    h5py = pytest.importorskip("h5py")
    file["how"] = h5py.ExternalLink("/etc/passwd", "/x")


def virtual_field(file):
    h5py = pytest.importorskip("h5py")
    layout = h5py.VirtualLayout((12, 14), "u2")
    layout[:] = h5py.VirtualSource("other.h5", "/data", (12, 14))
    del file["dataset1/data1/data"]
    file["dataset1/data1"].create_virtual_dataset("data", layout)


def unreadable_name(path):
    write_odim(path, counts())
    path.write_bytes(path.read_bytes().replace(b"where", b"\xff\xfe\xfd\xfc\xfb"))


ODIM |= {
    "with a name that is no text": (unreadable_name, "is damaged or incomplete|has no map projection"),
    "with a link to another file": (edited(lambda f: link_field(f, lambda h: h.ExternalLink("other.h5", "/x"))), "a link to"),
    "with a link to a system's file beside": (edited(link_beside), "holds a link to /etc/passwd"),
    "whose field is the bytes of another file": (
        edited(lambda f: replace_field(f, shape=(12, 14), dtype="u1", external=[("/etc/passwd", 0, 168)])),
        "keeps /dataset1/data1/data in another file",
    ),
    "whose field is virtual": (edited(virtual_field), "keeps /dataset1/data1/data in another file"),
    "whose groups go in a circle": (edited(lambda f: link_field(f, lambda h: h.SoftLink("/dataset1/data1/data"))),
                                    "too many links|no field of numbers"),
    "with a link to nothing": (edited(lambda f: link_field(f, lambda h: h.SoftLink("/nothing"))), "no field of numbers"),
    "of a negative size": (with_where(xsize=-14), "declares fields of 12 × -14"),
    "with three numbers for one": (with_what(nodata=np.array([1.0, 2.0])), "has nodata ="),
    "with a complex gain": (with_what(gain=np.complex128(1 + 2j)), "Expected a number"),
    "with a gain beyond all rain": (with_what(gain=1e300), r"has gain 1e\+300"),
    "of records of numbers": (edited(lambda f: replace_field(f, data=np.zeros((12, 14), [("a", "f4")]))), "no field"),
    "of a number alone": (edited(lambda f: replace_field(f, data=3.0)), "no field of numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODIM)
def test_odim(workplace, name):
    pytest.importorskip("h5py")
    make, says = ODIM[name]
    make(workplace / "a.h5")
    expect(3, "convert", "a.h5", "--output", "out", says=says)


def message(**options):
    return grib_message(counts(shape=(20, 30)) / 10, **options)


def patched(position, value):
    """The message with other bytes at a position."""
    whole = message()
    return whole[:position] + value + whole[position + len(value) :]


def section(number):
    """Where a section of the message begins."""
    whole, position = message(), 16
    while whole[position + 4] != number:
        position += struct.unpack(">I", whole[position : position + 4])[0]
    return position


GRIB = {
    "cut off": (lambda: message()[:-40], "cut off or damaged|no whole GRIB message"),
    "cut within its grid": (lambda: message()[:60], "cut off or damaged|no whole GRIB message"),
    "of four bytes": (lambda: b"GRIB", "cut off or damaged|no whole GRIB message"),
    "of noise": (lambda: b"GRIB" + np.random.default_rng(0).bytes(5000), "cut off or damaged|no whole GRIB message"),
    "of an unknown edition": (lambda: patched(7, b"\x09"), "cut off or damaged"),
    "of a length of exabytes": (lambda: patched(8, b"\x7f" + b"\xff" * 7), "cut off or damaged|no whole GRIB message"),
    "without its end": (lambda: message()[:-4] + b"xxxx", "does not end in 7777"),
    "with a section of nothing": (lambda: patched(section(3), b"\0\0\0\0"), "section 3 states 0 bytes"),
    "with a huge grid": (lambda: patched(section(3) + 30, struct.pack(">II", 10**6, 10**6)), "declares fields of"),
    "with more cells than values": (
        lambda: patched(section(3) + 30, struct.pack(">II", 31, 20)),
        "has 600 values for 20 × 31 cells",
    ),
    "of another grid": (lambda: patched(section(3) + 12, b"\0\x28"), "has the grid type regular_gg"),
    "of temperature": (lambda: message(mrms=False, shortName="2t"), "holds 2t, but no known precipitation"),
    "compressed and cut off": (lambda: gzip.compress(message())[:-30], "is cut off or damaged"),
    "at a date that is none": (lambda: patched(section(1) + 14, b"\x63\x63"), "has the date 20209999"),
}


def edition1(position, value):
    """A message of edition 1 with other bytes at a position."""
    eccodes = ECCODES.load("GRIB")
    handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib1")
    eccodes.codes_set(handle, "shortName", "tp")
    whole = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return whole[:position] + value + whole[position + len(value) :]


GRIB |= {
    "of 0 points": (lambda: patched(section(3) + 30, struct.pack(">II", 0, 0)), "declares fields of 0 × 0"),
    "of a size that is missing": (lambda: patched(section(3) + 30, b"\xff" * 8), "declares fields of"),
    "of four milliards of values": (lambda: patched(section(5) + 5, b"\xff" * 4), "has 4,294,967,295 values for 20 × 30"),
    "of 255 bits a value": (lambda: patched(section(5) + 19, b"\xff"), "cannot be decoded"),
    "of values that are infinite": (lambda: patched(section(5) + 15, b"\x7f\xff"), "values that are not finite"),
    "packed in an unknown way": (lambda: patched(section(5) + 9, b"\x27\x0f"), "has 0 values for 20 × 30 cells"),
    "said to be JPEG and too short": (lambda: patched(section(5) + 9, b"\0\x28"), "section 5 states 21 bytes"),
    "said to be a sum and too short": (lambda: patched(section(4) + 7, b"\0\x08"), "section 4 states 34 bytes"),
    "with sections out of order": (lambda: patched(section(7) + 4, b"\x01"), "section 1 after 6|section 1 states"),
    "with the bitmap of a field before": (lambda: patched(section(6) + 5, b"\xfe"), "no whole GRIB message|missing bitmap"),
    "beyond the pole": (lambda: patched(section(3) + 46, b"\x7f\xff\xff\xff"), "Expected degrees"),
    "of edition 1 without its grid": (lambda: edition1(15, b"\0"), "declares fields of 0 × 0|unknown|nameless"),
    "of edition 1 with a section of nothing": (lambda: edition1(8, b"\0\0\0"), "over an unknown interval"),
    "of edition 1 with a section of 16 MiB": (lambda: edition1(8, b"\xff\xff\xff"), "no known precipitation|damaged"),
}


@pytest.mark.parametrize("name", GRIB)
def test_grib(workplace, name):
    pytest.importorskip("eccodes")
    make, says = GRIB[name]
    (workplace / "a.grib2").write_bytes(make())
    expect(3, "convert", "a.grib2", "--output", "out", "--format", "mrms", says=says)


def png(width, height, data=b""):
    """A PNG of these sizes in its header, with a body that may be anything."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def image_bytes(path, numbers=None, **options):
    numbers = np.arange(168).reshape(12, 14) % len(COLOURS) if numbers is None else numbers
    return write_image(path, numbers, **options).read_bytes()


def animated(path):
    from PIL import Image

    frames = [Image.fromarray(np.full((12, 14), n, np.uint8)) for n in (0, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path.read_bytes()


NAME = "202006010000.png"
IMAGES = {
    "cut off": (NAME, lambda path: image_bytes(path)[:-60], "is not a complete image"),
    "cut to its header": (NAME, lambda path: image_bytes(path)[:40], "is not a complete image"),
    "of a signature alone": (NAME, lambda path: b"\x89PNG\r\n\x1a\n", "is not a complete image"),
    "of noise": (NAME, lambda path: b"\x89PNG\r\n\x1a\n" + np.random.default_rng(0).bytes(999), "is not a complete image"),
    "huge": (NAME, lambda path: png(200_000, 200_000), "declares fields of|is not a complete image"),
    "of no pixels": (NAME, lambda path: png(0, 0), "declares fields of|is not a complete image"),
    "with a damaged body": (NAME, lambda path: png(14, 12, b"nonsense"), "is not a complete image"),
    "with too small a body": (NAME, lambda path: png(14, 12, zlib.compress(b"\0" * 20)), "is not a complete image"),
    "of colours that are not in the table": (NAME, lambda path: image_bytes(path, np.full((12, 14), 4)), "such as #010203"),
    "of several pictures": ("202006010000.gif", animated, "holds 2 images"),
    "without a time in its name": ("rain.png", image_bytes, "has no time in its name"),
    "with a date that is none": ("209913450000.png", image_bytes, "has no time in its name"),
    "a GIF that is cut off": ("202006010000.gif", lambda path: image_bytes(path)[:-8], "is not a complete image"),
}


def other_png(depth, kind, rows, *chunks):
    """A PNG of 14 × 12 pixels of another depth and kind."""
    whole = png(14, 12, zlib.compress(rows))
    header = struct.pack(">IIBBBBB", 14, 12, depth, kind, 0, 0, 0)
    header = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    more = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return whole[:8] + header + more + whole[33:]


def unfolding(name):
    """A PNG with a chunk that is 16 MiB when decompressed."""
    return other_png(8, 2, bytes(43 * 12), (name, b"a\0\0" + zlib.compress(bytes(1 << 24))))


def gif(path):
    return image_bytes(path.with_suffix(".gif"), np.zeros((12, 14), int))


def screen(path, number):
    """A GIF whose screen is of another size."""
    return gif(path).replace(SCREEN, struct.pack("<HH", number, number), 1)


SCREEN = struct.pack("<HH", 14, 12)
GIF = NAME.replace("png", "gif")
IMAGES |= {
    "of 16 bits": (NAME, lambda path: other_png(16, 0, (b"\0" + b"\1\0" * 14) * 12), "has more than 8 bits"),
    "of colours of 16 bits": (NAME, lambda path: other_png(16, 2, (b"\0" + b"\xff\7" * 42) * 12), "has more than 8 bits"),
    "of transparent grey of 16 bits": (NAME, lambda path: other_png(16, 4, (b"\0" + b"\xff\7" * 28) * 12), "more than 8 bits"),
    "without a palette": (NAME, lambda path: other_png(8, 3, bytes(15 * 12)),
                          "colours that are not in the table|not a complete image"),
    "of colours beyond the palette": (NAME, lambda path: other_png(8, 3, (b"\0" + b"\7" * 14) * 12, (b"PLTE", b"\xff" * 3)),
                                      "such as #000000"),
    "with text that unfolds": (NAME, lambda path: unfolding(b"zTXt"), "Decompressed data too large"),
    "with a profile that unfolds": (NAME, lambda path: unfolding(b"iCCP"), "Decompressed data too large"),
    "with a body that unfolds": (NAME, lambda path: png(14, 12, zlib.compress(bytes(1 << 24))), "such as #000000"),
    "of a negative width": (NAME, lambda path: png(0x80000001, 12), "is not a complete image"),
    "a GIF of 65535 × 65535": (GIF, lambda path: screen(path, 65535), "is not a complete image"),
    "a GIF of 10000 × 10000": (GIF, lambda path: screen(path, 10000), "declares fields of"),
    "a GIF whose picture lies beyond it": (
        GIF, lambda path: gif(path).replace(b",\0\0\0\0" + SCREEN, b",\0\0\0\0" + b"\xff\x7f" * 2), "is not a complete image"),
    "a GIF of noise": (GIF, lambda path: b"GIF89a" + np.random.default_rng(0).bytes(300) + b";", "is not a complete image"),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_images(workplace, name):
    file, make, says = IMAGES[name]
    (workplace / "table.toml").write_text(TABLE)
    (workplace / file).write_bytes(make(workplace / file))
    expect(3, "convert", file, "--output", "out", "--colours", "table.toml", says=says)


TABLES = {
    "no TOML": ("units = ", "is not valid TOML"),
    "no units": (TABLE.replace('units = "mm/h"', ""), "units: Field required"),
    "not a colour": (TABLE.replace("#00aaff", "blue"), '"blue" is not a colour'),
    "false edges": (TABLE.replace("east = 614000.0", "east = 1.0"), "the edges do not span a map"),
    "infinite edges": (TABLE.replace("600000.0", "-inf"), "the edges do not span a map"),
    "metres for degrees": (
        TABLE.replace('projection = "EPSG:3857"', ""),
        "edges 600000, 5.7e.06, .* are no longitudes and latit",
    ),
    "a colour twice": (TABLE + '"#00AAFF" = 7.0\n', '"#00aaff" stands there twice, also as "#00AAFF"'),
    "a missing colour of a value": (TABLE.replace("808080", "ff0000"), '"#ff0000" stands there twice'),
    **{
        f"rain of {value}": (TABLE.replace("12.5", value), f"#ff0000 has the value {re.escape(value)}")
        for value in ("nan", "inf", "-12.5", "1e+39")
    },
    "no transparent rain": ("transparent = -3.0\n" + TABLE, "transparent has the value -3"),
    "a form without a day": ('time = "%Y%m_%H%M.png"\n' + TABLE, "lacks the year, the day or the hour"),
    "a form without a date": ('time = "20200601_%H%M.png"\n' + TABLE, "lacks the year, the day or the hour"),
    "a form with a zone": ('time = "%Y%m%d%H%M%Z.png"\n' + TABLE, "has the name of a zone \\(%Z\\)"),
    "a form of no times": ('time = "%Q.png"\n' + TABLE, "is no form of times"),
    "an unknown key": ("unit = 1\n" + TABLE, "unit: Extra inputs"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_colours(workplace, name):
    text, says = TABLES[name]
    image_bytes(workplace / NAME)
    (workplace / "table.toml").write_text(text)
    expect(2, "convert", NAME, "--output", "out", "--colours", "table.toml", says=says)
    expect(2, "convert", NAME, "--output", "out", says="images need a colour table")


def test_a_radolan_file_that_is_cut_off_or_of_another_grid(workplace):
    write_radolan("whole.bin", counts(shape=(900, 900)))
    cut(lambda path: write_radolan(path, counts(shape=(900, 900))), 100_000)(workplace / "a.bin")
    expect(3, "convert", "a.bin", "--output", "out", says=r"holds [\d,]+ bytes of values\.\nExpected 1,620,000: it is cut off")
    write_radolan("b.bin", counts(shape=(9, 9)))
    expect(3, "convert", "b.bin", "--output", "out", says="has 9 × 9 cells")
