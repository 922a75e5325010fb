"""`nowcast predict --watch` on folders of many radars: all are forecast, up to a limit that is told."""

import os

import pytest
from makers import write_record
from makers.watching import FIELDS, READING, START, STEP, names, watched

from nowcast.prediction import watch as watch_module
from nowcast.prediction.watch import NEWEST

pytestmark = pytest.mark.slow  # all of them together take seconds


def put(path, radar, n):
    """Frame n of a radar, each of which has a grid of its own."""
    path.parent.mkdir(exist_ok=True)
    field = FIELDS[[n % len(FIELDS)], : 3 + radar % 6, : 3 + radar // 6]
    write_record(path.parents[1] / "being_written.nc", field, times=[START + n * STEP])
    os.replace(path.parents[1] / "being_written.nc", path)


def come(inbox, radars, numbers):
    """Of each radar one file after those of the others, in subfolders; each is looked at twice."""
    wanted = [(radar, n) for n in numbers for radar in radars]
    return [act for each in wanted for act in (lambda each=each: put(inbox / f"r{each[0]:02}" / f"{each[1]}.nc", *each), list)]


def counted(made):
    """How many forecasts there are of each reference time."""
    return {name: sum(each.endswith(name) for each in made) for name in sorted({each.rpartition("_")[2] for each in made})}


def test_of_seventeen_radars_that_come_in_turn_each_frame_is_forecast(inbox):
    made = watched(inbox, *come(inbox, range(17), range(3)))
    assert counted(made) == dict.fromkeys(names(*range(3)), 17)


def test_radars_beyond_the_limit_are_told_and_displace_none(inbox, monkeypatch, caplog):
    monkeypatch.setattr(watch_module, "MOST_SERIES", 3)
    made = watched(inbox, *come(inbox, range(5), range(4)))
    assert counted(made) == dict.fromkeys(names(*range(4)), 3)
    assert {name.partition("_")[0] for name in made[3:]} == {names(2)[0], names(3)[0], "in-r01", "in-r02"}
    told = f"{inbox} holds more than 3 series: the others are not forecast"
    assert [message for message in caplog.messages if "series" in message] == [told]


def test_a_radar_takes_the_place_of_one_that_has_fallen_silent(inbox, monkeypatch):
    monkeypatch.setattr(watch_module, "MOST_SERIES", 2)
    hours = int(watch_module.SILENT / STEP)
    come_later = come(inbox, [0, 2], range(hours + 3, hours + 7))
    made = watched(inbox, *come(inbox, [0, 1], range(3)), *come_later)
    later = [name for name in made if name.endswith(tuple(names(*range(hours + 3, hours + 7))))]
    assert len(later) == 8
    assert {name for name in later if name.startswith("in-")} == {
        f"in-r02_{name}" for name in names(*range(hours + 3, hours + 7))
    }


@pytest.mark.parametrize("called", ["{n:02}_r{radar:02}.nc", "r{radar:02}_{n:02}.nc"])
def test_of_a_backlog_of_many_radars_in_one_folder_all_are_forecast(inbox, called):
    for n in range(20):
        for radar in range(14):
            put(inbox / "all" / called.format(n=n, radar=radar), radar, n)
            os.utime(inbox / "all" / called.format(n=n, radar=radar), (1e9 + n * 300 + radar,) * 2)
    made = watched(inbox)
    assert counted(made) == dict.fromkeys(names(*range(20 - NEWEST, 20)), 14)


def test_a_series_of_few_files_does_not_open_a_whole_archive(inbox, monkeypatch):
    monkeypatch.setattr(watch_module, "MOST_SERIES", 2)
    for n in range(200):
        put(inbox / "all" / f"{n:03}.nc", 0, n)
    put(inbox / "all" / "stray.nc", 1, 0)
    folder, opened = watch_module.Watched(inbox, inbox.parent / "out", keep=16), []
    opens = folder._opens
    monkeypatch.setattr(folder, "_opens", lambda path, reading: opened.append(path) or opens(path, reading))
    assert not folder.look(READING)
    assert folder.look(READING)
    assert 16 < len(opened) <= 16 + 16 + 2 * 16
    (record,) = [each for each in folder.records(READING, 2) if each.grid.shape == (3, 3)]
    assert record.times[-1] == START + 199 * STEP
