"""Odd files of every kind: the right rain, or one or two lines that name the file and the cure; never a wrong field."""

import numpy as np
import pytest
import tomli_w
from makers import command, tiny_experiment
from odd_files import REFUSED, RIGHT
from stored import START, open_one, read_one

from nowcast import config, inspection


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(inspection, "SAMPLE", 9)


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
