"""The benchmark of scores runs in one command on tiny fields, checks that all agree, and prints a table."""

import importlib.util
import re

import numpy as np
import pytest
from makers.processes import call_script


def benchmark(tmp_path, *argv):
    return call_script("benchmarks/scoring.py", *argv, NOWCAST_SHARED=tmp_path)  # an empty folder: synthetic rain


@pytest.mark.slow
def test_the_tools_stand_in_one_table_and_agree(tmp_path):
    done = benchmark(tmp_path, "--grid", "100x110", "--leads", "2", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "5 thresholds × 4 scales × 2 leads on 100 × 110; 1 rounds."
    there = [name for name in ("nowcast", "scores", "pysteps") if importlib.util.find_spec(name)]
    for name, line in zip(there, lines[4:], strict=True):
        found = re.fullmatch(rf"\| {name} \| ([\d.]+) \([\d.]+–[\d.]+\) \| [\d.]+ \| ([\d.e+-]+) \|", line)
        assert float(found[1]) > 0
        assert float(found[2]) <= 1e-9


def test_a_grid_smaller_than_the_largest_window_is_refused(tmp_path):
    done = benchmark(tmp_path, "--grid", "40x90")
    assert done.returncode == 2
    assert "--grid: the largest window has 41 cells each way" in done.stderr


@pytest.mark.parametrize("shape", [(100, 110), (600, 90)])
def test_the_fields_have_events_and_a_dry_frame(tmp_path, monkeypatch, shape):
    monkeypatch.setenv("NOWCAST_SHARED", str(tmp_path))
    import scoring as benchmark_scores

    forecast, observed = benchmark_scores.fields(shape, 2)
    assert forecast.shape == observed.shape == (2, *shape)
    assert (observed >= 1).any(axis=(1, 2)).all()
    rim = 40
    for field in (forecast, observed):
        assert not field[:, :rim].any()
        assert not field[:, :, -rim:].any()
    assert not np.array_equal(forecast[0], observed[0])


def test_the_largest_difference_is_found(monkeypatch):
    import scoring as benchmark_scores

    ours = {"csi": np.array([[0.5, np.nan]]), "fss": np.array([[[0.25]]])}
    assert benchmark_scores.largest_difference(ours, {"csi": np.array([[0.5, 0.0]]), "fss": np.array([[[0.5]]])}) == 0.25
