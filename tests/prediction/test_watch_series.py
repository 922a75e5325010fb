"""`nowcast predict --watch` forecasts every series of a folder, such as those of several radars, under names of their own."""

import os

import numpy as np
import pytest
from makers import write_record
from makers.watching import FIELDS, READING, START, STEP, Radar, names, watched

from nowcast.forecasters.baselines import BASELINES, Persistence
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


def shapes(inbox):
    """What forecasts are called before their time -> the shapes of the grids on which they are."""
    found = {}
    for path in sorted((inbox.parent / "out").glob("*.nc")):
        found.setdefault(path.name.rpartition("_")[0], set()).add(read_forecast(path).grid.shape)
    return found


def sizes(inbox):
    """The endings of names without the digests in them."""
    return sorted(ending.rpartition("-")[0] for ending in shapes(inbox))


def test_radars_in_one_folder_are_named_by_their_places(inbox):
    for n in range(3):
        for radar in RADARS:
            put(inbox / "north" / f"{n}_{radar}.nc", radar, n)
    assert len(watched(inbox)) == 6
    before = shapes(inbox)
    assert sizes(inbox) == ["in-7x7", "in-8x9"]
    put(inbox / "north" / "0_a.nc", "south", 3)
    (newest,) = watched(inbox)
    assert shapes(inbox) == before
    assert before[newest.rpartition("_")[0]] == {(7, 7)}
    np.testing.assert_allclose(read_forecast(inbox.parent / "out" / newest).read(0)[0], RADARS["south"][3], rtol=1e-6)


@pytest.mark.parametrize("first", list(RADARS))
def test_the_first_radar_keeps_the_plain_names_when_another_comes_and_the_watch_begins_anew(inbox, first):
    """The names of two radars in one folder were exchanged, and forecasts of one were taken for those of the other."""
    (second,) = set(RADARS) - {first}
    flat = {radar: [lambda n=n, radar=radar: put(inbox / "north" / f"{radar}{n}.nc", radar, n) for n in range(3)]
            for radar in RADARS}  # fmt: skip
    acts = [act for put_one in flat[first] + flat[second] for act in (put_one, lambda: None)]
    made = watched(inbox, *acts)
    assert made[:3] == names(1, 0, 2)
    assert len(made) == 6
    found = {name.partition("-")[2].partition("-")[0]: grids for name, grids in shapes(inbox).items()}
    size = {"north": (8, 9), "south": (7, 7)}
    assert found == {"": {size[first]}, "{}x{}".format(*size[second]): {size[second]}}
    assert watched(inbox) == []
    for radar in RADARS:
        put(inbox / "north" / f"{radar}9.nc", radar, 3)
    again = watched(inbox)
    assert names(3)[0] in again
    assert len(again) == 2
    assert list(map(len, shapes(inbox).values())) == [1, 1]


def test_a_radar_that_is_alone_for_a_while_keeps_its_ending(inbox):
    for n in range(3):
        for radar in RADARS:
            put(inbox / radar / f"{n}.nc", radar, n)
    watched(inbox)
    for path in (inbox / "south").iterdir():
        path.unlink()
    assert watched(inbox, *arrive(inbox, "north", 3)) == of("north", 3)


def test_a_name_is_not_given_to_another_radar(inbox):
    """South is in the subfolder of north now, alone; and in the folder alone."""
    for n in range(3):
        for radar in RADARS:
            put(inbox / radar / f"{n}.nc", radar, n)
    watched(inbox)
    before = shapes(inbox)
    for radar in RADARS:
        for path in (inbox / radar).iterdir():
            path.unlink()
    changed = 3 * FIELDS[:, :, :5]
    for n in range(3):
        write_record(inbox / "north" / f"{n}.nc", changed[[n]], times=[START + n * STEP])
        put(inbox / "south" / f"{n}.nc", "south", n)
    assert len(watched(inbox)) == 3
    (new,) = shapes(inbox).keys() - before.keys()
    assert shapes(inbox) == before | {new: {(8, 5)}}
    assert new.startswith("in-8x5-")


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


def test_forecasts_with_probabilities_and_sums_keep_their_names_when_the_watch_begins_anew(inbox):
    for n in range(3):
        for radar in RADARS:
            put(inbox / "north" / f"{n}_{radar}.nc", radar, n)

    def made():
        asked = {"thresholds": (0.5, 2.0), "sums": (15,), "stop": Radar(lambda: None, lambda: None)}
        return [
            path.name for path in watch(BASELINES["extrapolation"](), inbox, inbox.parent / "out", reading=READING, **asked)
        ]

    assert len(made()) == 4  # extrapolation needs two frames
    assert made() == []
    put(inbox / "north" / "north3.nc", "north", 3)
    (newest,) = made()
    assert newest.startswith("in-8x9-")
