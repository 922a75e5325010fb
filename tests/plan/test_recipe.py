"""`nowcast plan`: a fingerprint of the records, a config with a reason at every value, and a training that takes it."""

import json
import os
import re
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from makers import SHARED, command, rain, write_record
from makers.archives import MINUTES, START, record
from makers.configs import commented_keys, dotted

from nowcast import config
from nowcast.commands import plan as commands_plan
from nowcast.commands import train as commands_train
from nowcast.commands.plan import plan_records
from nowcast.commands.train import dry_run_summary
from nowcast.config.toml import read_comments
from nowcast.dataset.archive import open_archive
from nowcast.errors import MemoryLimitError
from nowcast.models.checkpoint import read_checkpoint
from nowcast.plan import fingerprint, recipe
from nowcast.plan.speed import Machine, measure_speed
from nowcast.quantity import RAIN_RATE
from nowcast.training.experiment import resolve
from nowcast.training.learner import Learner
from nowcast.training.step_cost import Estimate

pytestmark = pytest.mark.usefixtures("workplace")

CPU = torch.device("cpu")


def of_speed(speed):
    """A machine of one thread that makes so many operations per second; nothing is measured."""
    known = dict.fromkeys([(kind, "cpu") for kind in ("guided", "probabilistic", "encoder_forecaster")], speed)
    return Machine(CPU, measure_speed, 1, 1, known)


@pytest.fixture
def measured(monkeypatch):
    """A machine of known speed, on which no step is made."""
    monkeypatch.setattr(commands_train, "estimate", lambda learner, **_: Estimate(2.0, 500_000_000))
    monkeypatch.setattr(commands_plan, "make_recipe", partial(recipe.make_recipe, machine=of_speed(1e11)))


# Whole plans


def test_every_key_is_there_and_has_its_reason(tmp_path, measured):
    made = plan_records([str(record(tmp_path))], device="cpu")
    Path("my.toml").write_text(made.text(), encoding="utf-8")
    read = config.read("my.toml")
    assert read == made.experiment == resolve(read)
    keys = commented_keys(Path("my.toml"))
    assert set(keys) == set(dotted(config.as_dict(read)))
    assert [key for key, comment in keys.items() if not comment] == []
    assert read.data.records == (str(tmp_path / "rain.nc"),)
    assert re.match(r"# Planned by nowcast [\d.]+ from a fingerprint of the records", made.text())
    assert "60 frames on 1 day every 5 minutes: rain" in made.text()


@pytest.mark.slow
def test_a_plan_of_real_steps_trains_as_it_is(tmp_path):
    path = record(tmp_path, shape=(24, 28))
    code, out, err = command("plan", path, "--output", "my.toml", "--device", "cpu")
    assert (code, out) == (0, "my.toml\n"), err
    assert err.endswith("next: nowcast train my.toml --output runs/my\n")
    settings_ = [word for key in ("steps=2", "batch_size=1", "validation_cases=1") for word in ("--set", f"training.{key}")]
    code, out, err = command("train", "my.toml", "--output", "run", *settings_, "-q")
    assert code == 0, err
    assert Path("run/best.safetensors").exists()


def real_records():
    root = SHARED / "radar"
    files = [path.relative_to(root) for path in sorted(root.glob("[!r]*/*.nc"))]
    return [str(path) for path in [*sorted({file.parent for file in files}), *files]]


@pytest.mark.slow
@pytest.mark.parametrize("name", real_records())
def test_real_records_are_planned_and_the_plan_accepted(name, shared, measured, monkeypatch):
    monkeypatch.setattr(fingerprint, "MOST_FRAMES", 12)
    monkeypatch.setattr(fingerprint, "PAIRS", 1)
    monkeypatch.setattr(fingerprint, "SIDE", 256)
    made = plan_records([str(shared / "radar" / name)], device="cpu")
    Path("my.toml").write_text(made.text(), encoding="utf-8")
    facts = dry_run_summary(config.read("my.toml"), "cpu")
    assert facts["windows"]["training"] >= 1
    assert facts["windows"]["validation"] >= 1
    assert config.read("my.toml") == made.experiment
    if "dwd" in name or "cirrus" in name:
        assert any("the runs of frames are short and allow 20 of 60 minutes" in warning for warning in made.warnings)
    if "dry" in name:
        assert any("hardly any rain to learn from" in warning for warning in made.warnings)


def month(folder):
    """A record of 30 wet days of one radar, 20 frames each."""
    times = np.concatenate([START + (1440 * day + 5 * np.arange(20)) * MINUTES for day in range(30)])
    return str(record(folder, name="month.nc", times=times, frames=600, shape=(40, 44)))


def made_for(path, speed=1e11, **options):
    return recipe.make_recipe([path], device=CPU, machine=of_speed(speed), **options)


def test_a_month_of_one_radar_is_an_archive(tmp_path):
    made = made_for(month(tmp_path))
    experiment = made.experiment
    assert (experiment.model.name, experiment.data.splits.by, experiment.data.crop) == ("guided", "days", 0)
    assert experiment.training.start_from == ""
    facts = open_archive(experiment.data)
    assert facts.num_windows("training") > 0
    assert facts.num_windows("validation") > 0
    Path("my.toml").write_text(made.text(), encoding="utf-8")
    assert config.read("my.toml") == experiment == resolve(config.read("my.toml"))
    keys = commented_keys(Path("my.toml"))
    assert set(keys) == set(dotted(config.as_dict(experiment)))
    assert [key for key, comment in keys.items() if not comment] == []
    assert "# From configs/archive.toml: one grid, and about 30 days with rain: enough" in made.text()


def test_few_events_begin_with_the_included_network_where_it_fits(tmp_path):
    for name, shape in {"large.nc": (130, 140), "small.nc": (40, 44), "least.nc": (16, 20)}.items():
        fits = made_for(str(record(tmp_path, name=name, shape=shape))).experiment
        assert fits.training.start_from == "pretrained"
        assert 100 <= fits.training.steps <= 500
        assert fits.training.early_stopping > 0
        learner = Learner(fits, CPU)
        learner.start_from(read_checkpoint("pretrained"), quantity=RAIN_RATE)
    other = made_for(str(record(tmp_path, name="tiny.nc", shape=(15, 20))))
    assert other.experiment.training.start_from == ""
    assert "another shape" in other.comments["training.start_from"]


def test_hours_set_the_steps_and_little_time_a_narrower_network(tmp_path):
    path = month(tmp_path)
    long, short, least = (made_for(path, speed=2e9, hours=hours) for hours in (0.4, 0.08, 0.05))
    assert long.experiment.model.hidden_channels == [32, 32]
    assert short.experiment.model.hidden_channels[0] < 32
    assert "time for enough steps" in short.comments["model.hidden_channels"]
    assert least.experiment.training.steps < short.experiment.training.steps
    for made, hours in ((short, 0.08), (least, 0.05)):
        assert f"as many as fit into {hours:g} h" in made.comments["training.steps"]
        assert float(re.match("about (.+?) h", made.comments["training.steps"])[1]) == pytest.approx(hours, rel=0.15)


def test_a_size_that_is_too_slow_gives_way_to_a_smaller(tmp_path):
    path = str(record(tmp_path, shape=(300, 300), motion=(3, 4), frames=30))
    quick, slow = (made_for(path, speed).experiment for speed in (1e11, 1e8))
    assert (quick.data.crop, quick.training.batch_size, quick.model.hidden_channels) == (160, 4, [16, 16])
    assert (slow.data.crop, slow.training.batch_size) == (128, 2)
    assert slow.model.hidden_channels == [16, 16], "few events keep the width of the included network"
    assert slow.training.steps < quick.training.steps


def test_a_grid_too_large_for_the_memory_is_reported(tmp_path):
    path = str(record(tmp_path, shape=(24, 28)))
    with pytest.raises(
        MemoryLimitError, match=r"not even one case of a small network fits into 0\.0 GB; it takes 0\.6"
    ) as error:
        made_for(path, memory_limit=1e6)
    assert error.value.exit_code == 7


def test_memory_that_is_short_takes_fewer_cases(tmp_path):
    path = str(record(tmp_path, shape=(300, 300), frames=30))
    assert made_for(path, memory_limit=1.2e9).experiment.training.batch_size == 2


def test_five_lines_say_what_was_found_and_chosen_and_what_would_be_better(tmp_path):
    *lines, advice = made_for(month(tmp_path)).lines
    assert [line.split(":")[0] for line in lines] == ["found", "recipe", "split", "train"]
    assert lines[0] == "found:  600 frames on 30 days every 5 minutes, rain on about 30 of them; 40 × 44 cells of 1 × 1 km"
    assert lines[1].startswith("recipe: configs/archive.toml; one grid, and about 30 days with rain: enough")
    assert (
        lines[2] == "split:  by days, 90 training, 30 validation and 0 test windows of 4 + 12 frames, 100 % of them with rain"
    )
    assert "steps of 8, channels [32, 32], about " in lines[3]
    assert advice == "better: keep a day with rain out of these records, and score the network on it"


def test_time_that_is_too_short_is_told_with_what_it_takes(tmp_path):
    path = month(tmp_path)
    assert "too short" not in made_for(path).lines[-1]
    told = r"1 h are too short: it takes about [\d.e+]+ h, [\d.e+]+ h of it for validations; a larger --hours would help"
    assert re.search(told, made_for(path, speed=1e6, hours=1).lines[-1])


def test_few_days_are_told_what_ten_would_bring(tmp_path):
    advice = made_for(str(record(tmp_path))).lines[-1]
    assert advice.splitlines()[:2] == [
        "better: keep a day with rain out of these records, and score the network on it",
        "        from 10 days with rain of one radar on, a network learns its weather",
    ]


def test_a_dry_record_has_rain_on_no_day(tmp_path):
    found, recipe, *_, advice = made_for(str(write_record(tmp_path / "dry.nc", np.zeros((40, 24, 28), np.float32)))).lines
    assert ", rain on none of them; 24 × 28 cells" in found
    assert "; no day with rain, fewer than the 10 from which" in recipe
    assert "\n        there is too little rain to measure motion: crop, patch" in advice


# The commands


def refused(code, *argv, says):
    found, out, err = command(*argv)
    assert (found, out) == (code, ""), err
    assert re.search(says, err), err
    assert err.splitlines()[-1].startswith("error: ") or err.count("\n") <= 3
    assert os.listdir() == []


def test_without_an_output_the_config_alone_is_on_stdout(tmp_path, measured):
    code, out, err = command("plan", record(tmp_path))
    assert code == 0
    assert tomllib.loads(out)["data"]["records"] == [str(tmp_path / "rain.nc")]
    assert err.splitlines()[-1].startswith("next: nowcast train my.toml")
    assert os.listdir() == []


def test_what_cannot_be_planned_ends_with_its_exit_code(tmp_path):
    (tmp_path / "text.nc").write_text("time,y,x\n")
    short = write_record(tmp_path / "short.nc", rain(frames=5, shape=(24, 28)))
    refused(2, "plan", "absent.nc", says="^error: no such file or folder: absent.nc\n$")
    refused(2, "plan", says="Missing argument 'RECORD'")
    refused(3, "plan", tmp_path / "text.nc", says="text.nc is not a NetCDF file")
    refused(
        75,
        "plan",
        short,
        "--output",
        "my.toml",
        says="the longest run of frames without a gap has 5: too few for a plan\nexpected",
    )
    refused(75, "train", "--data", short, says="the longest run of frames without a gap has 5")
    refused(2, "plan", short, "--device", "tpu", says="--device tpu: there is no such device")
    refused(5, "plan", short, "--output", "absent/my.toml", says="my.toml cannot be written: there is no folder absent")
    refused(75, "plan", short, "--output", tmp_path, says="the longest run of frames")  # a file in the folder
    refused(5, "plan", short, "--output", short, "--overwrite", says=r"short\.nc is an input .*, and no input is overwritten")
    refused(2, "plan", short, "--output", "-", says="--output -: output cannot go to stdout")
    share = write_record(tmp_path / "share.nc", np.zeros((40, 24, 28)), standard_name="cloud_area_fraction", units="1")
    refused(3, "plan", share, record(tmp_path), "--variable", "rainfall_rate", says="train on one quantity")


def test_a_config_that_exists_is_kept(tmp_path, measured):
    path = record(tmp_path)
    Path("my.toml").write_text("mine")
    code, out, err = command("plan", path, "--output", "my.toml")
    assert (code, out) == (5, "")
    assert err == "error: my.toml exists already.\nChoose another name, or replace it with --overwrite.\n"
    assert Path("my.toml").read_text() == "mine"
    assert command("plan", path, "--output", "my.toml", "--overwrite", "-q")[:2] == (0, "my.toml\n")
    assert config.read("my.toml")


@pytest.mark.slow
def test_training_without_a_config_makes_and_names_a_plan(tmp_path, measured):
    path = record(tmp_path, shape=(24, 28))
    train = ("train", "--data", path, "--output", "run")
    quick = [word for key in ("steps=2", "batch_size=1", "validation_cases=1") for word in ("--set", f"training.{key}")]
    code, out, err = command(*train, *quick)
    assert code == 0, err
    assert err.startswith("no CONFIG given: a plan is made from the records\n")
    assert re.search("^found:  60 frames on 1 day", err, re.MULTILINE)
    assert out.startswith("run/best.safetensors")
    text = Path("run/config.toml").read_text(encoding="utf-8")
    assert text.startswith("# Planned by nowcast")
    comments = read_comments(text)
    assert comments["training.steps"] == "set by hand"
    assert "minutes of motion" in comments["data.input_frames"]
    assert config.as_dict(config.read("run/config.toml")) == read_checkpoint("run").metadata["config"]

    refused_again = command(*train)
    assert refused_again[0] == 5
    assert "plan is made" not in refused_again[2]

    code, _, err = command(*train, "--resume", "--set", "training.steps=3")
    assert code == 0, err
    assert "plan is made" not in err
    assert config.read("run/config.toml").training.steps == 3
    assert read_comments(Path("run/config.toml").read_text(encoding="utf-8")) == comments
    assert command("train", "--data", path, "--output", "other", "--resume")[::2] == (
        4,
        "error: other holds no config.toml to resume with\n",
    )


def test_a_dry_run_without_a_config_plans_and_writes_nothing(tmp_path, measured):
    code, out, err = command("train", "--data", record(tmp_path), "--dry-run", "--format", "json")
    assert code == 0
    assert '"num_steps"' in out
    assert "a plan is made" in err
    assert os.listdir() == []


def test_a_variable_that_has_to_be_named_is_in_the_plan(tmp_path, measured):
    share = write_record(tmp_path / "share.nc", rain(frames=60) / 100, standard_name="cloud_area_fraction", units="1")
    code, out, _ = command("plan", share, "--variable", "rainfall_rate", "-q")
    assert code == 0
    tree = tomllib.loads(out)
    assert (tree["data"]["variable"], tree["transform"]["name"]) == ("rainfall_rate", "linear")
    named = ("--set", "data.variable=rainfall_rate")
    code, out, err = command("train", "--data", share, *named, "--dry-run", "--format", "json", "-q")
    assert code == 0, err


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf"])
def test_hours_are_above_zero(hours, tmp_path):
    path = record(tmp_path)
    refused(2, "plan", path, "--hours", hours, says=f"--hours {hours}: expected a number of hours above 0, such as 0.5")
    refused(2, "train", "--data", path, "--hours", hours, says="expected a number of hours above 0")


def test_hours_belong_to_a_plan(tmp_path):
    path = record(tmp_path)
    config_path = tmp_path / "my.toml"
    config_path.write_text("")
    refused(2, "train", config_path, "--data", path, "--hours", "1", says="--hours is for planned trainings")


def test_hours_are_those_of_the_plan_that_is_trained(tmp_path, measured):
    arguments = ("train", "--data", record(tmp_path), "--hours", "0.01", "--dry-run", "--format", "json", "-q")
    code, out, err = command(*arguments)
    assert code == 0, err
    assert json.loads(out)["num_steps"] < 500


def test_one_process_plans(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(2, "train", "--data", record(tmp_path), says="a plan is made by one process: nowcast plan")
