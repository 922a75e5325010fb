"""What a command cannot do: unusable files, too few frames, wrong options. One or two lines say why; nothing is left behind."""

import json
import os
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from makers import command, expect, rain, write_record

from nowcast.forecasters import export
from nowcast.netcdf.forecast_reader import read_forecast

pytestmark = pytest.mark.usefixtures("workplace")

START = np.datetime64("2020-06-01T00:00:00")
MINUTES = np.timedelta64(60, "s")


def test_no_such_file(inputs):
    expect(2, "inspect", "absent.nc", says=r"^error: no such file or folder: absent\.nc\n$")
    expect(2, "predict", "persistence", "absent.nc", "--output", "f.nc", says=r"no such file or folder: absent\.nc")
    expect(2, "evaluate", "persistence", "--observations", "absent*.nc", says=r"no such file or folder: absent\*\.nc")
    expect(
        2, "evaluate", "absent.nc", "--observations", inputs / "rain.nc", says=r"^error: no such file or folder: absent\.nc$"
    )
    expect(2, "train", inputs / "tiny.toml", "--data", "absent.nc", says=r"no such file or folder: absent\.nc")
    expect(2, "train", "absent.toml", says=r"^error: no such config: absent\.toml\n$")
    expect(2, "train", says=r"^error: nothing to train: give a CONFIG such as configs/radar\.toml, or --data RECORD to have")
    expect(
        4,
        "predict",
        "absent",
        inputs / "rain.nc",
        "--output",
        "f.nc",
        says="no such run folder, checkpoint, forecast file or baseline: absent",
    )
    expect(2, "inspect", "https://example.org/a.nc", says="is a URL")


def test_a_file_that_is_not_netcdf(tmp_path):
    (tmp_path / "text.nc").write_text("time,y,x\n")
    (tmp_path / "empty.nc").write_text("")
    for name, says in (("text.nc", "text.nc is not a NetCDF file"), ("empty.nc", "empty.nc is empty")):
        expect(3, "inspect", tmp_path / name, says=says)
        expect(3, "predict", "persistence", tmp_path / name, "--output", "f.nc", says=says)


def test_a_damaged_file_is_named(tmp_path, inputs):
    content = (inputs / "rain.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(content[: len(content) // 2])
    expect(3, "inspect", tmp_path / "cut.nc", says=r"cut\.nc is damaged or incomplete")


def test_no_precipitation_variable_or_several(tmp_path):
    fields = rain(frames=4, shape=(8, 8))
    winds = write_record(tmp_path / "winds.nc", fields, variable="wind", standard_name="wind_speed", units="m s-1")
    expect(3, "inspect", winds, says=r"winds\.nc has no variable that can be identified as rain; it has .*wind\(time, y, x\)")
    with netCDF4.Dataset(write_record(tmp_path / "two.nc", fields), "a") as file:
        second = file.createVariable("rain_b", "f4", ("time", "y", "x"))
        second.setncatts({"standard_name": "rainfall_rate", "units": "mm h-1"})
        second[:] = 7.0
    expect(3, "inspect", tmp_path / "two.nc", says=r"rainfall_rate.*rain_b[\s\S]*--variable")
    code, out, _ = command("inspect", tmp_path / "two.nc", "--variable", "rain_b", "--format", "json")
    assert (code, json.loads(out)[0]["maximum"]) == (0, 7.0)
    expect(3, "inspect", tmp_path / "two.nc", "--variable", "rain_c", says='has no variable "rain_c"')


def test_unknown_units(tmp_path):
    strange = write_record(tmp_path / "strange.nc", rain(frames=4, shape=(8, 8)), units="degC")
    expect(3, "inspect", strange, says=r'strange\.nc: rainfall_rate has units "degC"[\s\S]*Expected')
    expect(3, "predict", "persistence", strange, "--output", "f.nc", says="degC")


def test_too_few_frames_ask_to_try_again(inputs):
    short = inputs / "short.nc"
    code, out, err = command("predict", inputs / "run", short, "--output", "f.nc", "-q")
    assert (code, out, err) == (0, "f.nc\n", "")
    early = ("--reference-time", "2020-06-01T00:00")
    expect(
        75, "predict", inputs / "run", short, *early, "--output", "g.nc", says=r"Absent: 2020-05-31T23:55:00Z; the record goes"
    )
    late = ("--reference-time", "2020-06-01T09:00")
    expect(
        75,
        "predict",
        inputs / "run",
        short,
        *late,
        "--output",
        "g.nc",
        says="no frame to forecast from at 2020-06-01T09:00:00Z",
    )
    expect(
        75, "predict", inputs / "run", short, "--start", "2021-01-01", "--output", "new/", says="no reference time in the range"
    )


def test_no_complete_window_comes_with_the_account(inputs):
    code, out, err = command("train", inputs / "tiny.toml", "--data", inputs / "short.nc", "--output", "run")
    assert (code, out, os.listdir()) == (75, "", [])
    assert "no complete training window of 2 + 3 frames" in err
    assert "3 start times dropped: gap or end of file" in err
    says = r"no complete case of 4 past and 12 future frames[\s\S]*3 start times dropped: gap or end of file"
    expect(75, "evaluate", "persistence", "--observations", inputs / "short.nc", "--output", "scores", says=says)


def test_a_grid_smaller_than_the_model_needs(inputs, tmp_path):
    small = write_record(tmp_path / "small.nc", rain(frames=40, shape=(1, 28)))
    says = "small has a grid of 1 × 28 cells; .* needs at least 2 each way"
    expect(3, "train", inputs / "tiny.toml", "--data", small, "--output", "run", says=says)
    expect(3, "predict", inputs / "run", small, "--output", "f.nc", says=says)
    expect(3, "evaluate", inputs / "run", "--observations", small, says=says)


def test_a_crop_that_is_larger_than_the_grid(inputs):
    says = r"data\.crop = 32 is larger than the grid of rain, 28 cells at its longest side\.\nWrite data\.crop = 0"
    for options in (("--output", "run"), ("--dry-run",)):
        expect(3, "train", inputs / "tiny.toml", "--set", "data.crop=32", *options, says=says)


def test_a_record_and_a_checkpoint_that_do_not_fit(inputs, tmp_path):
    slow = write_record(tmp_path / "slow.nc", rain(frames=40, shape=(24, 28)), step_minutes=15)
    says = "slow has a time step of 15 min but 'run' was trained on 5 min; use a record of that step or train on this one"
    expect(3, "predict", inputs / "run", slow, "--output", "f.nc", says=says)
    expect(3, "evaluate", inputs / "run", "--observations", slow, "--output", "scores", says=says)
    share = write_record(tmp_path / "share.nc", np.zeros((40, 24, 28)), standard_name="cloud_area_fraction", units="1")
    says = "share holds dimensionless but 'run' was trained on rain_rate"
    expect(3, "predict", inputs / "run", share, "--variable", "rainfall_rate", "--output", "f.nc", says=says)


def test_several_series_do_not_fit_in_one_file(inputs, tmp_path):
    other = write_record(tmp_path / "other.nc", rain(frames=6, shape=(16, 20)))
    argv = ("predict", "persistence", inputs / "rain.nc", other, "--output")
    expect(2, *argv, "f.nc", says=r"2 series on different grids do not fit in one file: rain, other\.\nGive a folder")
    code, out, _ = command(*argv, "out/")
    assert (code, out.split()) == (0, ["out/rain_20200601T031500Z.nc", "out/other_20200601T002500Z.nc"])


def test_a_mistake_in_the_config_names_the_key(inputs):
    train = ("train", inputs / "tiny.toml", "--output", "run", "--set")
    expect(2, *train, "training.learning_rat=1", says="unknown key training.learning_rat; did you mean learning_rate")
    expect(2, *train, "model.hiden_channels=[4]", says=r"unknown key model\.hiden_channels; did you mean hidden_channels")
    expect(2, *train, "training.steps=many", says="training.steps = 'many'")
    expect(2, *train, "model.name=convlstn", says="model.name = 'convlstn' is not known")
    expect(2, *train, "steps=4", says="write SECTION.KEY=VALUE")


def test_a_config_that_is_not_toml(tmp_path):
    (tmp_path / "broken.toml").write_text("[data\n")
    expect(2, "train", tmp_path / "broken.toml", says=r"broken\.toml is not valid TOML")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    expect(2, "train", tmp_path / "latin.toml", says="cannot read the config")
    expect(2, "train", tmp_path, says="cannot read the config .*: Is a directory")


def test_an_output_that_exists_is_kept(inputs):
    predict = ("predict", "persistence", inputs / "rain.nc", "--output", "f.nc")
    assert command(*predict)[0] == 0
    before = Path("f.nc").read_bytes()
    expect(5, *predict, says=r"f\.nc exists already\.\nChoose another name, or replace it with --overwrite")
    assert Path("f.nc").read_bytes() == before
    assert command(*predict, "--overwrite")[0] == 0
    Path("scores").mkdir()
    Path("scores/scores.nc").write_text("mine")
    expect(
        5,
        "evaluate",
        "persistence",
        "--observations",
        inputs / "rain.nc",
        "--output",
        "scores",
        says=r"scores\.nc exists already",
    )
    assert Path("scores/scores.nc").read_text() == "mine"
    says = "already holds a run: --resume continues it, --overwrite replaces it"
    expect(5, "train", inputs / "tiny.toml", "--output", inputs / "run", says=says)


def test_an_output_that_cannot_be_written(inputs):
    record = inputs / "rain.nc"
    expect(5, "predict", "persistence", record, "--output", "absent/f.nc", says="there is no folder absent")
    expect(5, "predict", "persistence", record, "--output", f"{record}/", says="cannot make the folder")
    expect(5, "evaluate", "persistence", "--observations", record, "--output", record, says="is a file")
    expect(5, "train", inputs / "tiny.toml", "--output", record / "run", says="cannot make the folder")


def test_a_cache_that_cannot_be_made_leaves_no_run(inputs, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(inputs / "rain.nc" / "cache"))
    expect(5, "train", inputs / "tiny.toml", "--output", "run", "-q", says="cannot write the cache .*set NOWCAST_CACHE")


@pytest.mark.parametrize("text", ["", "a", "1,", "5,1", "1,1", "0,1", "-1", "nan", "inf", "1;5"])
def test_bad_thresholds(inputs, text):
    argv = ("evaluate", "persistence", "--observations", inputs / "rain.nc", f"--thresholds={text}")
    expect(2, *argv, says="write ascending numbers above 0 with commas, such as 0.5,1,5,10")


@pytest.mark.parametrize(
    "text",
    ["noon", "2020-13-01", "2020-06-01T25:00", "0001-01-01T00:00+23:00", "",
     "2020-06-01 14.35", "2020-06-01+02:00", "20200601001", "2020-06-01T00:05-20"],  # other times to Python
)  # fmt: skip
def test_bad_times(inputs, text):
    for option in ("--reference-time", "--start", "--end"):
        argv = ("predict", "persistence", inputs / "rain.nc", "--output", "f.nc", f"{option}={text}")
        expect(2, *argv, says=f"{option} .*: not a time; write it as 2016-09-28T15:00")


def test_a_seed_belongs_to_members(inputs):
    argv = ("predict", "persistence", inputs / "rain.nc", "--output", "f.nc", "--seed", "1")
    expect(2, *argv, says="--seed belongs to --members: nothing else is random")


def test_times_that_exclude_each_other(inputs):
    argv = ("predict", "persistence", inputs / "rain.nc", "--output", "f.nc")
    expect(2, *argv, "--reference-time", "2020-06-01T01:00", "--every", "10", says="not both")
    expect(2, *argv, "--start", "2020-06-02", "--end", "2020-06-01", says="is after --end")
    for every in ("0", "nan", "-5"):
        expect(2, *argv, f"--every={every}", says="--every .*: write minutes")
    expect(2, *argv, "--every=often", says="Invalid value for '--every'")


def test_times_are_utc_whatever_their_zone(inputs):
    argv = ("predict", "persistence", inputs / "rain.nc", "--reference-time", "2020-06-01T03:00+02:00", "--output", "f.nc")
    assert command(*argv)[0] == 0
    assert read_forecast("f.nc").reference_times.tolist() == [(START + 60 * MINUTES).tolist()]


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "cuda:x", "mps"])
def test_unknown_devices(inputs, name):
    for argv in (
        ("predict", "persistence", inputs / "rain.nc", "--output", "f.nc"),
        ("train", inputs / "tiny.toml", "--output", "run"),
        ("evaluate", "persistence", "--observations", inputs / "rain.nc"),
    ):
        expect(2, *argv, "--device", name, says=f"--device {name}: ")


def test_a_forecast_file_cannot_forecast(inputs):
    assert command("predict", "persistence", inputs / "rain.nc", "--output", "f.nc")[0] == 0
    expect(2, "predict", "f.nc", inputs / "rain.nc", "--output", "g.nc", says=r"f\.nc is a forecast file")


def test_only_a_trained_network_can_be_exported(inputs):
    assert command("predict", "persistence", inputs / "rain.nc", "--output", "f.nc")[0] == 0
    expect(2, "export", "persistence", "--output", "m.onnx", says="^error: persistence is not a trained network: export takes")
    expect(2, "export", "f.nc", "--output", "m.onnx", says=r"f\.nc is not a trained network")
    expect(4, "export", "absent", "--output", "m.onnx", says="no such run folder, checkpoint, forecast file or baseline: ab")
    expect(
        2, "export", inputs / "run", "--output", "m.pth", says=r"m\.pth: the ending of the name sets the format, and must be"
    )
    for grid in ("640", "640,", "640x710", "-1,5", "640,710,1"):
        argv = ("export", inputs / "run", "--output", "m.pt2", f"--grid={grid}")
        expect(2, *argv, says=f"--grid {grid}: write rows and columns, such as 640,710")
    expect(5, "export", inputs / "run", "--output", "absent/m.pt2", says="there is no folder absent")
    expect(2, "export", inputs / "run", says=r"Missing option '--output' / '-o'\.\nSee nowcast export -h")


def test_export_names_the_file_and_how_to_call_it(inputs, monkeypatch):
    """What is in it, tests/test_export.py looks at."""
    monkeypatch.setattr(export, "program", lambda _: None)
    monkeypatch.setattr(export, "check", lambda *_: None)
    for suffix in (".onnx", ".pt2"):
        monkeypatch.setitem(export.FORMATS, suffix, (lambda *_: b"network", lambda _: None))
    code, out, err = command("export", inputs / "run", "--output", "m.onnx", "-q")
    assert (code, out, err) == (0, "m.onnx\n", "")
    assert os.listdir() == ["m.onnx"]
    assert Path("m.onnx").read_bytes() == b"network"
    expect(5, "export", inputs / "run", "--output", "m.onnx", says=r"m\.onnx exists already\.\nChoose another name")
    code, out, err = command("export", inputs / "run", "--output", "m.pt2")
    assert (code, out) == (0, "m.pt2\n")
    call = (
        'torch.export.load("m.pt2").module()(torch.from_numpy(past))  # past: float32 (case, time, y, x) in mm/h, NaN missing'
    )
    assert err == f"exporting run: seconds to minutes, the longer the more layers and frames it has\nnext: {call}\n"


def test_a_forecaster_named_twice(inputs):
    argv = ("evaluate", "persistence", "persistence", "--observations", inputs / "rain.nc")
    expect(2, *argv, says="persistence is named twice among the forecasters")
    assert command("predict", "persistence", inputs / "rain.nc", "--leads", "2", "--output", "f.nc")[0] == 0
    expect(2, "evaluate", "f.nc", "f.nc", *argv[3:], says=r"f\.nc is named twice among the forecasters")


def test_a_layout_belongs_to_a_dry_run(inputs):
    expect(2, "train", inputs / "tiny.toml", "--format", "json", says="--format json belongs to --dry-run")


def test_a_checkpoint_that_is_none(tmp_path, inputs):
    (tmp_path / "best.safetensors").write_bytes(b"\xff" * 100)
    expect(
        4, "predict", tmp_path / "best.safetensors", inputs / "rain.nc", "--output", "f.nc", says="is not a nowcast checkpoint"
    )
    expect(4, "train", inputs / "tiny.toml", "--resume", "--output", "run", says="holds no last.safetensors to resume from")
