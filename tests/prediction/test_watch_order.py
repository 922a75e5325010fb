"""`nowcast predict --watch` forecasts from the newest times, in whatever order files come and frames lie in them."""

import os

import numpy as np
import pytest
from makers import write_record
from makers.watching import FIELDS, START, STEP, arrivals, name, names, put, watched

from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.prediction import watch as watch_module
from nowcast.prediction.watch import NEWEST

pytestmark = pytest.mark.slow  # all of them together take seconds


@pytest.mark.parametrize("num_frames", [NEWEST + 3, 60])
def test_of_a_backlog_that_came_newest_first_the_newest_frames_are_forecast(inbox, num_frames):
    for n in range(num_frames):
        put(inbox, n)
        os.utime(inbox / f"frame{n:05}.nc", (1e9 - n, 1e9 - n))
    last = num_frames - 1
    assert watched(inbox, forecaster="extrapolation") == names(*range(last, last - NEWEST, -1))


def test_frames_that_come_newest_first_are_forecast_once_their_past_is_there(inbox):
    made = watched(inbox, *arrivals(inbox, range(17, -1, -1)), forecaster="extrapolation")
    assert sorted(made) == names(*range(18 - NEWEST, 18))


@pytest.mark.parametrize("num_late", [4, 20])
def test_frames_before_the_newest_are_not_forecast_late_and_displace_none(inbox, num_late):
    stop = 30 + NEWEST
    acts = [*arrivals(inbox, range(30, stop)), *arrivals(inbox, range(num_late)), *arrivals(inbox, [stop])]
    assert watched(inbox, *acts, forecaster="extrapolation") == names(*range(31, stop), stop)


def test_a_file_with_its_newest_frame_first_is_forecast_from_its_newest_times(inbox):
    write_record(inbox / "day.nc", FIELDS[29::-1], times=START + np.arange(29, -1, -1) * STEP)
    assert watched(inbox) == names(*range(29, 29 - NEWEST, -1))
    newest = read_forecast(inbox.parent / "out" / name(29))
    np.testing.assert_allclose(newest.read(0)[0], FIELDS[29], rtol=1e-6)


def test_frames_of_a_wrong_clock_do_not_end_forecasts(inbox, caplog):
    """As many files of the far future as are remembered."""
    wrong = np.datetime64("2037-01-01T00:00:00")
    for n in range(40):
        write_record(inbox / f"wrong{n:02}.nc", FIELDS[:1], times=[wrong + n * STEP])
    acts = arrivals(inbox, range(4))
    assert watched(inbox, *acts, forecaster="persistence")[-4:] == names(*range(4))
    assert "left out frames with times after tomorrow, the last at 2037-01-01T" in caplog.text


def test_names_that_are_used_again_are_found_in_a_folder_of_many(tmp_path, monkeypatch):
    monkeypatch.setattr(watch_module, "OLD_AT_ONCE", 10)
    for n in range(60):
        (tmp_path / f"frame{n:02}.nc").write_bytes(b"")
    folder, opened = watch_module.Watched(tmp_path, tmp_path / "out", keep=4), []
    monkeypatch.setattr(folder, "_opens", lambda path, reading: opened.append(path) or True)
    for _ in range(3):
        folder.look({})
    assert len(opened) == 4
    (tmp_path / "frame07.nc").write_bytes(b"new")
    for _ in range(8):  # of 60 old files, 10 at once, and once more to be sure that it no longer changes
        folder.look({})
    assert opened[4:] == [str(tmp_path / "frame07.nc")]


def test_of_equal_frames_that_came_again_the_file_that_changed_last_counts(inbox):
    """In a backlog of two radars, of which more files are opened after the newest."""
    corrected = 3 * FIELDS
    for n in range(40):
        put(inbox, n, called=f"a{n:02}.nc")
        put(inbox, n, field=FIELDS[[n], :5], called=f"b{n:02}.nc")
    put(inbox, 36, field=corrected[[36]], called="c36.nc")
    for age, path in enumerate(sorted(inbox.iterdir(), key=lambda path: (path.name[1:], path.name))):
        os.utime(path, (1e9 + age,) * 2)
    os.utime(inbox / "c36.nc", (2e9,) * 2)
    (made,) = {name for name in watched(inbox) if name.startswith("in-8x9-") and name.endswith(names(36)[0])}
    np.testing.assert_allclose(read_forecast(inbox.parent / "out" / made).read(0)[0], corrected[36], rtol=1e-6)
