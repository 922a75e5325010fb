"""Odd files of every kind: the right rain, or one or two lines that name the file and the cure; never a wrong field."""

import logging

import netCDF4
import numpy as np
import pytest
import tomli_w
from makers import ROOT, command, tiny_experiment, write_record
from makers.odd_files import RAIN, REFUSED, RIGHT, degrees
from makers.stored import START, edit, open_one, read_one

from nowcast import config
from nowcast.commands import inspect
from nowcast.netcdf.opening import open_records


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(inspect, "SAMPLE", 9)


def commands(path, folder):
    """What each of the four commands is called with to read `path`."""
    recipe = folder / "recipe.toml"
    recipe.write_text(tomli_w.dumps(config.as_dict(tiny_experiment([path]))))
    return {
        "inspect": ("inspect", path),
        "predict": ("predict", "persistence", path, "--output", folder / "forecast.nc"),
        "evaluate": ("evaluate", "persistence", "--observations", path),
        "train": ("train", recipe, "--dry-run"),
    }


@pytest.mark.parametrize("name", RIGHT)
def test_an_odd_file_is_read_right(tmp_path, name):
    make, expected = RIGHT[name]
    make(tmp_path / "odd.nc")
    code, _, err = command("inspect", tmp_path / "odd.nc", "--format", "json")
    assert code == 0, err
    if expected is not None:
        fields = read_one(tmp_path / "odd.nc")
        np.testing.assert_array_equal(fields, np.asarray(expected, np.float32))
        times = open_one(tmp_path / "odd.nc").times.astype(int)
        assert np.diff(times).tolist() == [300] * (len(times) - 1)
        assert times[0] in {START, 1_590_969_600}


@pytest.mark.parametrize("name", REFUSED)
def test_an_odd_file_is_refused_by_name(tmp_path, name):
    make, message = REFUSED[name]
    path = tmp_path / "odd.nc"
    make(path)
    for which, words in commands(path, tmp_path).items():
        code, out, err = command(*words)
        assert (code, out) == (3, ""), which
        assert err.startswith(f"error: {path}"), which
        assert message in err, which
        assert len(err.splitlines()) <= 2, err


def moments(seconds):
    return np.datetime64("2020-06-01") + np.asarray(seconds).astype("timedelta64[s]")


@pytest.mark.parametrize(
    ("off", "meant"),
    [
        ([0, 60, -60, 0, 30, -45, 0, 60], 300 * np.arange(8)),  # by a minute
        ([7, 11, 4, 9, 12, 6, 8, 10], 300 * np.arange(8)),  # some seconds late
        ([0, 0, 0, 60, 0, 0, 0, 0], 300 * np.arange(8)),  # a single one
    ],
)
def test_times_that_are_off_by_up_to_a_minute_are_taken_as_even(tmp_path, caplog, off, meant):
    times = moments(300 * np.arange(8) + off)
    with caplog.at_level(logging.WARNING):
        record = open_one(write_record(tmp_path / "a.nc", np.zeros((8, 4, 4)), times=times))
    np.testing.assert_array_equal(record.times, moments(meant))
    (message,) = (r.getMessage() for r in caplog.records)
    assert message == (f"a: {np.count_nonzero(off)} of 8 times, up to {np.abs(off).max()} s early or late, are taken as even")


@pytest.mark.parametrize(
    "seconds",
    [
        303 * np.arange(20),  # a step of its own
        [*range(0, 3600, 300), *range(3600, 9000, 360)],  # two steps
        [*range(0, 1500, 300), *range(3660, 5400, 300)],  # another minute after an outage
        [0, 300, 18_500_000, 44_400_000],  # no step at all
        [0, 300, 600, 750, 900, 1200],  # half a step is no jitter
        [0, 17],
        [0],
    ],
)
def test_times_that_are_even_in_their_own_way_stay(tmp_path, caplog, seconds):
    record = open_one(write_record(tmp_path / "a.nc", np.zeros((len(seconds), 4, 4)), times=moments(seconds)))
    np.testing.assert_array_equal(record.times, moments(seconds))
    assert not caplog.records


def test_files_whose_rows_run_differently_are_one_series(tmp_path):
    for number, up in enumerate((True, False, True)):
        write_record(tmp_path / f"{number}.nc", RAIN[number : number + 1], times=moments([300 * number]), y_ascending=up)
    np.testing.assert_array_equal(read_one(tmp_path), RAIN)


def test_longitude_and_latitude_over_the_grid_tell_places_and_distances(tmp_path):
    for name, northwards in (("down", False), ("up", True)):
        degrees(tmp_path / f"{name}.nc", northwards=northwards)
    down, up = (open_one(tmp_path / f"{name}.nc").grid for name in ("down", "up"))
    assert down.key == up.key
    assert (down.y_ascending, up.y_ascending) == (False, True)
    for grid in (down, up):
        assert grid.spacing_km == pytest.approx((1.112, 1.112 * np.cos(np.radians(50))), abs=0.002)
    degrees(tmp_path / "elsewhere.nc")
    with edit(tmp_path / "elsewhere.nc") as file:
        file["lon"][:] += 1
    assert len(open_records([tmp_path / "down.nc", tmp_path / "elsewhere.nc"])) == 2


OUTCOMES = {  # of rain over 20 frames: the exit codes of predict and evaluate, and words of their errors
    "all dry": (np.zeros((20, 32, 32)), (0, ""), (0, "")),
    "all missing": (np.full((20, 32, 32), np.nan), (75, "Missing as a whole: 2020-06-01T01:3"), (3, "no pixel known")),
    "the newest frame missing": (np.where(np.arange(20)[:, None, None] == 19, np.nan, np.ones((20, 32, 32))),
                                 (75, "Missing as a whole: 2020-06-01T01:35:00Z."), (0, "")),
    "a grid of 3 × 3": (np.ones((20, 3, 3)), (0, ""), (0, "")),
    "a grid of 37 × 53": (np.ones((20, 37, 53)), (0, ""), (0, "")),
    "a single frame": (np.ones((1, 32, 32)), (75, "has a single frame: its time step"), (75, "has a single frame")),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTCOMES)
def test_every_command_ends_well_on_it(tmp_path, name):
    rain, predicted, evaluated = OUTCOMES[name]
    path = write_record(tmp_path / "odd.nc", rain)
    called = commands(path, tmp_path)
    for forecaster in ("persistence", "extrapolation"):
        words = [forecaster if word == "persistence" else word for word in called["predict"]]
        code, _, err = command(*words, "--overwrite")
        assert (code, predicted[1] in err) == (predicted[0], True), err
    code, _, err = command(*called["evaluate"])
    assert (code, evaluated[1] in err) == (evaluated[0], True), err
    code, _, err = command(*called["train"])
    assert code == (3 if "single" in name else 0), err
    if name == "all dry":
        with netCDF4.Dataset(tmp_path / "forecast.nc") as file:
            np.testing.assert_array_equal(file["precip_intensity"][:], 0)


def test_an_unlikely_amount_of_rain_is_missing_and_said_once(tmp_path, caplog):
    for number in range(3):
        rain = np.full((1, 4, 4), 1.0)
        rain[0, 0, 0] = 2e4
        write_record(tmp_path / f"{number}.nc", rain, times=moments([300 * number]))
    fields = read_one(tmp_path)
    assert np.isnan(fields[:, 0, 0]).all()
    assert np.nansum(fields) == 45
    message = f"{tmp_path / '0.nc'}: values of rainfall_rate above 10000 mm/h are taken as missing. Are its units right?"
    assert caplog.messages == [message]


def test_the_page_of_the_tests_counts_them():
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    assert f"{len(RIGHT)} kinds that are read correctly, values compared, and {len(REFUSED)} that are refused" in text
