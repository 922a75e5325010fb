"""The benchmark of forecasts runs in one command and prints a table; a network that does not fit is named."""

import re
import subprocess

import pytest
from makers import ROOT, rain, tiny_run, write_record
from makers.processes import call_script, run_beside

COPY = "import runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"


def benchmark(tmp_path, *argv, shared=None):
    # an empty folder of real records: synthetic rain
    return call_script("benchmarks/forecasting.py", *argv, "--rounds", "1", NOWCAST_SHARED=shared or tmp_path)


@pytest.fixture
def copied(monkeypatch):
    """Have all be measured in copies of a process that has imported torch, but for the extrapolation, which needs no torch."""
    run = subprocess.run

    def run_copied(words, **options):
        return run(words, **options) if "extrapolation" in words else run_beside(__file__, COPY, *words[1:])

    monkeypatch.setattr(subprocess, "run", run_copied)


def write_onnx(path, *, input_frames=2):
    """A file with the names and facts that `nowcast export` writes (tests/test_export.py), whose forecast is the past."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    shape = ["case", input_frames, "y", "x"]
    taken, given = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("past", "forecast"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["past"], ["forecast"])], "g", [taken], [given])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    model.metadata_props.add(key="input_frames", value=str(input_frames))
    onnx.save(model, path)
    return path


@pytest.mark.slow
def test_networks_and_baselines_stand_in_one_table(tmp_path, monkeypatch, copied):
    """A network as a config, as a run folder and as an exported file."""
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    run = tiny_run(tmp_path / "run", [write_record(tmp_path / "rain.nc", rain(frames=40))])
    exported = write_onnx(tmp_path / "run.onnx")
    done = benchmark(tmp_path, ROOT / "configs" / "synthetic.toml", run, exported, "--grids", "40x48")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("12 frames from 4 on ")
    assert lines[2] == "| grid | forecaster | seconds | ÷ pysteps | MB | ÷ pysteps |"
    number = r"[\d.,]+ \([\d.,]+–[\d.,]+\)"
    for name, line in zip(("synthetic.toml", "run", "run.onnx"), lines[4:], strict=False):
        assert re.fullmatch(rf"\| 40 × 48 \| `\S+/{name}` \| {number} \| [\d.]* \| {number} \| [\d.]* \|", line)
    assert "`extrapolation`" in lines[7]


@pytest.mark.slow
@pytest.mark.parametrize("real", [False, True])
def test_frames_have_the_grid_that_is_asked_for(tmp_path, monkeypatch, request, real):
    import forecasting as benchmark_forecast

    folder = request.getfixturevalue("shared") if real else tmp_path
    monkeypatch.setenv("NOWCAST_SHARED", str(folder))
    fields = benchmark_forecast.past_frames((1300, 50))
    assert fields.shape == (4, 1300, 50)
    assert (fields > 1).mean() > 0.01


@pytest.mark.slow
def test_a_network_of_more_past_frames_is_named(tmp_path, capfd):
    done = benchmark(tmp_path, write_onnx(tmp_path / "five.onnx", input_frames=5), "--grids", "24x24")
    assert done.returncode == 1
    assert "five.onnx failed, see above" in done.stderr
    told = capfd.readouterr().err  # by the process of its own in which it was measured
    assert "five.onnx needs 5 past frames; this benchmark has 4" in told
    assert "Traceback" not in told + done.stderr
