"""`nowcast predict --watch` forecasts every series of a folder, such as those of several radars, under names of their own."""

import os

import numpy as np
import pytest
from makers import write_record
from makers.watching import FIELDS, READING, START, STEP, Radar, names, watched

from nowcast.forecasters.baselines import Persistence
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.prediction.watch import NEWEST, watch

pytestmark = pytest.mark.slow  # all of them together take seconds

RADARS = {"north": FIELDS, "south": 2 * FIELDS[:, 1:, 2:]}  # on grids of their own


@pytest.fixture
def inbox(tmp_path):
    for radar in RADARS:
        (tmp_path / "in" / radar).mkdir(parents=True)
    return tmp_path / "in"


def put(path, radar, n, step=STEP):
    write_record(path.parents[2] / "being_written.nc", RADARS[radar][[n]], times=[START + n * step])
    os.replace(path.parents[2] / "being_written.nc", path)


def arrive(inbox, radar, *numbers):
    """Files of the same names in the subfolder of each radar."""
    return [act for n in numbers for act in (lambda n=n: put(inbox / radar / f"{n:02}.nc", radar, n), lambda: None)]


def of(ending, *numbers):
    return [f"in-{ending}_{name}" for name in names(*numbers)]


def test_radars_in_subfolders_are_each_forecast(inbox):
    acts = [act for n in range(2, 5) for radar in RADARS for act in arrive(inbox, radar, n)]
    for radar in RADARS:
        for n in range(2):
            put(inbox / radar / f"{n:02}.nc", radar, n)
    made = watched(inbox, *acts)
    expected = [name for n in (1, 0, 2, 3, 4) for radar in RADARS for name in of(radar, n)]
    assert (sorted(made[:4]), made[4:]) == (sorted(expected[:4]), expected[4:])
    for radar, fields in RADARS.items():
        forecast = read_forecast(inbox.parent / "out" / f"in-{radar}_{names(4)[0]}")
        np.testing.assert_allclose(forecast.read(0)[0], fields[4], rtol=1e-6)
    assert watched(inbox) == []  # anew: all are there


def test_radars_in_one_folder_are_numbered_alike_when_the_watch_begins_anew(inbox):
    for n in range(3):
        for radar in RADARS:
            put(inbox / "north" / f"{n}_{radar}.nc", radar, n)
    made = watched(inbox)
    assert sorted(made) == [*of("1", 0, 1, 2), *of("2", 0, 1, 2)]
    put(inbox / "north" / "0_a.nc", "south", 3)
    (newest,) = watched(inbox)
    (before,) = {name for name in made if name.endswith(names(2)[0]) and name.split("_")[0] == newest.split("_")[0]}
    np.testing.assert_allclose(read_forecast(inbox.parent / "out" / newest).read(0)[0], RADARS["south"][3], rtol=1e-6)
    np.testing.assert_allclose(read_forecast(inbox.parent / "out" / before).read(0)[0], RADARS["south"][2], rtol=1e-6)


def test_a_backlog_of_one_radar_after_that_of_another_gives_forecasts_of_both(inbox):
    for age, radar in enumerate(RADARS):
        for n in range(40):
            put(inbox / radar / f"{n:02}.nc", radar, n)
            os.utime(inbox / radar / f"{n:02}.nc", (1e9 + age * 100 + n,) * 2)
    made = watched(inbox)
    assert sorted(made) == sorted(name for radar in RADARS for name in of(radar, *range(40 - NEWEST, 40)))


def test_while_one_radar_is_silent_the_other_keeps_its_names(inbox):
    for radar in RADARS:
        for n in range(3):
            put(inbox / radar / f"{n:02}.nc", radar, n)

    def clear():
        for path in (inbox / "south").iterdir():
            path.unlink()

    looks = [lambda: None] * 2
    made = watched(inbox, *looks, clear, *arrive(inbox, "north", *range(3, 30)))
    assert made[6:] == of("north", *range(3, 30))


def test_a_series_that_cannot_be_forecast_as_asked_leaves_the_others(inbox, caplog):
    for n in range(3):
        put(inbox / "north" / f"{n:02}.nc", "north", n)
        put(inbox / "south" / f"{n:02}.nc", "south", n, step=2 * STEP)
    radar = Radar(lambda: None, lambda: None)
    made = [path.name for path in watch(Persistence(), inbox, inbox.parent / "out", reading=READING, stop=radar, sums=(15,))]
    assert made == of("north", 2, 1, 0)
    (told,) = {message.partition(": ")[2] for message in caplog.messages if message.startswith("no forecast")}
    assert "15" in told
