"""The command line as a user meets it: text, streams and exit codes; no error leaves a traceback or a file behind."""

import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from makers import command, rain, tiny_experiment, tiny_run, write_record

from nowcast import __version__, config
from nowcast.commands import predict as predict_command
from nowcast.commands.arguments import spread_observations
from nowcast.forecasters import export
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.opening import open_records
from nowcast.quantity import RAIN_RATE

pytestmark = pytest.mark.usefixtures("workplace")

START = np.datetime64("2020-06-01T00:00:00")
MINUTES = np.timedelta64(60, "s")
COMMANDS = ("inspect", "plan", "train", "predict", "evaluate", "export", "plot")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Inputs that no command may change: a record, a short one, a config and a trained run."""
    folder = tmp_path_factory.mktemp("inputs")
    record = write_record(folder / "rain.nc", rain(frames=40, shape=(24, 28), missing=0.02))
    write_record(folder / "short.nc", rain(frames=3, shape=(24, 28)))
    (folder / "tiny.toml").write_text(config.write(tiny_experiment([record])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOWCAST_CACHE", str(folder / "cache"))
        tiny_run(folder / "run", [record])
    return folder


def expect(code, *argv, says):
    """The command ends with that code, one or two lines on stderr that match, nothing on stdout, and no new file."""
    before = sorted(os.listdir())
    found, out, err = command(*argv)
    assert (found, out) == (code, ""), err
    assert re.search(says, err), err
    assert err.startswith("error: ")
    assert err.count("\n") <= 2
    assert "Traceback" not in err
    assert sorted(os.listdir()) == before


def shell(*argv, **options):
    return subprocess.run([sys.executable, "-m", "nowcast", *map(str, argv)], capture_output=True, text=True, **options)


# What every command offers


def test_no_arguments_print_help():
    code, out, err = command()
    assert (code, err) == (0, "")
    assert all(name in out for name in COMMANDS)
    assert command("--help") == command("-h") == (0, out, "")


def test_the_version_is_printed():
    assert command("--version") == (0, f"nowcast {__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name):
    code, out, err = command(name, "-h")
    assert (code, err) == (0, "")
    assert f"Example: nowcast {name} " in out
    assert "-q, --quiet" in out


def test_a_mistake_in_the_command_is_two_short_lines():
    expect(2, "predict", says=r"Missing argument 'FORECASTER'\.\nSee nowcast predict -h\n$")
    expect(2, "evaluate", "persistence", says=r"Missing option '--observations'\.\nSee nowcast evaluate -h\n$")
    expect(2, "evaluate", "persistence", "--observations", says=r"Option '--observations' requires an argument")
    expect(2, "predikt", says="No such command 'predikt'. Did you mean 'predict'")
    expect(2, "inspect", "--formt", "json", "x.nc", says="No such option")
    expect(2, "inspect", "x.nc", "--format", "xml", says=r"error: Invalid value for '--format': 'xml' is not one of")


def test_the_command_runs_as_a_module_and_answers_at_once():
    seconds = []
    for _ in range(3):  # processor time, and the least of three: the machine may be busy
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = shell("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage:" in done.stdout
    assert min(seconds) < 0.5


def test_there_is_no_colour():
    done = shell("inspect", "absent.nc", env={**os.environ, "FORCE_COLOR": "1", "NO_COLOR": "1"})
    assert "\x1b[" not in done.stdout + done.stderr
    assert done.returncode == 2


# Files that cannot be used


def test_no_such_file(inputs):
    expect(2, "inspect", "absent.nc", says=r"^error: no such file or folder: absent\.nc\n$")
    expect(2, "predict", "persistence", "absent.nc", "--output", "f.nc", says=r"no such file or folder: absent\.nc")
    expect(2, "evaluate", "persistence", "--observations", "absent*.nc", says=r"no such file or folder: absent\*\.nc")
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
        says="no such run folder, checkpoint or baseline: absent",
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
    expect(3, "inspect", winds, says=r"winds\.nc has no variable that is known to be rain; it has .*wind\(time, y, x\)")
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
    expect(3, "inspect", strange, says=r'strange\.nc: rainfall_rate has units "degC"[\s\S]*Right would be')
    expect(3, "predict", "persistence", strange, "--output", "f.nc", says="degC")


# Too little to work with


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
    assert (code, out, os.listdir()) == (3, "", [])
    assert "no complete training window of 2 + 3 frames" in err
    assert "3 cross a gap or an end of the record" in err
    says = r"no complete case of 4 past and 12 future frames[\s\S]*3 cross a gap or an end of the record"
    expect(3, "evaluate", "persistence", "--observations", inputs / "short.nc", "--output", "scores", says=says)


def test_a_grid_smaller_than_the_model_needs(inputs, tmp_path):
    small = write_record(tmp_path / "small.nc", rain(frames=40, shape=(1, 28)))
    says = "small has a grid of 1 × 28 cells; .* needs at least 2 each way"
    expect(3, "train", inputs / "tiny.toml", "--data", small, "--output", "run", says=says)
    expect(3, "predict", inputs / "run", small, "--output", "f.nc", says=says)
    expect(3, "evaluate", inputs / "run", "--observations", small, says=says)


def test_a_record_and_a_checkpoint_that_do_not_fit(inputs, tmp_path):
    slow = write_record(tmp_path / "slow.nc", rain(frames=40, shape=(24, 28)), step_minutes=15)
    says = "slow has a time step of 15 min but run was trained on 5 min; use a record of that step or train on this one"
    expect(3, "predict", inputs / "run", slow, "--output", "f.nc", says=says)
    expect(3, "evaluate", inputs / "run", "--observations", slow, "--output", "scores", says=says)
    share = write_record(tmp_path / "share.nc", np.zeros((40, 24, 28)), standard_name="cloud_area_fraction", units="1")
    says = "share holds dimensionless but run was trained on rain_rate"
    expect(3, "predict", inputs / "run", share, "--variable", "rainfall_rate", "--output", "f.nc", says=says)


def test_several_series_do_not_fit_in_one_file(inputs, tmp_path):
    other = write_record(tmp_path / "other.nc", rain(frames=6, shape=(16, 20)))
    argv = ("predict", "persistence", inputs / "rain.nc", other, "--output")
    expect(2, *argv, "f.nc", says=r"2 series on different grids do not fit in one file: rain, other\.\nGive a folder")
    code, out, _ = command(*argv, "out/")
    assert (code, out.split()) == (0, ["out/rain_20200601T031500Z.nc", "out/other_20200601T002500Z.nc"])


# Configs, options and outputs


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
    says = "holds a run already: --resume goes on with it, --overwrite replaces it"
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


@pytest.mark.parametrize("text", ["noon", "2020-13-01", "2020-06-01T25:00", "0001-01-01T00:00+23:00", ""])
def test_bad_times(inputs, text):
    for option in ("--reference-time", "--start", "--end"):
        argv = ("predict", "persistence", inputs / "rain.nc", "--output", "f.nc", f"{option}={text}")
        expect(2, *argv, says=f"{option} .*: not a time; write it as 2016-09-28T15:00")


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
    expect(2, "predict", "f.nc", inputs / "rain.nc", "--output", "g.nc", says=r"f\.nc is a file of forecasts")


def test_only_a_trained_network_can_be_exported(inputs):
    assert command("predict", "persistence", inputs / "rain.nc", "--output", "f.nc")[0] == 0
    expect(
        2, "export", "persistence", "--output", "m.onnx", says="^error: persistence is no trained network: export takes a run"
    )
    expect(2, "export", "f.nc", "--output", "m.onnx", says=r"f\.nc is no trained network")
    expect(4, "export", "absent", "--output", "m.onnx", says="no such run folder, checkpoint or baseline: absent")
    expect(
        2, "export", inputs / "run", "--output", "m.pth", says=r"m\.pth: the name says the format, and must end in \.onnx or"
    )
    expect(5, "export", inputs / "run", "--output", "absent/m.pt2", says="there is no folder absent")
    expect(2, "export", inputs / "run", says=r"Missing option '--output'\.\nSee nowcast export -h")


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
    assert err == f"exporting run, which takes a minute or so\nnext: {call}\n"


def test_a_forecaster_named_twice(inputs):
    argv = ("evaluate", "persistence", "persistence", "--observations", inputs / "rain.nc")
    expect(2, *argv, says="persistence is named twice among the forecasters")


def test_a_layout_belongs_to_a_dry_run(inputs):
    expect(2, "train", inputs / "tiny.toml", "--format", "json", says="--format json belongs to --dry-run")


def test_a_checkpoint_that_is_none(tmp_path, inputs):
    (tmp_path / "best.safetensors").write_bytes(b"\xff" * 100)
    expect(
        4, "predict", tmp_path / "best.safetensors", inputs / "rain.nc", "--output", "f.nc", says="is not a nowcast checkpoint"
    )
    expect(4, "train", inputs / "tiny.toml", "--resume", "--output", "run", says="holds no last.safetensors to resume from")


# Results go to stdout, everything else to stderr


def test_inspect_prints_facts_and_names_the_next_command(inputs):
    code, out, err = command("inspect", inputs / "rain.nc")
    assert code == 0
    assert out.startswith("rain  (1 file, variable rainfall_rate)\n")
    assert err == f"next: nowcast plan {inputs / 'rain.nc'} --output my.toml\n"
    code, out, err = command("inspect", inputs / "rain.nc", "--format", "json", "-q")
    assert (code, err) == (0, "")
    assert [record["num_frames"] for record in json.loads(out)] == [40]


def test_train_predict_and_evaluate_follow_each_other(inputs):
    code, out, err = command("train", inputs / "tiny.toml", "--set", "training.steps=2", "--output", "run")
    assert code == 0, err
    assert re.fullmatch(r"run/best\.safetensors  \(best at step 2 of 2\)\n", out)
    assert err.endswith("next: nowcast predict run RECORD... --output forecast.nc\n")
    code, out, err = command("predict", "run", inputs / "rain.nc", "--output", "f.nc")
    assert (code, out) == (0, "f.nc\n")
    assert err == f"next: nowcast evaluate run --observations {inputs / 'rain.nc'} --output scores/\n"
    code, out, err = command("evaluate", "run", "--observations", inputs / "rain.nc", "--every", "30", "--output", "scores")
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()[1:4]] == ["run", "persistence", "extrapolation"]
    assert err.splitlines()[-1] == "next: open scores/report.html"
    assert "scores/scores.csv" in err


def test_quiet_leaves_warnings_and_errors_only(inputs):
    for argv in (
        ("train", inputs / "tiny.toml", "--set", "training.steps=1", "--output", "run"),
        ("predict", "persistence", inputs / "rain.nc", "--output", "out/", "--start", "2020-06-01T03:00"),
        ("evaluate", "persistence", "--observations", inputs / "rain.nc", "--every", "60"),
    ):
        code, out, err = command(*argv, "-q")
        assert (code, err) == (0, "")
        assert out
    code, _, err = command("predict", inputs / "run", inputs / "rain.nc", "--output", "f.nc", "--start", "2020-06-01", "-q")
    assert (code, err) == (0, "rain: left out 1 of 40 reference times, whose past is not complete\n")


def test_evaluate_prints_its_table_as_csv_and_json(inputs):
    argv = ("evaluate", "persistence", "--observations", inputs / "rain.nc", "--every", "60", "-q", "--format")
    _, told, _ = command(*argv, "json")
    _, rows, _ = command(*argv, "csv")
    scores = json.loads(told)["scores"]
    assert len(rows.splitlines()) == len(scores) + 1
    assert rows.startswith("forecaster,against,lead_minutes,threshold,scale_km,score,value,low,high,num_cases,num_pairs\n")
    assert {row["forecaster"] for row in scores} >= {"persistence", "extrapolation"}
    assert command(*argv, "csv") == (0, rows, "")


def test_thresholds_are_those_asked_for(inputs):
    argv = ("evaluate", "persistence", "--observations", inputs / "rain.nc", "--every", "60", "--thresholds", "0.2,2")
    _, out, _ = command(*argv)
    assert out.splitlines()[0].split()[3:7] == ["CSI≥0.2", "CSI≥2", "bias≥0.2", "bias≥2"]


def test_several_observations_follow_one_option(inputs, tmp_path):
    other = write_record(tmp_path / "other.nc", rain(frames=40, shape=(16, 20)))
    argv = ("evaluate", "persistence", "--every", "60", "--format", "json", "-q", "--observations")
    _, together, _ = command(*argv, inputs / "rain.nc", other)
    _, apart, _ = command(*argv, inputs / "rain.nc", "--observations", other)
    assert together == apart
    assert json.loads(together)["records"] == ["rain", "other"]


def test_words_after_an_option_of_many_values_are_its_own():
    def spread(text):
        return " ".join(spread_observations(text.split()))

    assert spread("evaluate a --observations b c --output d") == "evaluate a --observations b --observations c --output d"
    assert spread("evaluate a --observations b -q --every 5 c") == "evaluate a --observations b -q --every 5 c"
    assert spread("evaluate a --observations") == "evaluate a --observations"
    assert spread("predict a --observations b c") == "predict a --observations b c"
    assert spread("") == ""


def test_a_forecast_file_is_judged_by_its_name(inputs):
    (record,) = open_records([inputs / "rain.nc"])
    cases = [(record.times[10], record.read([11, 12])), (record.times[20], record.read([21, 22]))]
    leads = np.array([5, 10]) * MINUTES
    write_forecast("centre.nc", cases, grid=record.grid, lead_times=leads, quantity=RAIN_RATE, attributes={}, single=False)
    code, out, err = command("evaluate", "centre.nc", "--observations", inputs / "rain.nc")
    assert code == 0, err
    line = out.splitlines()[1].split()
    assert (line[0], line[1], line[-2]) == ("centre", "1.000", "2")


def test_a_dry_run_tells_what_training_would_do_and_writes_nothing(inputs):
    code, out, err = command("train", inputs / "tiny.toml", "--dry-run", "--format", "json", "-q")
    assert (code, err, os.listdir()) == (0, "", [])
    facts = json.loads(out)
    assert set(facts) >= {
        "num_parameters", "num_windows", "windows", "account", "num_steps", "estimated_hours", "estimated_memory_mb", "config",
    }  # fmt: skip
    assert facts["num_parameters"] > 0
    assert facts["num_windows"] == sum(facts["windows"].values())
    assert facts["account"]["num_frames"] == 40
    assert facts["num_steps"] == 6
    assert facts["estimated_memory_mb"] > 0
    code, out, _ = command("train", inputs / "tiny.toml", "--dry-run", "-q")
    assert out.startswith("[data]\n")
    assert f"parameters   {facts['num_parameters']:,}" in out


def test_data_on_the_command_line_takes_the_place_of_the_configs(inputs, tmp_path):
    other = write_record(tmp_path / "other.nc", rain(frames=60, shape=(24, 28)))
    _, out, _ = command("train", inputs / "tiny.toml", "--dry-run", "--format", "json", "-q", "--data", other)
    assert json.loads(out)["records"] == ["other"]


def test_a_finished_run_has_nothing_to_resume_and_a_longer_one_has(inputs):
    train = ("train", inputs / "tiny.toml", "--output", "run", "-q", "--set")
    assert command(*train, "training.steps=2")[0] == 0
    code, out, _ = command(*train, "training.steps=2", "--resume")
    assert code == 0
    assert "nothing to resume" in out
    code, out, err = command(*train, "training.steps=4", "--resume")
    assert code == 0, err
    assert "of 4)" in out
    assert config.read("run/config.toml").training.steps == 4


# What nobody foresaw


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (MemoryError(), 7, "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 7, "out of memory"),
        (OSError(28, "No space left on device", "run/metrics.jsonl"), 5, r"run/metrics\.jsonl: No space left on device"),
        (PermissionError(13, "Permission denied", "x"), 5, "x: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failures_of_the_machine_are_told_in_a_line(inputs, monkeypatch, error, code, says):
    monkeypatch.setattr(predict_command, "open_records", failing(error))
    expect(code, "predict", "persistence", inputs / "rain.nc", "--output", "f.nc", says=says)


def test_sigterm_ends_a_command_in_a_line(inputs, monkeypatch):
    monkeypatch.setattr(predict_command, "open_records", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    expect(143, "predict", "persistence", inputs / "rain.nc", "--output", "f.nc", says="^error: terminated\n$")


def test_a_bug_keeps_its_traceback(inputs, monkeypatch):
    monkeypatch.setattr(predict_command, "open_records", failing(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        command("predict", "persistence", inputs / "rain.nc", "--output", "f.nc")


def test_a_reader_that_leaves_early_is_no_error(inputs):
    line = f"{sys.executable} -m nowcast inspect {inputs / 'rain.nc'} --format json | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.stdout == "[\n"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_training_with_its_state_saved(inputs, number, code):
    argv = ["train", inputs / "tiny.toml", "--set", "training.steps=100000", "--output", "run"]
    process = subprocess.Popen([sys.executable, "-m", "nowcast", *map(str, argv)], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("step 3:"):
            process.send_signal(number)
            break
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "state saved; --resume goes on from there" in err
    assert "Traceback" not in err
    assert Path("run/last.safetensors").exists()


def test_logging_is_set_up_once_however_often_commands_run(inputs):
    for _ in range(3):
        command("inspect", inputs / "rain.nc")
    assert len(logging.getLogger("nowcast").handlers) == 1


@pytest.mark.parametrize("device", ["cpu:foo", "cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_a_usage_error(inputs, device):
    expect(
        2,
        "predict",
        "persistence",
        "rain.nc",
        "--output",
        "f.nc",
        "--device",
        device,
        says=f"--device {device}: there is no such",
    )
