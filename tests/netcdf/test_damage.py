"""A frame that cannot be read is missing as a whole, counted and named, by every command; a file that is gone is an error."""

import logging
from pathlib import Path

import numpy as np
import pytest
from makers import command, expect, rain, write_record
from makers.damaged import damage, write_by_frame

from nowcast.errors import DataError
from nowcast.netcdf.damage import Damage
from nowcast.netcdf.opening import open_records

pytestmark = pytest.mark.usefixtures("workplace")
SAYS = "1 frame cannot be read and counts as missing: 2020-06-01T00:50:00Z"


@pytest.fixture
def path(tmp_path):
    """A record of 24 frames every 5 minutes, of which number 10 is damaged."""
    path = tmp_path / "a.nc"
    damage(write_by_frame(path, rain(frames=24, shape=(40, 44)) + 0.1), [10])
    return path


def test_frames_are_read_but_for_the_damaged_one(path):
    (record,) = open_records([path])
    reader = Damage(record)
    found = reader.frames(range(8, 12))
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(found[[0, 1, 3]], record.read([8, 9, 11]))
    assert (list(reader.errors), reader.all_failed) == ([10], False)
    reader.read(10)
    assert reader.lines() == [f"{path}: {SAYS}"]  # read twice, it counts once


def test_where_all_that_was_read_is_damaged_is_known(path):
    (record,) = open_records([path])
    reader = Damage(record)
    assert not reader.all_failed
    reader.read(10)
    assert reader.all_failed
    assert "frame 10 of rainfall_rate cannot be read" in str(reader.first)
    reader.frames([3])
    assert not reader.all_failed


def test_a_damaged_frame_is_told_once(path, caplog):
    (record,) = open_records([path])
    for _ in range(2):
        reader = Damage(record)
        reader.frames(range(24))
        reader.warn()
    assert caplog.messages == [f"{path}: {SAYS}"]


def test_scores_are_of_all_else(path):
    code, out, err = command("evaluate", "persistence", "--observations", path, "--leads", "2", "--format", "json")
    assert code == 0
    assert f"{path}: {SAYS}" in err
    assert '"csi"' in out


def test_a_range_is_forecast_from_all_other_times(path):
    span = "--start", "2020-06-01T00:40", "--end", "2020-06-01T01:10"
    code, _, err = command("predict", "persistence", path, *span, "--leads", "2", "--output", "out/")
    assert code == 0
    assert sorted(Path("out").iterdir()) == [
        Path(f"out/20200601T{time}00Z.nc") for time in ("0040", "0045", "0055", "0100", "0105", "0110")
    ]
    assert f"{path}: {SAYS}" in err
    assert "left out 1 of 7 reference times" in err


def test_a_forecast_from_a_damaged_frame_is_refused(path):
    given = path, "--reference-time", "2020-06-01T00:50", "--leads", "2", "--output", "f.nc"
    expect(3, "predict", "persistence", *given, says="frame 10 of rainfall_rate cannot be read")


def test_the_frame_that_no_forecast_can_do_without_is_named(tmp_path):
    path = tmp_path / "b.nc"
    damage(write_by_frame(path, rain(frames=24, shape=(40, 44)) + 0.1), [9, 11])
    given = path, *("--reference-time", "2020-06-01T00:50"), *("--reference-time", "2020-06-01T00:55"), "--leads", "2"
    code, _, err = command("predict", "pretrained", *given, "--output", "out/")
    assert code == 3
    assert "frame 11 of rainfall_rate cannot be read" in err
    assert "1 frame cannot be read and counts as missing: 2020-06-01T00:45:00Z" in err


def test_a_picture_warns_once(tmp_path):
    """Of the 13 frames every second one is drawn."""
    path = tmp_path / "b.nc"
    damage(write_by_frame(path, rain(frames=24, shape=(40, 44)) + 0.1), [2, 4, 6])
    code, _, err = command("plot", path, "--start", "2020-06-01T00:00", "--end", "2020-06-01T01:00", "--output", "p.png")
    assert code == 0
    assert err.count("cannot be read") == 1
    assert "3 frames cannot be read and count as missing" in err


def test_what_is_observed_is_drawn_without_it(path):
    code, _, err = command("plot", path, "--start", "2020-06-01T00:45", "--end", "2020-06-01T00:55", "--output", "p.png")
    assert code == 0
    assert f"{path}: {SAYS}" in err
    alone = "--start", "2020-06-01T00:50", "--end", "2020-06-01T00:50", "--output", "q.png"
    expect(3, "plot", path, *alone, says="frame 10 of rainfall_rate cannot be read")


COMMANDS = {
    "evaluate": ("evaluate", "persistence", "--observations", "b.nc", "--leads", "2"),
    "predict": ("predict", "persistence", "b.nc", "--start", "2020-06-01", "--leads", "2", "--output", "out/"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_record_of_nothing_else_is_refused(name):
    damage(write_by_frame(Path("b.nc"), rain(frames=6, shape=(40, 44)) + 0.1), range(6))
    expect(3, *COMMANDS[name], says="of rainfall_rate cannot be read")


def test_an_api_array_has_it_missing(path, caplog):
    import nowcast

    with caplog.at_level(logging.WARNING):
        (array,) = nowcast.open_records(path)
        assert np.isnan(array[10]).all()
        assert np.isfinite(array[9]).all()
    assert f"{path}: {SAYS}" in caplog.text


def test_a_file_that_is_gone_is_an_error(path):
    (record,) = open_records([path])
    path.unlink()
    with pytest.raises(DataError, match=r"a\.nc cannot be read any more"):
        Damage(record).frames([3])


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("command_line", ["inspect fc", "plot fc --output a.png", "series fc --at 50.2,5.3 --output a.csv"])
def test_a_damaged_file_among_forecasts_is_left_out_even_if_it_is_the_first(tmp_path, number, command_line):
    """The first was taken for a record, and the error was about it alone."""
    path = write_record(tmp_path / "a.nc", rain(frames=6, shape=(40, 44)))
    span = "--start", "2020-06-01T00:15", "--end", "2020-06-01T00:25"
    assert command("predict", "persistence", path, *span, "--leads", "2", "--output", "fc/", "-q")[0] == 0
    damaged = sorted(Path("fc").iterdir())[number]
    damaged.write_bytes(damaged.read_bytes()[:2000])
    code, _, err = command(*command_line.split())
    assert (code, err.count("left out 1 of 3 files of fc; the first because: ")) == (0, 1), err
