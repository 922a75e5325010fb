"""Members of tar and zip files are read as files are; archives that are damaged, huge or malicious end in two lines."""

import errno
import gzip
import io
import os
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from makers import command, expect, write_record
from makers.originals import TABLE, counts, radolan_bytes, write_image

from nowcast.convert import containers
from nowcast.convert.inputs import find_files
from nowcast.netcdf.opening import open_records

pytestmark = pytest.mark.usefixtures("cache")
pytest.importorskip("pyproj")


def packed(files, mode="w"):
    """The bytes of a tar file of these files, name to content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def zipped(files):
    """The bytes of a zip file of these files, name to content."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def field(number):
    return np.tile(counts(shape=(9, 10), seed=number), (100, 90))


def frame(number):
    """A RADOLAN file of one time, and its name."""
    return f"raa01-ry_10000-20060100{5 * number:02d}-dwd---bin", radolan_bytes(field(number), minutes=5 * number)


FRAMES = dict(frame(number) for number in (1, 2, 3))
ARCHIVES = {
    "month.tar": lambda: packed({"day.tar.gz": packed(FRAMES, "w:gz")}),  # as DWD has it
    "day.tar.bz2": lambda: packed({f"{name}.gz": gzip.compress(data, 1) for name, data in FRAMES.items()}, "w:bz2"),
    "day.zip": lambda: zipped({"inner.zip": zipped(FRAMES)}),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_members_are_read_as_files_are(tmp_path, name):
    (tmp_path / name).write_bytes(ARCHIVES[name]())
    code, out, err = command("convert", tmp_path / name, "--output", tmp_path / "out", "--processes", 1)
    assert (code, "3 RADOLAN files: 3 frames in 1 new record" in err) == (0, True), err
    (record,) = open_records(out.split())
    np.testing.assert_allclose(record.read([1])[0][::-1], field(2) * 0.12, rtol=1e-6)
    again = command("convert", tmp_path / name, "--output", tmp_path / "out", "--processes", 1)
    assert (again[1], "kept 1 existing record," in again[2], "other files" in again[2]) == ("", True, False)


@pytest.mark.parametrize("pack", [packed, zipped])
def test_an_archive_that_was_replaced_is_read_anew(tmp_path, pack):
    """One process, such as a watch, keeps the archive open that it has read last."""
    name, _ = frame(1)
    for number in (1, 2):
        path = tmp_path / "new"
        path.write_bytes(pack({name: frame(number)[1]}))
        path.replace(tmp_path / "day.archive")
        (source,) = find_files([tmp_path / "day.archive"]).inputs
        with source.on_disk() as copy:
            assert copy.read_bytes() == frame(number)[1]


def test_names_lead_nowhere_and_links_are_left_out(tmp_path):
    out = io.BytesIO(packed({"../../etc/a\nb.bin": next(iter(FRAMES.values()))}))
    with tarfile.open(fileobj=out, mode="a") as archive:
        link = tarfile.TarInfo("link.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    found = find_files([tmp_path])
    assert [source.path for source in found.inputs] == [tmp_path / "a.tar/etc/a?b.bin"]
    with found.inputs[0].on_disk() as copy:
        assert copy.name == "a?b.bin"
        assert copy.read_bytes() == next(iter(FRAMES.values()))
    assert not copy.exists()


def test_what_comes_before_the_damage_is_read(tmp_path):
    whole = packed(FRAMES)
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    code, out, err = command("convert", tmp_path / "cut.tar", "--output", tmp_path / "out", "--processes", 1)
    assert (code, len(open_records(out.split())[0])) == (0, 1)
    assert f"left out {tmp_path / 'cut.tar'} is cut off or damaged" in err
    assert f"left out {tmp_path / 'cut.tar/raa01-ry_10000-2006010010-dwd---bin'} is cut off or damaged" in err


def test_a_full_temporary_folder_is_no_damage_of_the_archive(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "a.tar").write_bytes(packed(FRAMES))
    monkeypatch.setattr(shutil, "copyfileobj", full)
    says = r"-bin cannot be written: No space left on device\.\nIs the disk full \(free: .*\), or the folder read-only\?"
    expect(5, "convert", tmp_path / "a.tar", "--output", tmp_path / "out", "--processes", 1, says=says)


def header(name, size, kind=b"0"):
    """The header of a tar file's member that claims a size, whatever follows."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


def nested(depth):
    data = packed({"a.bin": b"x"})
    for _ in range(depth):
        data = packed({"a.tar": data})
    return data


HOSTILE = {
    "cut within its header": (lambda: packed(FRAMES)[:300], "is cut off or damaged"),
    "with a member of exabytes": (lambda: header("a.bin", 1 << 60) + bytes(2048), "holds more than 128 GiB"),
    "with a member of 10 GiB": (lambda: header("a.bin", 10 << 30) + bytes(2048), r"states a file of 10,737,418,240 bytes"),
    "with a name of 8 GiB": (lambda: header("a", (8 << 30) - 1, b"L") + bytes(2048), r"has a header of [\d,]+ bytes"),
    "of noise after a member": (lambda: packed({"a.bin": b"x"})[:1024] + b"noise" * 400, "is damaged at its byte 1,024"),
    "compressed and cut off": (lambda: packed(FRAMES, "w:gz")[:2000], "is cut off or damaged"),
    "of archives in archives": (lambda: nested(4), "is an archive nested in 3 others"),
    "of nothing": (lambda: packed({}), "no radar files of a known format"),
    "a zip that is cut off": (lambda: zipped(FRAMES)[:-40], "is cut off or damaged"),
    "a zip with a false size": (lambda: zipped(FRAMES).replace(len(next(iter(FRAMES.values()))).to_bytes(4, "little"),
                                                               b"\xff\xff\xff\x7f"), "is cut off or damaged|damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_archives_that_are_hostile(workplace, name):
    make, says = HOSTILE[name]
    (workplace / "a.tar").write_bytes(make())
    expect(3, "convert", "a.tar", "--output", "out", "--processes", 1, says=says)


def test_a_bomb_ends_at_the_size_that_is_allowed(tmp_path):
    """A gigabyte of zeros in a megabyte: it is gone through, and nothing of it is kept."""
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as out:
        out.write(header("a.bin", 1 << 28))
        for _ in range(1 << 8):
            out.write(bytes(1 << 20))
        out.write(bytes(1024))
    found = find_files([tmp_path / "a.tar.gz"])
    assert (found.inputs, found.unknown) == ([], [tmp_path / "a.tar.gz/a.bin"])


def test_the_limits_are_those_of_a_year():
    assert containers.MOST_MEMBERS > 366 * 288
    assert containers.MOST_BYTES > 31 * 288 * 1500 * 1400 * 2


def test_warnings_name_members_and_are_given_once(tmp_path):
    """They named a temporary copy, and were given again for each member."""
    (tmp_path / "table.toml").write_text(TABLE)
    numbers = np.zeros((12, 14), int)
    numbers[0] = 4
    images = {f"2020060100{minute:02d}.png": write_image(tmp_path / "a.png", numbers).read_bytes() for minute in (0, 5)}
    zarr_like = write_record(tmp_path / "b.nc", np.ones((2, 8, 9)), units="mm/h").read_bytes()
    for name, content in (("a.tar", packed(images)), ("a.zip", zipped(images | {"rain.nc": zarr_like}))):
        (tmp_path / name).write_bytes(content)
        options = ("--colours", tmp_path / "table.toml", "--units", "dBZ", "--processes", 1)
        code, _, err = command("convert", tmp_path / name, "--output", tmp_path / f"{name} out", *options)
        assert code == 0, err
        said = f"{tmp_path / name / '202006010000.png'}: 8.3 % of the pixels have colours that are not in the table"
        assert (said in err, err.count("not in the table")) == (True, 1)
        assert (f"{tmp_path / name / 'rain.nc'}: rainfall_rate states units" in err) == (name == "a.zip")
