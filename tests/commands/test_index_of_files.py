"""Commands that open a folder again open only the files that have changed, and answer as if they had opened all."""

import os
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from makers import command, rain, stored
from makers.processes import Forked, run_nowcast

import nowcast
from nowcast.commands.plot import open_frames
from nowcast.netcdf.files import OPEN_FILES
from nowcast.netcdf.index import MANY
from nowcast.prediction.series import open_sources

pytestmark = pytest.mark.slow  # all of them together take seconds

AGO = 1_600_000_000  # s
FILES = MANY + 4
MOST_OPENED = 8  # files that are opened though they are in the index
COMMANDS = {
    "inspect": ("inspect", "radar", "--format", "json"),
    "predict": ("predict", "persistence", "radar", "--output", "out.nc", "--overwrite"),
    "evaluate": ("evaluate", "persistence", "--observations", "radar", "--format", "json"),
}


def one_frame(path, number, **attributes):
    """Write rain whose grid mapping is not there, in a zone of time that is doubtful."""
    field = np.round(10 * rain(frames=1, shape=(24, 24), seed=number // 6, motion=(number % 6, 0))).astype("i2")
    stored.write(path, field, times=[stored.START + 300 * number], scale_factor=0.5, grid_mapping="nothing", **attributes)
    with stored.edit(path) as file:
        file["time"].long_name = "local time"
    os.utime(path, (AGO, AGO))


@pytest.fixture
def radar(tmp_path, monkeypatch):
    """A folder with a file of each frame, of which one is damaged, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "radar").mkdir()
    for number in range(FILES):
        one_frame(tmp_path / "radar" / f"{number:02}.nc", number)
    (tmp_path / "radar" / "07.nc").write_bytes(b"CDF\x01 and no more")
    (tmp_path / "in the way").write_text("")
    return tmp_path / "radar"


def run_noting(words):
    """Run nowcast with these arguments; write the names of the files that it opens to learn what they hold to `opened`."""
    opened, open_briefly = [], OPEN_FILES.briefly
    OPEN_FILES.briefly = lambda path: opened.append(path.name) or open_briefly(path)
    try:
        run_nowcast(words)
    finally:
        Path("opened").write_text(" ".join(opened))


def answer(name, *, cache, tmp_path):
    """Run a command in a new process; return (exit code, stdout, stderr, values of the file that is written), opened files."""
    with Forked(run_noting, COMMANDS[name], env=os.environ | {"NOWCAST_CACHE": cache}, folder=tmp_path) as process:
        done = process.wait()
    return (done.returncode, done.stdout, done.stderr, written()), set(Path("opened").read_text().split())


def written():
    if not os.path.exists("out.nc"):
        return None
    with netCDF4.Dataset("out.nc") as file:
        file.set_auto_maskandscale(False)
        return {name: (variable[...].tobytes(), str(vars(variable))) for name, variable in file.variables.items()}


def changed(radar):
    with stored.edit(radar / "05.nc") as file:
        file["rr"][:] = 40
    os.utime(radar / "05.nc", (AGO, AGO))


def replaced(radar):
    one_frame(radar.parent / "new.nc", 40, long_name="another")
    (radar.parent / "new.nc").replace(radar / "06.nc")


def of_other_units(radar):
    for number in range(3):
        one_frame(radar / f"{number:02}.nc", number, units="dBZ", zr_a=300.0, zr_b=1.4)


def damaged(radar):
    (radar / f"{FILES - 1:02}.nc").write_bytes((radar / f"{FILES - 1:02}.nc").read_bytes()[:-500])


def removed(radar):
    for name in ("00.nc", "01.nc"):  # the warnings are about the first file
        (radar / name).unlink()


def added(radar):
    one_frame(radar / f"{FILES:02}.nc", FILES)


def added_from_elsewhere(radar):
    """A file with the same times on another grid, which is another series."""
    stored.write(radar / "other.nc", np.ones((1, 8, 9), "i2"), times=[stored.START])
    os.utime(radar / "other.nc", (AGO, AGO))


CHANGES = ((), (changed, of_other_units), (added, damaged, removed), (replaced, added_from_elsewhere))  # after each other


@pytest.mark.parametrize("name", COMMANDS)
def test_answers_are_the_same_with_an_index(radar, tmp_path, name):
    """A file is opened for its warnings, the damaged one each time, and four for a sample where one of them has changed."""
    for changes in CHANGES:
        for change in changes:
            change(radar)
        plain, opened = answer(name, cache="in the way", tmp_path=tmp_path)
        # two series do not fit in one file, and one has a single frame
        assert plain[0] in ((0, 2, 75) if replaced in changes else (0,)), plain
        assert opened == {path.name for path in radar.iterdir()}
        first, _ = answer(name, cache="cache", tmp_path=tmp_path)
        again, opened = answer(name, cache="cache", tmp_path=tmp_path)
        assert first == again == plain, changes
        assert len(opened) <= MOST_OPENED


@pytest.mark.parametrize("name", COMMANDS)
def test_the_index_of_one_command_serves_the_others(radar, tmp_path, name):
    answer("inspect", cache="cache", tmp_path=tmp_path)
    done, opened = answer(name, cache="cache", tmp_path=tmp_path)
    assert done[0] == 0, done
    assert len(opened) <= MOST_OPENED


@pytest.mark.parametrize("cache", ["in the way", "in the way/below", "~nobody-of-this-name/c"])
def test_a_cache_that_cannot_be_written_does_not_matter(radar, tmp_path, cache):
    plain, _ = answer("predict", cache="cache", tmp_path=tmp_path)
    assert plain[0] == 0
    assert answer("predict", cache=cache, tmp_path=tmp_path)[0] == plain


def open_to_plot(path):
    return open_frames(path, None, None, (None, None))


def open_for_series(path):
    return open_sources([path], variable=None).records


@pytest.mark.parametrize("open_folder", [nowcast.open_records, open_to_plot, open_for_series])
def test_records_of_python_pictures_and_series_are_opened_with_it(radar, monkeypatch, open_folder):
    """For a picture or series the first file that is whole is opened, to tell whether it holds a forecast."""
    monkeypatch.setenv("NOWCAST_CACHE", "cache")
    open_folder("radar")
    opened, open_briefly = [], OPEN_FILES.briefly
    monkeypatch.setattr(OPEN_FILES, "briefly", lambda path: opened.append(path.name) or open_briefly(path))
    open_folder("radar")
    assert set(opened) == ({"07.nc"} if open_folder is nowcast.open_records else {"00.nc", "07.nc"})


def test_a_few_files_need_no_index(radar, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", "cache")
    assert command("inspect", *sorted(radar.iterdir())[:4])[0] == 0
    assert not os.path.exists("cache")
