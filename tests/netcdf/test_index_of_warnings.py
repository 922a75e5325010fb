"""Files of the index have the same warnings as files that are opened, and in the same order."""

import errno
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from makers import stored

from nowcast.netcdf import reading
from nowcast.netcdf.index import MANY, FileIndex
from nowcast.netcdf.opening import open_records
from nowcast.runtime import log_lines
from nowcast.runtime.log_lines import is_first, noted_topics

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept")]  # all of them together take seconds

AGO = 1_600_000_000  # s


def one_frame(path, number, *, edit=None, **attributes):
    field = np.full((1, 4, 6), 0.5 + number, np.float32)
    stored.write(path, field, times=[stored.START + 300 * number], **attributes)
    if edit:
        with stored.edit(path) as file:
            edit(file)
    os.utime(path, (AGO, AGO))
    return path


def zone(file):
    file["time"].long_name = "local time"


def start(file):
    file["rr"].coordinates = "start"
    file.createVariable("start", "i4").setncatts(
        {"standard_name": "forecast_reference_time", "units": "seconds since 1970-01-01"}
    )
    file["start"][...] = stored.START - 600


# what each file of some has, and the options with which all are opened
DOUBTS = {
    "a grid mapping that is not there": ({"grid_mapping": "nothing"}, {}),
    "a scale that is not used": ({"gain": 0.1}, {}),
    "local times": ({"edit": zone}, {}),
    "a forecast": ({"edit": start}, {}),
    "other units than those given": ({}, {"units": "mm s-1"}),
}


def said_on_opening(folder, caplog, monkeypatch, *, indexed, units=None):
    """Return the messages of opening a folder as in a new process."""
    monkeypatch.setattr(log_lines, "WARNED", set())
    caplog.clear()
    open_records([folder], units=units, index=FileIndex(None, units) if indexed else None)
    return caplog.messages


@pytest.mark.parametrize("doubt", DOUBTS)
def test_the_same_is_said_with_an_index_and_without(tmp_path, monkeypatch, caplog, doubt):
    attributes, options = DOUBTS[doubt]
    (tmp_path / "a").mkdir()
    for number in range(MANY + 5):
        one_frame(tmp_path / "a" / f"{number:02}.nc", number, **attributes if number >= 3 else {})
    monkeypatch.chdir(tmp_path)
    for folder in ("a", tmp_path / "a"):  # some warnings are given absolute paths, some those of the user
        told = said_on_opening(folder, caplog, monkeypatch, indexed=False, **options)
        assert len(told) == 1
        assert said_on_opening(folder, caplog, monkeypatch, indexed=True, **options) == told
        assert said_on_opening(folder, caplog, monkeypatch, indexed=True, **options) == told
    for number in (0, 3):  # the file that was warned of is no more
        (tmp_path / "a" / f"{number:02}.nc").unlink()
    told = said_on_opening("a", caplog, monkeypatch, indexed=False, **options)
    assert len(told) == 1
    assert said_on_opening("a", caplog, monkeypatch, indexed=True, **options) == told


def test_one_file_is_opened_for_a_warning_and_the_others_are_not(tmp_path, monkeypatch, caplog):
    for number in range(MANY):
        one_frame(tmp_path / f"{number:02}.nc", number, grid_mapping="nothing", gain=0.1)
    said_on_opening(tmp_path, caplog, monkeypatch, indexed=True)
    (path,) = (tmp_path / "cache" / "index").iterdir()
    inode = path.stat().st_ino
    opened, put = [], FileIndex.put
    monkeypatch.setattr(FileIndex, "put", lambda self, summary: opened.append(summary.path.name) or put(self, summary))
    assert len(said_on_opening(tmp_path, caplog, monkeypatch, indexed=True)) == 2
    assert opened == ["00.nc"]
    assert path.stat().st_ino == inode  # nothing new: it is not written again


def test_topics_are_noted_whether_they_are_new_or_not(tmp_path):
    is_first(tmp_path / "a.nc", "before")
    with noted_topics() as outer:
        is_first(tmp_path / "a.nc", "before")
        with noted_topics() as inner:
            is_first(tmp_path / "a.nc", "new")
        is_first(tmp_path / "b.nc", "last")
    is_first(tmp_path / "a.nc", "after")
    assert (outer, inner) == ({"before", "new", "last"}, {"new"})


def test_a_folder_has_a_warning_once_however_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_first(tmp_path / "a.nc", "a doubt")
    assert not is_first(type(tmp_path)("b.nc"), "a doubt")


@pytest.mark.parametrize("copies", [1, 2])
def test_what_reading_frames_says_on_opening_is_said_each_time(tmp_path, monkeypatch, caplog, copies):
    """Frames of amounts are read to see whether they are totals, and of times that are there twice to choose a copy."""
    for number in range(MANY):
        field = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
        field[0, 0, 0] = 3000 + number
        how = {"units": "mm"} if copies == 1 else {"units": "mm h-1", "scale_factor": 12.0}
        path = stored.write(tmp_path / f"{number:02}.nc", field, times=[stored.START + 300 * (number // copies)], **how)
        os.utime(path, (AGO, AGO))
    told = said_on_opening(tmp_path, caplog, monkeypatch, indexed=False)
    assert any("values of rr above 10000 mm/h are taken as missing" in text for text in told)
    assert said_on_opening(tmp_path, caplog, monkeypatch, indexed=True) == told
    assert said_on_opening(tmp_path, caplog, monkeypatch, indexed=True) == told


def test_a_sample_of_files_that_cannot_be_read_for_a_while_is_taken_again(tmp_path, monkeypatch, caplog):
    """-99 is dry, unless one of the sampled files has dry cells: then it is missing."""
    for number in range(MANY):
        field = np.where(np.arange(24).reshape(1, 4, 6) % 3 == 0, 0 if number == 0 else -99, 2.5).astype("f4")
        field[0, 0, :2] = np.nan
        stored.write(tmp_path / f"{number:02}.nc", field, times=[stored.START + 300 * number])
        os.utime(tmp_path / f"{number:02}.nc", (AGO, AGO))
    told = said_on_opening(tmp_path, caplog, monkeypatch, indexed=False)
    with monkeypatch.context() as patch:
        get = reading.OPEN_FILES.briefly
        is_away = lambda path: path.name == "00.nc" and sys._getframe(2).f_globals["__name__"] == reading.__name__  # noqa: E731
        patch.setattr(reading.OPEN_FILES, "briefly", lambda path: away() if is_away(path) else get(path))
        assert said_on_opening(tmp_path, caplog, monkeypatch, indexed=True) != told
    assert said_on_opening(tmp_path, caplog, monkeypatch, indexed=True) == told


def away():
    raise OSError(errno.EIO, "the disk is away")


def test_samples_are_known_by_their_frames_and_how_each_file_is_read(tmp_path):
    for number in range(3):
        one_frame(tmp_path / f"{number}.nc", number)
    (record,) = open_records([tmp_path])
    paths, text = reading.described(record, record.frame_sources[[2, 0]])
    assert paths == [tmp_path / "0.nc", tmp_path / "2.nc"]
    assert text != reading.described(record, record.frame_sources[[0, 2]])[1]
    other = replace(record.layouts[2], turned=(True, False))
    assert text != reading.described(replace(record, layouts=(*record.layouts[:2], other)), record.frame_sources[[2, 0]])[1]
