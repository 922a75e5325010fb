"""The files of the index in the cache: what they hold of an archive that grows and rolls, and when they are removed."""

import json
import os

import numpy as np
import pytest
from makers import stored

from nowcast.errors import DataError
from nowcast.netcdf.index import MANY, FileIndex, read_checked
from nowcast.netcdf.opening import open_records

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept")]  # all of them together take seconds

AGO = 1_600_000_000  # s


def archive(folder, numbers=range(MANY), *, scale=0.1):
    """Files of one frame each, every one packed by a scale of its own."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        times = [stored.START + 300 * number]
        path = stored.write(folder / f"{number:03}.nc", np.ones((1, 40, 60), "i2"), times=times, scale_factor=scale + number)
        os.utime(path, (AGO, AGO))
    return folder


def index_of(kept):
    (path,) = (kept / "index").iterdir()
    return path


def reopen(folder):
    (record,) = open_records([folder], index=FileIndex(None))
    return record


def test_a_grid_is_kept_once_for_all_packings(tmp_path, kept):
    assert len(reopen(archive(tmp_path / "a"))) == MANY
    files, shared = read_checked(index_of(kept))
    grids = [text for text in shared if "y_attributes" in json.loads(text)]
    assert (len(files), len(grids), len(shared)) == (MANY, 1, MANY + 1)


def test_an_index_of_a_rolling_archive_does_not_grow(tmp_path, kept):
    folder = archive(tmp_path / "a")
    reopen(folder)
    first = index_of(kept).stat().st_size
    for _ in range(3):
        newest = max(int(path.stem) for path in folder.iterdir())
        min(folder.iterdir()).unlink()
        archive(folder, [newest + 1])
        record = reopen(folder)
        assert len(record) == MANY
        np.testing.assert_allclose(record.read([MANY - 1]), 0.1 + newest + 1, rtol=1e-6)
        files, shared = read_checked(index_of(kept))
        assert (files.keys(), len(shared)) == ({path.name for path in folder.iterdir()}, MANY + 1)
        assert index_of(kept).stat().st_size < first + 100
    np.testing.assert_array_equal(open_records([folder])[0].read(range(MANY)), reopen(folder).read(range(MANY)))


def test_what_no_run_has_read_for_long_is_removed_when_another_is_made(tmp_path, kept):
    reopen(archive(tmp_path / "a"))
    (sample,) = (kept / "samples").iterdir()
    old = [index_of(kept), sample]
    other = kept / "index" / "mine.json"
    other.write_text("mine")
    for path in (*old, other):
        os.utime(path, (AGO, AGO))
    reopen(archive(tmp_path / "b"))
    assert [path.exists() for path in (*old, other)] == [False, False, True]


def test_what_is_read_stays(tmp_path, kept):
    reopen(archive(tmp_path / "a"))
    (sample,) = (kept / "samples").iterdir()
    used = [index_of(kept), sample]
    for path in used:
        os.utime(path, (AGO, AGO))
    reopen(tmp_path / "a")
    reopen(archive(tmp_path / "b"))
    assert all(path.exists() for path in used)


def test_the_rest_of_an_interrupted_write_is_removed(tmp_path, kept):
    folder = archive(tmp_path / "a")
    reopen(folder)
    path = index_of(kept)
    rest = path.with_name(f".{path.name[:40]}.{2**22 + 1}-0@{os.uname().nodename}.partial")
    rest.write_text("part")
    os.utime(rest, (0, 0))
    archive(folder, [MANY])
    reopen(folder)
    assert not rest.exists()


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes")
def test_a_folder_whose_name_is_not_utf_8_is_refused_as_without_an_index(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    (folder / "a.nc").write_bytes(b"CDF")
    for index in (None, FileIndex(os.fsdecode(b"\xff"))):
        with pytest.raises(DataError, match="has a name that cannot be printed, or is not UTF-8"):
            open_records([folder], index=index)
