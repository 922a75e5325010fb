"""Unusual files of every kind: the right rain, or one or two lines that name the file and the cure; never a wrong field."""

import netCDF4
import numpy as np
import pytest
from makers import ROOT, command, write_record
from makers.commands import reading_commands
from makers.stored import START, open_one, read_one
from makers.unusual_files import REFUSED, RIGHT

from nowcast.commands import inspect

pytestmark = [pytest.mark.usefixtures("cache"), pytest.mark.slow]


@pytest.fixture(autouse=True)
def few_sampled_frames(monkeypatch):
    """`nowcast inspect` reads at most nine frames of a record instead of 200."""
    monkeypatch.setattr(inspect, "SAMPLE", 9)


@pytest.mark.parametrize("name", RIGHT)
def test_an_unusual_file_is_read_right(tmp_path, name):
    make, expected = RIGHT[name]
    make(tmp_path / "unusual.nc")
    code, _, err = command("inspect", tmp_path / "unusual.nc", "--format", "json")
    assert code == 0, err
    if expected is not None:
        fields = read_one(tmp_path / "unusual.nc")
        np.testing.assert_array_equal(fields, np.asarray(expected, np.float32))
        times = open_one(tmp_path / "unusual.nc").times.astype(int)
        assert np.diff(times).tolist() == [300] * (len(times) - 1)
        assert times[0] in {START, 1_590_969_600}


@pytest.mark.parametrize("name", REFUSED)
def test_an_unusual_file_is_refused_by_name(tmp_path, name):
    make, message = REFUSED[name]
    path = tmp_path / "unusual.nc"
    make(path)
    for which, words in reading_commands(path, tmp_path).items():
        code, out, err = command(*words)
        assert (code, out) == (3, ""), which
        assert err.startswith(f"error: {path}"), which
        assert message in err, which
        assert len(err.splitlines()) <= 2, err


OUTCOMES = {  # of rain over 20 frames: the exit codes of predict and evaluate, and words of their errors
    "all dry": (np.zeros((20, 32, 32)), (0, ""), (0, "")),
    "all missing": (np.full((20, 32, 32), np.nan), (75, "Missing as a whole: 2020-06-01T01:3"), (3, "no pixel known")),
    "the newest frame missing": (np.where(np.arange(20)[:, None, None] == 19, np.nan, np.ones((20, 32, 32))),
                                 (75, "whole: 2020-06-01T01:35:00Z; a forecast from 2020-06-01T01:30:00Z"), (0, "")),
    "a grid of 3 × 3": (np.ones((20, 3, 3)), (0, ""), (0, "")),
    "a grid of 37 × 53": (np.ones((20, 37, 53)), (0, ""), (0, "")),
    "a single frame": (np.ones((1, 32, 32)), (75, "has a single frame: its time step"), (75, "has a single frame")),
}  # fmt: skip

REFUSED_TRAININGS = {
    "a grid of 3 × 3": (3, "data.crop = 16 is larger than the grid of unusual"),
    "a single frame": (75, "no complete training window"),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_every_command_ends_well_on_unusual_rain(tmp_path, name):
    rain, predicted, evaluated = OUTCOMES[name]
    path = write_record(tmp_path / "unusual.nc", rain)
    called = reading_commands(path, tmp_path)
    for forecaster in ("persistence", "extrapolation"):
        words = [forecaster if word == "persistence" else word for word in called["predict"]]
        code, _, err = command(*words)
        assert (code, predicted[1] in err) == (predicted[0], True), err
    code, _, err = command(*called["evaluate"])
    assert (code, evaluated[1] in err) == (evaluated[0], True), err
    code, _, err = command(*called["train"])
    expected, says = REFUSED_TRAININGS.get(name, (0, ""))
    assert code == expected, err
    assert says in err
    if name == "all dry":
        with netCDF4.Dataset(tmp_path / "forecast.nc") as file:
            np.testing.assert_array_equal(file["precip_intensity"][:], 0)


def test_the_page_of_the_tests_counts_the_kinds():
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    assert f"{len(RIGHT)} kinds that are read correctly, values compared, and {len(REFUSED)} that are refused" in text
