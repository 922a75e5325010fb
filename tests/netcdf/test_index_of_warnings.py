"""Files of the index have the same warnings as files that are opened, and in the same order."""

import os

import numpy as np
import pytest
from makers import stored

from nowcast.netcdf.index import MANY, FileIndex
from nowcast.netcdf.opening import open_records
from nowcast.runtime import log_lines
from nowcast.runtime.log_lines import is_first, noted_topics

pytestmark = pytest.mark.slow  # all of them together take seconds

AGO = 1_600_000_000  # s


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))


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
