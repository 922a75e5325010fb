"""Baselines: rain of known motion is found again, missing stays missing, and nothing is made up."""

import importlib.util
import subprocess
import sys

import netCDF4
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import rain

from nowcast.errors import UsageError
from nowcast.forecasters.baselines import BASELINES, ENSEMBLES, Extrapolation, Persistence, available
from nowcast.motion import motion, semi_lagrangian

needs_pysteps = pytest.mark.skipif(not importlib.util.find_spec("pysteps"), reason="pysteps is not installed")


def uniform(shape, y, x):
    return np.broadcast_to(np.float32([y, x])[:, None, None], (2, *shape))


def csi(forecast, observed, threshold=1.0):
    known = ~np.isnan(forecast) & ~np.isnan(observed)
    forecast, observed = (forecast >= threshold) & known, (observed >= threshold) & known
    return (forecast & observed).sum() / (forecast | observed).sum()


@pytest.fixture(params=available())
def baseline(request):
    return BASELINES[request.param]()


def test_the_table_names_each_baseline_by_its_own_name():
    assert {name: cls.name for name, cls in BASELINES.items()} == {name: name for name in BASELINES}
    assert list(BASELINES) == ["persistence", "extrapolation", "pysteps", "sprog"]
    assert available()[:2] == ("persistence", "extrapolation")


# every baseline that can be used here


def test_a_forecast_has_the_shape_and_kind_of_its_past(baseline):
    past = np.stack([rain(frames=4, seed=seed) for seed in (1, 2)])
    forecast = baseline.forecast(past, 3)
    assert forecast.shape == (2, 3, 48, 56)
    assert forecast.dtype == np.float32
    assert np.nanmin(forecast) >= 0


def test_cases_do_not_touch_each_other(baseline):
    past = np.stack([rain(frames=4, seed=seed) for seed in (1, 2)])
    np.testing.assert_array_equal(baseline.forecast(past, 2)[1:], baseline.forecast(past[1:], 2))


def test_the_same_past_gives_the_same_forecast_and_is_left_as_it_was(baseline):
    past = rain(frames=4, missing=0.1)[None]
    before = past.copy()
    np.testing.assert_array_equal(baseline.forecast(past, 4), baseline.forecast(past, 4))
    np.testing.assert_array_equal(past, before)


def test_dry_weather_stays_dry(baseline):
    np.testing.assert_array_equal(baseline.forecast(np.zeros((1, 4, 40, 48)), 3), np.zeros((1, 3, 40, 48)))


def test_nothing_known_gives_nothing(baseline):
    assert np.isnan(baseline.forecast(np.full((1, 4, 40, 48), np.nan), 3)).all()


def test_a_missing_area_is_never_forecast_dry(baseline):
    past = rain(frames=4, motion=(0, 0)) + 1  # rain everywhere: a zero could only come from the missing cells
    past[:, 10:25, 20:40] = np.nan
    forecast = baseline.forecast(past[None], 3)[0]
    assert np.isnan(forecast[:, 12:23, 22:38]).all()
    assert np.isnan(forecast).mean() < 0.3
    assert np.nanmin(forecast) > 0.8


def test_too_short_a_past_is_refused_with_the_number_wanted(baseline):
    past = rain(frames=baseline.input_frames)[None]
    assert np.isfinite(baseline.forecast(past, 1)).any()
    with pytest.raises(UsageError, match=f"{baseline.name} needs {baseline.input_frames} past frames? "):
        baseline.forecast(past[:, 1:], 1)


def test_rain_of_known_motion_is_forecast_better_than_by_persistence(baseline):
    fields = rain(frames=12, shape=(96, 96), motion=(1, 2))
    forecast = baseline.forecast(fields[None, :4], 8)[0]
    if baseline.name == "persistence":
        np.testing.assert_array_equal(forecast, np.repeat(fields[3:4], 8, axis=0))
    else:
        assert csi(forecast, fields[4:]) > csi(np.repeat(fields[3:4], 8, axis=0), fields[4:]) + 0.3


# persistence


def test_persistence_is_the_newest_frame_bit_for_bit():
    past = rain(frames=3, missing=0.2)
    forecast = Persistence().forecast(past[None], 5)[0]
    for lead in range(5):
        np.testing.assert_array_equal(forecast[lead], past[-1])


# motion


@pytest.mark.parametrize("by", [(1, 2), (2, -1), (-3, 1), (0, -6), (0, 0)])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_motion_is_found_with_its_sign_and_order(by, missing):
    found = motion(rain(frames=4, shape=(96, 104), motion=by, missing=missing))
    assert found.shape == (2, 96, 104)
    assert found.dtype == np.float32
    assert np.abs(found - uniform((96, 104), *by)).mean() < 0.1
    assert np.abs(found - uniform((96, 104), *by)).max() < 0.3


@pytest.mark.parametrize(("shape", "by"), [((8, 300), (0, 2)), ((300, 9), (2, 0)), ((23, 200), (0, -3)), ((24, 200), (0, -3))])
def test_motion_along_a_narrow_grid_is_found(shape, by):
    found = motion(rain(frames=4, shape=shape, motion=by))
    np.testing.assert_allclose(found.mean((1, 2)), by, atol=0.3)


def test_motion_reaches_into_the_dry_area():
    fields = rain(frames=4, shape=(128, 128), motion=(1, 2))
    fields[:, :, 64:] = 0
    fields[:, :, 58:64] *= np.linspace(1, 0, 6, dtype=np.float32)  # no standing edge
    np.testing.assert_allclose(motion(fields)[:, 32:96, 110].mean(1), (1, 2), atol=0.5)


def test_motion_without_rain_or_from_one_frame_is_zero():
    assert not motion(np.zeros((4, 20, 30))).any()
    assert not motion(np.full((4, 20, 30), np.nan)).any()
    assert not motion(rain(frames=1)).any()


def test_the_edge_of_radar_coverage_does_not_hold_the_rain_back():
    fields = rain(frames=4, shape=(96, 96), motion=(1, 2))
    y, x = np.indices((96, 96)) - 47.5
    fields[:, np.hypot(y, x) > 40] = np.nan
    found = motion(fields)[:, np.hypot(y, x) < 36]
    assert np.abs(found - np.float32([[1], [2]])).mean() < 0.1


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=25)
def test_any_small_grid_gives_finite_motion_and_a_forecast_within_range(ny, nx, seed):
    past = np.random.default_rng(seed).gamma(0.3, 5, (3, ny, nx)).astype(np.float32)
    assert np.isfinite(motion(past)).all()
    forecast = Extrapolation().forecast(past[None], 3)
    known = forecast[~np.isnan(forecast)]
    assert (known >= past[-1].min() * (1 - 1e-5)).all()
    assert (known <= past[-1].max() * (1 + 1e-5)).all()


# semi-Lagrangian


def test_whole_cells_of_motion_move_the_field_exactly():
    field = rain(frames=1, missing=0.1)[0]
    moved = semi_lagrangian(field, uniform(field.shape, 2, -3), 3)
    for lead in (1, 2, 3):
        expected = np.full_like(field, np.nan)
        expected[2 * lead :, : -3 * lead] = field[: -2 * lead, 3 * lead :]
        np.testing.assert_array_equal(moved[lead - 1], expected)


def test_no_motion_is_persistence_bit_for_bit():
    field = rain(frames=1, missing=0.3)[0]
    np.testing.assert_array_equal(semi_lagrangian(field, uniform(field.shape, 0, 0), 2), np.stack([field, field]))


def test_half_a_cell_of_motion_is_the_mean_of_two_cells():
    field = np.float32([[0, 4, 8, 2]])
    moved = semi_lagrangian(field, uniform(field.shape, 0, 0.5), 1)[0]
    np.testing.assert_allclose(moved, [[0, 2, 6, 5]], atol=1e-5)  # the first is half outside: the known half


def test_a_rotation_follows_the_circle():
    y, x = np.indices((81, 81), dtype=np.float32) - 40
    turn = np.deg2rad(10)  # per frame: nine leads are a quarter turn
    field = np.exp(-((y - 0) ** 2 + (x - 20) ** 2) / 18)
    last = semi_lagrangian(field, np.stack([turn * x, -turn * y]).astype(np.float32), 9)[-1]
    peak = np.unravel_index(np.nanargmax(last), last.shape)
    assert np.hypot(peak[0] - 60, peak[1] - 40) <= 1.5


def test_a_missing_cell_moves_with_the_rain_and_does_not_grow():
    field = np.ones((30, 30), np.float32)
    field[5:9, 5:9] = np.nan
    moved = semi_lagrangian(field, uniform(field.shape, 1.3, 0.7), 5)
    for lead in range(5):
        inside = moved[lead, int(1.3 * (lead + 1)) + 1 :, int(0.7 * (lead + 1)) + 1 :]  # past what came in
        assert 9 <= np.isnan(inside).sum() <= 16
        assert (inside[~np.isnan(inside)] == 1).all()
    assert np.isnan(moved[4, 5 + 7, 5 + 4])


def test_what_comes_from_outside_is_missing():
    field = rain(frames=1)[0]
    moved = semi_lagrangian(field, uniform(field.shape, 0, 4), 3)
    assert np.isnan(moved).sum(axis=(1, 2)).tolist() == [48 * 4, 48 * 8, 48 * 12]


# extrapolation


def test_extrapolation_forecasts_rain_moved_by_whole_cells():
    fields = rain(frames=10, shape=(96, 104), motion=(1, 2))
    forecast = Extrapolation().forecast(fields[None, :4], 6)[0]
    known = ~np.isnan(forecast)
    error = np.abs(forecast - fields[4:])[known].mean()
    assert known.mean() > 0.8
    assert error < 0.05 * np.abs(fields[3] - fields[4:]).mean()  # of the error of persistence
    assert csi(forecast, fields[4:]) > 0.95


def test_extrapolation_keeps_its_skill_where_cells_are_missing():
    fields = rain(frames=10, shape=(96, 104), motion=(-2, 1), missing=0.1)
    forecast = Extrapolation().forecast(fields[None, :4], 6)[0]
    assert csi(forecast, fields[4:]) > 0.9


def test_extrapolation_uses_the_newest_frames_only():
    past = rain(frames=9)
    np.testing.assert_array_equal(Extrapolation().forecast(past[None], 2), Extrapolation().forecast(past[None, -4:], 2))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "start"), [("mch/20150515", 0), ("knmi/20100826", 25), ("mrms/20190610_southeast", 9)])
def test_extrapolation_beats_persistence_on_radar_records(shared, name, start):
    with netCDF4.Dataset(shared / "radar" / f"{name}.nc") as file:
        fields = np.ma.filled(file["rainfall_rate"][start : start + 16].astype(np.float32), np.nan)
    forecast = Extrapolation().forecast(fields[None, :4], 12)[0]
    persistence = np.where(np.isnan(forecast), np.nan, fields[3])
    assert csi(forecast, fields[4:]) > csi(persistence, fields[4:]) + 0.02


# pysteps


def test_pysteps_baselines_say_what_to_install_where_it_is_absent(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert available() == ("persistence", "extrapolation")
    for name in ("pysteps", "sprog"):
        with pytest.raises(UsageError, match=r"pysteps is not installed: pip install pysteps"):
            BASELINES[name]()


def test_importing_the_baselines_imports_no_pysteps_and_no_torch():
    code = "import sys, nowcast.forecasters.baselines; print([m for m in ('pysteps', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@needs_pysteps
@pytest.mark.parametrize("name", ["pysteps", "sprog"])
def test_pysteps_says_nothing_on_stdout(name, capfd):
    forecast = BASELINES[name]().forecast(rain(frames=4, shape=(64, 64))[None], 2)
    assert np.isfinite(forecast).any()
    assert capfd.readouterr().out == ""


@needs_pysteps
@pytest.mark.parametrize("name", ["pysteps", "sprog"])
def test_pysteps_moves_rain_as_we_do(name):
    fields = rain(frames=8, shape=(96, 96), motion=(2, 1))
    theirs = BASELINES[name]().forecast(fields[None, :4], 4)[0]
    ours = Extrapolation().forecast(fields[None, :4], 4)[0]
    assert csi(theirs, ours) > 0.85


@needs_pysteps
def test_random_numbers_of_numpy_go_on_as_if_pysteps_had_drawn_none():
    past, steps = rain(frames=3, shape=(64, 64)), ENSEMBLES["steps"]()
    np.random.seed(3)
    first, second = (np.stack(list(steps.members(past, 2, 2, seed=seed))) for seed in (1, 1))
    drawn = np.random.rand(3)
    np.random.seed(3)
    np.testing.assert_array_equal(drawn, np.random.rand(3))
    np.testing.assert_array_equal(first, second)
    assert (first[:, 0] != first[:, 1]).any()


def strange(kind):
    past = np.zeros((3, 16, 16), np.float32)
    if kind == "single cells":
        past[[0, 1, 2], [3, 8, 12], [3, 8, 2]] = 5
    elif kind == "uniform":
        past += 1
    elif kind == "standing still":
        past[:, 3, 3] = 5
    else:
        past[:] = np.random.default_rng(0).random(past.shape) * 10
        past[1] = 0
        past[1, 0, 0] = 1700
    return past


@pytest.mark.parametrize("kind", ["single cells", "uniform", "standing still", "a spike"])
@pytest.mark.parametrize("name", available())
def test_every_baseline_forecasts_from_frames_with_little_to_go_by(name, kind):
    forecast = BASELINES[name]().forecast_case(strange(kind), 3)
    assert forecast.shape == (3, 16, 16)
    assert (forecast[~np.isnan(forecast)] >= 0).all()
    assert not np.isinf(forecast).any()
