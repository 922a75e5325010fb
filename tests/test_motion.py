"""In Lagrangian coordinates what only moves stands still, and comes back to where it was."""

import numpy as np
from makers import rain

from nowcast.motion import from_lagrangian, future_places, motion, past_to_lagrangian, read_nearest, semi_lagrangian, trace


def to_lagrangian(window, num_past):
    past, future = window[:num_past], window[num_past:]
    flow = motion(past)
    after = [read_nearest(frame, places) for frame, places in zip(future, future_places(flow, len(future)), strict=True)]
    return np.stack([*past_to_lagrangian(past, flow), *after])


INSIDE = np.s_[..., 40:-40, 40:-40]


def test_moving_rain_stands_still():
    window = rain(frames=10, shape=(160, 168), motion=(1, -2))
    still = to_lagrangian(window, 4)
    assert still.shape == window.shape
    np.testing.assert_array_equal(still[3], window[3])
    moved = np.abs(window[INSIDE] - window[3][INSIDE]).mean()
    assert np.nanmean(np.abs(still[INSIDE] - still[3][INSIDE])) < 0.2 * moved


def test_the_motion_is_that_of_the_rain():
    for velocity in ((1, -2), (-3, 0), (0, 5)):
        flow = motion(rain(frames=4, shape=(160, 168), motion=velocity))[INSIDE]
        error = np.abs(flow - np.reshape(velocity, (2, 1, 1)))
        assert error.mean() < 0.1
        assert error.max() < 0.5


def test_some_cells_are_as_in_the_whole():
    window, cells = rain(frames=6, shape=(64, 72), motion=(1, 2), missing=0.05), np.s_[10:30, 20:72]
    flow = motion(window[:3])
    np.testing.assert_array_equal(past_to_lagrangian(window[:3], flow, cells), past_to_lagrangian(window[:3], flow)[:, *cells])
    for some, whole in zip(future_places(flow, 3, cells), future_places(flow, 3), strict=True):
        np.testing.assert_array_equal(some, [places[cells] for places in whole])


def test_the_newest_frame_carried_back_is_the_extrapolation():
    past = rain(frames=4, shape=(64, 72), motion=(1, 2), missing=0.05)
    flow = motion(past)
    carried = from_lagrangian(np.repeat(past[-1:], 6, axis=0), flow)
    np.testing.assert_array_equal(carried, semi_lagrangian(past[-1], flow, 6))


def test_further_axes_are_carried_alike():
    past = rain(frames=4, shape=(64, 72), motion=(1, 2))
    flow, fields = motion(past), np.random.default_rng(0).random((3, 2, 64, 72), np.float32)
    carried = from_lagrangian(fields, flow)
    np.testing.assert_array_equal(carried[:, 1], from_lagrangian(fields[:, 1], flow))


def test_there_and_back_along_a_steady_flow():
    flow = np.stack([np.full((60, 60), 1.5, np.float32), np.full((60, 60), -0.75, np.float32)])
    for number, (there, back) in enumerate(zip(trace(flow, 5, forward=True), trace(flow, 5), strict=True), 1):
        np.testing.assert_allclose(there[0][30, 30] - 30, -0.75 * number, rtol=1e-5)
        np.testing.assert_allclose(30 - back[1][30, 30], 1.5 * number, rtol=1e-5)


def test_missing_stays_missing_and_outside_is_missing():
    window = rain(frames=6, shape=(64, 64), motion=(0, 3))
    window[:, 20:40, 20:40] = np.nan
    still = to_lagrangian(window, 3)
    assert np.isnan(still[2, 20:40, 20:40]).all()
    assert np.isnan(still[-1, :, -8:]).all()  # that air has left the grid
    assert np.isfinite(still[:, 50:, 10:40]).all()
