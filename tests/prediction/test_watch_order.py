"""`nowcast predict --watch` forecasts from the newest times, in whatever order files come and frames lie in them."""

import os

import numpy as np
import pytest
from makers import write_record
from makers.watching import FIELDS, START, STEP, arrivals, name, names, put, watched

from nowcast.netcdf.forecast_reader import read_forecast
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
