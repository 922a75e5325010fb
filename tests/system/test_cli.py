"""The command line as a user meets it: text, streams and exit codes; no error leaves a traceback or a file behind."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from makers import command, expect, rain, write_record

from nowcast import __version__, config
from nowcast.commands.arguments import file_in, spread_observations
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.opening import open_records
from nowcast.quantity import RAIN_RATE

pytestmark = pytest.mark.usefixtures("workplace")

START = np.datetime64("2020-06-01T00:00:00")
MINUTES = np.timedelta64(60, "s")
COMMANDS = ("inspect", "plan", "train", "predict", "evaluate", "export", "plot")


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
    assert not re.findall(r"<(?:list|str|int|float)\b.*>", out), "types of Python are not for users"


def test_a_mistake_in_the_command_is_two_short_lines():
    expect(2, "predict", says=r"Missing argument 'FORECASTER'\.\nSee nowcast predict -h\n$")
    expect(2, "evaluate", "persistence", says=r"Missing option '--observations'\.\nSee nowcast evaluate -h\n$")
    expect(2, "evaluate", "persistence", "--observations", says=r"Option '--observations' requires an argument")
    expect(2, "predikt", says="No such command 'predikt'. Did you mean 'predict'")
    expect(
        2,
        "-q",
        "inspect",
        "x.nc",
        says=r"^error: -q is before the command; options belong after it\.\nWrite nowcast COMMAND -q\n$",
    )
    expect(2, "--foo", "inspect", "x.nc", says=r"No such option:? '?--foo'?\.?\nSee nowcast -h")
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


# Results go to stdout, everything else to stderr


def test_inspect_prints_facts_and_names_the_next_command(inputs):
    code, out, err = command("inspect", inputs / "rain.nc")
    assert code == 0
    assert out.startswith("rain  (1 file, variable rainfall_rate)\n")
    assert err == f"next: nowcast plan {inputs / 'rain.nc'} --output my.toml\n"
    code, out, err = command("inspect", inputs / "rain.nc", "--format", "json", "-q")
    assert (code, err) == (0, "")
    assert [record["num_frames"] for record in json.loads(out)] == [40]


@pytest.mark.slow
def test_train_predict_and_evaluate_follow_each_other(inputs, undrawn):
    code, out, err = command("train", inputs / "tiny.toml", "--set", "training.steps=2", "--output", "run")
    assert code == 0, err
    assert re.fullmatch(r"run/best\.safetensors  \(best at step 2 of 2\)\n", out)
    assert err.endswith("next: nowcast predict run RECORD... --output forecast.nc\n")
    code, out, err = command("predict", "run", inputs / "rain.nc", "--output", "f.nc")
    assert (code, out) == (0, "f.nc\n")
    # how the record is read was said by `train` in this process
    assert err.splitlines() == [
        "rain: forecast from 2020-06-01T03:15:00Z, 3 lead times, 5 to 15 min (until 2020-06-01T03:30:00Z)",
        "next: nowcast plot f.nc --output f.png",
    ]
    code, out, err = command("evaluate", "run", "--observations", inputs / "rain.nc", "--every", "30", "--output", "scores")
    assert code == 0, err
    assert out.startswith("Beware: 'run' was trained on ")
    lines = out[out.index("pooled over leads") :].splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["run", "persistence", "extrapolation"]
    assert err.splitlines()[-1] == "next: open scores/report.html"
    assert "scores/scores.csv" in err


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_dry_run_tells_that_nothing_is_left_for_validation(inputs):
    argv = ("train", inputs / "tiny.toml", "--dry-run", "-q")
    code, out, _ = command(*argv, "--set", "data.splits.fractions=[1.0,0.0,0.0]")
    assert code == 0
    assert "\nvalidation   no windows: the newest weights will be taken as the best; see data.splits\n" in out
    assert "no window" not in command(*argv)[1]


def test_an_output_that_is_a_folder_gets_a_file_of_the_inputs_name(inputs, tmp_path):
    code, out, err = command("plot", inputs / "rain.nc", "-o", "pictures/")
    assert (code, out) == (0, "pictures/rain.png\n"), err
    assert command("plot", inputs / "rain.nc", "-o", "pictures")[0] == 5
    for output, expected in (("x.toml", "x.toml"), ("pictures", "pictures/2015.toml")):
        with file_in(output, "radar/2015*.nc", ".toml") as path:
            assert path == Path(expected)


@pytest.mark.parametrize(
    "argv",
    [
        ("plot", "none.nc", "-o", "new/folder/"),
        ("plot", "rain.nc", "--threshold", "1", "-o", "new/folder/"),
        ("plan", "none.nc", "-o", "new/folder/"),
        ("series", "rain.nc", "--at", "99,99", "-o", "new/folder/"),
        ("predict", "persistence", "none.nc", "-o", "new/folder/"),
        ("predict", "extrapolation", "rain.nc", "--reference-time", "1999-01-01", "-o", "new/folder/"),
        ("evaluate", "persistence", "--observations", "none.nc", "-o", "new/folder"),
        ("convert", "none.nc", "-o", "new/folder"),
        ("export", "persistence", "-o", "new/folder/"),
        ("train", "tiny.toml", "--data", "none.nc", "-o", "new/folder"),
    ],
)
def test_no_folder_is_left_where_the_input_is_refused(inputs, argv):
    code, _, err = command(*argv)
    assert code in (2, 3, 75), err
    assert len([line for line in err.splitlines() if not line.startswith("no CONFIG")]) <= 2, err
    assert not Path("new").exists()


def test_data_on_the_command_line_takes_the_place_of_the_configs(inputs, tmp_path):
    other = write_record(tmp_path / "other.nc", rain(frames=60, shape=(24, 28)))
    _, out, _ = command("train", inputs / "tiny.toml", "--dry-run", "--format", "json", "-q", "--data", other)
    assert json.loads(out)["records"] == ["other"]


@pytest.mark.slow
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
