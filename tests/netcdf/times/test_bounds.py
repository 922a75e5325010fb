"""Time bounds of rates that state no cell_methods, which are those of means where they start at the times, and of amounts."""

import numpy as np
import pytest
from makers.stored import START, edit, open_one, read_one, write

RATES = np.arange(72, dtype=np.float32).reshape(3, 4, 6) / 4  # mm/h, (time, y, x)
LATER = (
    "the times of rr are up to 5 min before the ends of its intervals (time bounds); the ends are taken as valid times.\n"
    'If they are instants, state that: cell_methods = "time: point"'
)
AROUND = (
    "rr states no cell_methods; the times in the middle of its time bounds are taken as those of instants.\n"
    'If it is a mean over them, state that: cell_methods = "time: mean"'
)


@pytest.mark.parametrize(
    ("start", "end", "later", "said"),
    [(0, 5, 5, LATER), (5, 0, 5, LATER), (-2.5, 2.5, 0, AROUND), (-5, 0, 0, None), (0, 0, 0, None)],
)
def test_rates_are_means_where_bounds_start_at_their_times(tmp_path, caplog, start, end, later, said):
    """IMERG's and CMORPH's half hours have their start as time, and no cell_methods. start, end: minutes after the times."""
    path = write(tmp_path / "a.nc", RATES)
    expected = open_one(path).times + np.timedelta64(later, "m")
    add_bounds(path, start, end)
    assert open_one(path).times.tolist() == expected.tolist()
    assert caplog.messages == ([f"{path}: {said}"] if said else [])


def add_bounds(path, start, end):
    """Add time bounds, minutes after the times: one for all, or (time,)."""
    with edit(path) as file:
        file.createDimension("nv", 2)
        file["time"].bounds = "time_bnds"
        times = np.asarray(file["time"][:])[:, None]
        ends = np.stack(np.broadcast_arrays(start, end, np.zeros(len(times)))[:2], axis=-1)  # (time, 2)
        file.createVariable("time_bnds", "i4", ("time", "nv"))[:] = times + 60 * ends


@pytest.mark.parametrize(
    ("start", "end", "later"),
    [(0, 5, [5, 5, 5]), (5, 0, [5, 5, 5]), (-2, 3, [3, 3, 3]), (0, [5, 5, 10], [5, 5, 10]), (2, 7, [0, 0, 0])],
)
def test_means_within_their_bounds_are_valid_at_the_ends(tmp_path, caplog, start, end, later):
    """start, end: minutes after the times, in either order; later: how far the times are moved."""
    path = write(tmp_path / "a.nc", RATES, cell_methods="time: mean")
    expected = open_one(path).times + np.array(later, "timedelta64[m]")
    add_bounds(path, start, end)
    assert open_one(path).times.tolist() == expected.tolist()
    said = f"{path}: the times of rr are up to {max(later)} min before the ends of its intervals (time bounds)"
    assert caplog.messages == ([f"{said}; the ends are taken as valid times"] if max(later) else [])


@pytest.mark.parametrize("methods", ["time: point", "valid_time: point", "t: point", "area: mean t: point"])
def test_rates_that_are_said_to_be_instants_keep_their_times(tmp_path, caplog, methods):
    path = write(tmp_path / "a.nc", RATES, cell_methods=methods)
    expected = open_one(path).times
    add_bounds(path, 0, 5)
    assert open_one(path).times.tolist() == expected.tolist()
    assert not caplog.messages


def test_bounds_have_the_calendar_of_the_times_and_may_have_units_of_their_own(tmp_path):
    path = write(tmp_path / "a.nc", RATES)
    expected = open_one(path).times + np.timedelta64(5, "m")
    with edit(path) as file:
        minutes = np.asarray(file["time"][:]) // 60
        # the proleptic Gregorian calendar is two days off the standard one in the year 1
        file["time"].setncatts({"units": "minutes since 0001-01-01", "calendar": "proleptic_gregorian"})
        file["time"][:] = minutes + 719162 * 1440
        file.createDimension("nv", 2)
        bounds = file.createVariable("time_bnds", "i8", ("time", "nv"))
        bounds[:] = np.stack([minutes, minutes + 5], axis=1) + 719162 * 1440
    assert open_one(path).times.tolist() == expected.tolist()
    with edit(path) as file:
        file["time_bnds"].setncatts({"units": "seconds since 1970-01-01", "calendar": "standard"})
        file["time_bnds"][:] = 60 * np.stack([minutes, minutes + 5], axis=1)
    assert open_one(path).times.tolist() == expected.tolist()


def test_bounds_that_cannot_be_read_do_not_matter_to_rates(tmp_path):
    path = write(tmp_path / "a.nc", RATES)
    with edit(path) as file:
        file.createDimension("nv", 2)
        file.createVariable("time_bnds", "f8", ("time", "nv"))[:] = np.nan
    np.testing.assert_array_equal(read_one(path), RATES)


@pytest.mark.parametrize("before", [0, 60])
def test_one_start_and_end_for_all_frames_are_no_interval(tmp_path, caplog, before):
    """They are the period that the file covers, of three amounts. before: s from a time to the end of its interval."""
    path = write(tmp_path / "a.nc", RATES, units="mm", cell_methods="time: sum over 5 minutes")
    with edit(path) as file:
        ends = np.asarray(file["time"][:])
        file["time"][:] = ends - before
        for name, second in (("start_time", ends[0] - 300), ("end_time", ends[-1])):
            file.createVariable(name, "i4").units = file["time"].units
            file[name][...] = second
    assert open_one(path).times.astype(np.int64).tolist() == (ends - before).tolist()
    np.testing.assert_allclose(read_one(path), RATES * 12, rtol=1e-6)
    assert not caplog.messages


def test_one_start_and_end_for_one_frame_are_its_interval(tmp_path):
    path = write(tmp_path / "a.nc", RATES[:1], units="mm")
    with edit(path) as file:
        for name, before in (("start_time", 900), ("end_time", 0)):
            file.createVariable(name, "i4").units = file["time"].units
            file[name][...] = file["time"][0] - before
    np.testing.assert_allclose(read_one(path), RATES[:1] * 4, rtol=1e-6)


def test_means_over_different_intervals_in_a_folder_are_told(tmp_path, caplog):
    for day, minutes in enumerate((5, 301 / 60, 60)):
        path = write(tmp_path / f"{day}.nc", RATES, times=START + 86400 * day + 300 * np.arange(3), cell_methods="time: mean")
        add_bounds(path, -minutes, 0)
        assert open_one(tmp_path).interval_seconds == 300
        assert len(caplog.messages) == (day == 2)
    said = "rr is a mean over 300 s, but rr in 2.nc over 3600 s"
    assert caplog.messages == [f"{tmp_path / '0.nc'}: {said}. Different products belong in folders of their own"]
