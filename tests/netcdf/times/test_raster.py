"""Times of frames some seconds off are moved to an even raster of their own step, and found again by one tolerance."""

import numpy as np
import pytest
from makers import write_record
from makers.stored import open_one, write

from nowcast.dataset.windows import find_windows
from nowcast.errors import DataError
from nowcast.netcdf.record import most_frequent_step
from nowcast.netcdf.times.raster import absent_between, nearest, nominal_times, tolerance

START = 1_262_365_206  # 2010-01-01T17:00:06, in s from 1970


def moments(seconds):
    return np.asarray(np.round(seconds), np.int64).astype("datetime64[s]")


def jittered(step, *, frames, off=4, seed=0):
    return START + step * np.arange(frames) + np.random.default_rng(seed).integers(-off, off + 1, frames)


def free_running(step, *, frames, off=4, seed=0):
    """Times of a radar that starts a volume when the last one is done: what is late once stays so."""
    return START + np.cumsum(step + np.random.default_rng(seed).integers(-off, off + 1, frames))


def num_windows(times):
    step = most_frequent_step(times)
    return len(find_windows(times, input_frames=4, lead_frames=6, time_step=step))


@pytest.mark.parametrize("step", [90, 150, 270, 277, 300, 360, 600])
@pytest.mark.parametrize("frames", [16, 40, 400])
@pytest.mark.parametrize("seed", range(3))
def test_frames_on_a_raster_of_any_step_all_make_windows(step, frames, seed):
    times = moments(jittered(step, frames=frames, seed=seed))
    nominal = nominal_times(times)
    assert (np.diff(nominal) == np.timedelta64(step, "s")).all()
    assert np.abs(nominal - times).max() <= np.timedelta64(4 + 30, "s")
    assert num_windows(nominal) == frames - 9


@pytest.mark.parametrize("step", [150, 277, 300])
def test_a_radar_that_runs_freely_makes_windows_in_long_stretches(step):
    times = moments(free_running(step, frames=2000))
    nominal = nominal_times(times)
    assert np.abs(nominal - times).max() <= tolerance(np.timedelta64(step, "s"))
    assert num_windows(nominal) > 0.95 * 1991
    assert (np.diff(nominal) > np.timedelta64(0, "s")).all()


def test_an_absent_frame_leaves_the_raster_as_it_is():
    times = moments(np.delete(jittered(277, frames=60), [20, 33]))
    steps = np.diff(nominal_times(times)).astype(int)
    assert sorted(set(steps)) == [277, 554]
    assert (steps == 554).sum() == 2


@pytest.mark.parametrize("frames", [12, 300])
@pytest.mark.parametrize(
    ("step", "rounded"),
    [
        (300, lambda minutes: np.round(minutes / 60, 2) * 60),
        (300, lambda minutes: np.round(minutes / 1440, 4) * 1440),
        (300, lambda minutes: np.round(minutes / 2) * 2),
        (900, lambda minutes: np.round(minutes / 1440, 3) * 1440),
        (150, np.floor),
    ],
    ids=["0.01 hours", "0.0001 days", "two minutes", "0.001 days", "whole minutes"],
)
def test_rounded_times_with_two_steps_by_turns_are_on_the_raster_of_the_radar(frames, step, rounded):
    nominal = nominal_times(moments(1_262_304_000 + 60 * rounded(np.arange(frames) * step / 60)))
    assert set(np.diff(nominal).astype(int)) == {step}


def test_an_archive_that_changes_from_one_step_to_another_is_on_the_raster_of_each():
    times = moments(START + np.cumsum(np.repeat([240, 360], 30)))
    assert (nominal_times(times) == times).all()


@pytest.mark.parametrize("off", [[240, 277, 300, 344, 360], [200, 400]])
def test_frames_at_any_time_are_on_no_raster(off):
    times = moments(START + np.cumsum(np.random.default_rng(1).choice(off, 40)))
    assert (nominal_times(times) == times).all()


def test_times_cut_to_whole_hours_are_refused_and_joined_copies_are_not(tmp_path):
    fields = np.arange(24, dtype="f4")[:, None, None] * np.ones((4, 4), "f4")
    cut = write(tmp_path / "a.nc", fields, times=3600 * (np.arange(24) // 12))
    with pytest.raises(DataError) as raised:
        open_one(cut)
    assert str(raised.value) == (
        f"{cut} has 24 frames at 2 times: most have that of the frame before.\n"
        "Expected a time for every frame: perhaps these are whole hours or days."
    )
    for name, of_frames in (("joined", np.tile(np.arange(8), 3)), ("twice", np.repeat(np.arange(12), 2))):
        record = open_one(write(tmp_path / f"{name}.nc", fields, times=300 * of_frames))
        assert len(record) == of_frames.max() + 1
        np.testing.assert_array_equal(record.read([1])[0], fields[np.flatnonzero(of_frames == 1)[-1]])


def test_the_tolerance_is_a_quarter_of_the_step_and_at_most_90_s():
    steps = [60, 300, 3600, "NaT"]
    assert [tolerance(np.timedelta64(step, "s")).astype(int) for step in steps] == [15, 75, 90, 0]


def test_the_nearest_time():
    times = moments([0, 300, 600])
    position, off = nearest(times, moments([-50, 149, 151, 300, 900]))
    assert position.tolist() == [0, 0, 1, 1, 2]
    assert off.astype(int).tolist() == [50, 149, 149, 0, 300]


@pytest.mark.parametrize(("most", "absent"), [(0, []), (1, [600, 2850]), (2, [600, 2850]), (3, [600, 1500, 1800, 2100, 2850])])
def test_frames_are_absent_in_short_gaps_of_whole_steps(most, absent):
    times = moments([0, 300, 900, 1200, 2400, 2550, 3150, 3800])  # 150 and 650 are no multiples of the step
    assert absent_between(times, np.timedelta64(300, "s"), most).tolist() == moments(absent).tolist()
    assert absent_between(times, np.timedelta64("NaT", "s"), most).size == 0


@pytest.mark.parametrize(
    ("times", "nominal"),
    [
        ([0, 295, 600], [0, 300, 600]),  # three frames are enough
        ([0, 300, 600, 975, 1200, 1500], [0, 300, 600, 900, 1200, 1500]),  # just within the tolerance
        ([0, 300, 600, 976, 1200, 1500], [0, 300, 600, 976, 1200, 1500]),
        # the radar started again after an absent frame, 145 s later: a raster for each part
        ([0, 310, 600, 900, 1645, 1935, 2245, 2545], [0, 300, 600, 900, 1645, 1945, 2245, 2545]),
        # a quarter of the steps are gaps of any length
        ([0, 300, 605, 5000, 5300, 5595, 9007, 9307, 9611], [0, 300, 600, 5000, 5300, 5600, 9007, 9307, 9607]),
    ],
)
def test_nominal_times_by_hand(times, nominal):
    assert nominal_times(moments(times)).astype(int).tolist() == nominal


def test_a_frame_is_found_by_its_time_in_the_file_or_one_that_is_near(tmp_path):
    stamps = moments(jittered(300, frames=12, off=20))
    record = open_one(write_record(tmp_path / "a.nc", np.zeros((12, 4, 4)), times=stamps))
    seconds = np.timedelta64(1, "s")
    assert record.stamps.tolist() == stamps.tolist()
    for asked in (stamps, record.times, record.times + 70 * seconds, record.times - 70 * seconds):
        assert record.frames_at(asked).tolist() == record.times.tolist()
    assert np.isnat(record.frames_at(record.times[:-1] + 150 * seconds)).all()
    assert record.is_between(stamps[3], stamps[5]).nonzero()[0].tolist() == [3, 4, 5]
    assert record.is_between(record.times[3], None).nonzero()[0].tolist() == list(range(3, 12))
    assert record.is_between(record.times[-1] + 200 * seconds, None).sum() == 0


def test_a_record_on_its_raster_keeps_no_second_times(tmp_path):
    record = open_one(write_record(tmp_path / "a.nc", np.zeros((5, 4, 4))))
    assert len(record.stamps) == 0
    assert record.frames_at(record.times + np.timedelta64(75, "s")).tolist() == record.times.tolist()
    assert np.isnat(record.frames_at(record.times + np.timedelta64(76, "s"))).all()
