"""The benchmark of forecasts runs in one command and prints a table; a network that does not fit is named."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from makers import rain, tiny_run, write_record

from nowcast.commands import export_run

ROOT = Path(__file__).resolve().parent.parent


def benchmark(tmp_path, *argv, shared=None):
    command = [sys.executable, ROOT / "scripts" / "benchmark_forecast.py", *argv, "--rounds", "1"]
    env = {**os.environ, "NOWCAST_SHARED": str(shared or tmp_path)}  # an empty folder: synthetic rain
    return subprocess.run([*map(str, command)], capture_output=True, text=True, env=env)


def test_networks_and_baselines_stand_in_one_table(tmp_path):
    done = benchmark(tmp_path, ROOT / "configs" / "quickstart.toml", "--grids", "40x48")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("12 frames from 4 on ")
    assert lines[2] == "| grid | forecaster | seconds | ÷ pysteps | MB | ÷ pysteps |"
    number = r"[\d.,]+ \([\d.,]+–[\d.,]+\)"
    assert re.fullmatch(rf"\| 40 × 48 \| `\S+quickstart\.toml` \| {number} \| [\d.]* \| {number} \| [\d.]* \|", lines[4])
    assert "`extrapolation`" in lines[5]


@pytest.mark.parametrize("real", [False, True])
def test_frames_have_the_grid_that_is_asked_for(tmp_path, monkeypatch, request, real):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import benchmark_forecast

    folder = request.getfixturevalue("shared") if real else tmp_path
    monkeypatch.setenv("NOWCAST_SHARED", str(folder))
    fields = benchmark_forecast.past_frames((1300, 50))
    assert fields.shape == (4, 1300, 50)
    assert (fields > 1).mean() > 0.01


def test_an_exported_network_stands_beside_the_run_that_it_is_from(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    run = tiny_run(tmp_path / "run", [write_record(tmp_path / "rain.nc", rain(frames=40))])
    export_run(str(run), tmp_path / "run.onnx", overwrite=False)
    done = benchmark(tmp_path, run, tmp_path / "run.onnx", "--grids", "40x48")
    assert done.returncode == 0, done.stderr
    assert "run.onnx`" in done.stdout.splitlines()[5]


def test_a_network_of_more_past_frames_is_named(tmp_path):
    done = benchmark(tmp_path, ROOT / "configs" / "beams_small.toml", "--grids", "24x24")
    assert done.returncode == 1
    assert "beams_small.toml forecasts from 5 frames; here there are 4" in done.stderr
    assert "Traceback" not in done.stderr
