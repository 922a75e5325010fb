"""`nowcast plan`: a fingerprint of the records, a config with a reason at every value, and a training that takes it."""

import logging
import math
import os
import re
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import ROOT, SHARED, command, rain, write_record
from makers.archives import MINUTES, START, series
from makers.configs import commented_keys, dotted

from nowcast import config, netcdf
from nowcast.commands import plan as commands_plan
from nowcast.commands import train as commands_train
from nowcast.commands.plan import plan_records
from nowcast.commands.train import dry_run_facts
from nowcast.config.toml import read_comments, rewritten, write_commented
from nowcast.errors import DataError, MemoryLimitError, NotEnoughFrames
from nowcast.models import make_model, model_config
from nowcast.models.checkpoint import read_checkpoint
from nowcast.netcdf.opening import open_records
from nowcast.plan import choices, fingerprint, recipe
from nowcast.plan.choices import Size, choose, choose_training, first_size, num_steps
from nowcast.plan.fingerprint import RATES, Fingerprint, take_fingerprint
from nowcast.plan.frames import choose_frames
from nowcast.quantity import DIMENSIONLESS, RAIN_RATE
from nowcast.training.experiment import resolve
from nowcast.training.step_cost import Estimate

pytestmark = pytest.mark.usefixtures("workplace")

REFERENCE = ROOT / "configs" / "radar.toml"
CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch):
    """A machine of known speed and memory, 2 s and 500 MB a step, on which no step is made."""
    monkeypatch.setattr(commands_train, "estimate", known_cost)
    monkeypatch.setattr(commands_plan, "make_recipe", partial(recipe.make_recipe, estimate=known_cost))


def known_cost(learner, **_):
    return Estimate(2.0, 500_000_000)


def record(folder, *, name="rain.nc", step_minutes=5, times=None, **options):
    return write_record(
        folder / name, rain(**{"frames": 60, "shape": (64, 72)} | options), times=times, step_minutes=step_minutes
    )


def look(*paths):
    return take_fingerprint(open_records(paths))


# The fingerprint


def test_the_facts_of_a_record_of_known_motion(tmp_path):
    path = record(tmp_path, motion=(2, 1), missing=0.25, frames=30, shape=(128, 128))
    found, fields = look(path), open_records([path])[0].read(range(30))
    known = fields[np.isfinite(fields)]
    assert found.num_frames_read == 30
    assert found.missing == pytest.approx(0.25, abs=0.01)
    for rate in (0.1, 0.5, 1.0, 5.0, 10.0):
        assert found.share_from(rate) == pytest.approx((known >= rate).mean(), abs=1e-6)
    assert found.maximum == known.max()
    whole = look(record(tmp_path, name="whole.nc", motion=(2, 1), frames=30, shape=(128, 128)))
    assert whole.motion_median == pytest.approx(math.hypot(2, 1), abs=0.15)
    assert whole.motion_95 == pytest.approx(math.hypot(2, 1), abs=0.5)


def test_the_sample_is_bounded_spread_and_always_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "FRAMES", 20)
    path = record(tmp_path, frames=300, shape=(16, 16), motion=(0, 0))
    read, (opened,) = [], open_records([path])
    monkeypatch.setattr(
        type(opened), "read", lambda self, positions: read.extend(positions) or np.ones((len(positions), 16, 16))
    )
    first = take_fingerprint([opened])
    assert first.num_frames_read == 20
    assert len(read) <= 20 + 2 * fingerprint.PAIRS
    assert all(any(15 * n <= p < 15 * (n + 1) for p in read) for n in range(20)), "one frame of each stretch"
    again, read[:] = read.copy(), []
    take_fingerprint([opened])
    assert read == again


def test_frames_that_take_long_to_read_are_few(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "SECONDS", 0.0)
    assert look(record(tmp_path, frames=60, shape=(16, 16))).num_frames_read == fingerprint.FEWEST


def test_specks_and_dry_frames_say_nothing_about_motion(tmp_path):
    fields = np.zeros((20, 64, 64), np.float32)
    fields[:, ::16, ::16] = 40.0
    found = look(write_record(tmp_path / "specks.nc", fields))
    assert (found.num_pairs, math.isnan(found.motion_95)) == (0, True)
    assert found.highest_credible(1e-3) == 0.0, "no speck has neighbours"
    assert found.maximum == 40.0


def test_nothing_but_missing_is_refused(tmp_path):
    path = write_record(tmp_path / "void.nc", np.full((20, 16, 16), np.nan))
    with pytest.raises(DataError, match="void: nothing but missing in the 20 frames read") as error:
        look(path)
    assert error.value.exit_code == 3


def test_damaged_frames_are_named_and_left_out(tmp_path, monkeypatch, caplog):
    (opened,), read = open_records([record(tmp_path, frames=30, shape=(16, 16))]), netcdf.Record.read

    def damaged(self, positions):
        if 7 in positions:
            raise DataError("frame 7 cannot be read")
        return read(self, positions)

    monkeypatch.setattr(netcdf.Record, "read", damaged)
    with caplog.at_level(logging.WARNING, "nowcast"):
        found = take_fingerprint([opened])
    assert found.most_missing == 1.0
    assert "rain.nc: 1 frame cannot be read and counts as missing: 2020-06-01T00:35:00Z" in caplog.text


def test_the_wettest_part_of_a_large_grid_gives_the_motion(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "SIDE", 64)
    fields = np.zeros((12, 64, 256), np.float32)
    fields[:, :, 160:] = rain(frames=12, shape=(64, 96), motion=(1, 2))
    assert look(write_record(tmp_path / "a.nc", fields)).motion_median == pytest.approx(math.hypot(1, 2), abs=0.3)


# Choices


def made_up(parts, *, motion=4.0, heavy=0.01, missing=0.1, most_missing=0.1, top=60.0, quantity=RAIN_RATE):
    """A fingerprint with that motion, of which a tenth is wet and `heavy` has 8 mm/h."""
    counts = np.zeros(len(RATES) - 1)
    for rate, share in ((0.0, 0.9 - heavy), (0.3, 0.1), (8.0, heavy), (top, 1e-4)):
        counts[np.searchsorted(RATES, rate, side="right") - 1] += share * 1e6
    return Fingerprint(
        tuple(parts),
        quantity,
        50,
        missing,
        most_missing,
        counts,
        counts,
        top,
        0 if math.isnan(motion) else 8,
        motion / 2,
        motion,
    )


def chosen(parts, *, size=None, device="cpu", seconds=1.0, **facts):
    found, frames = made_up(parts, **facts), choose_frames(parts)
    size = size or first_size(found, frames, device)
    made = recipe.reference_choices()
    choose(found, frames, size, made)
    steps, reason = num_steps(found, frames, size, device=device, seconds=seconds, orientations=8)
    choose_training(made, size, steps=steps, reason=reason, seconds=seconds, on=f"on {device}", memory_mb=500)
    return resolve(made.experiment()), made


def of_900_cells():
    part = series(300)
    return type(part)(part.name, part.times, part.time_step, (900, 900), (1.0, 1.0), 0.1)


def test_what_nothing_decides_is_the_reference_recipe():
    experiment, made = chosen([series(300)])
    found, reference = (config.as_dict(e) for e in (experiment, resolve(config.read(REFERENCE))))
    for section, keys in {
        "transform": ("name", "offset"),
        "loss": ("name", "weights"),
        "training": ("optimizer", "clip"),
    }.items():
        assert all(found[section][key] == reference[section][key] for key in keys)
    assert made.comments["training.clip"] == commented_keys(REFERENCE)["training.clip"]


@pytest.mark.parametrize("motion", [0.2, 40.0])
def test_rain_that_is_followed_needs_no_more_room_or_reach_where_it_is_fast(motion):
    experiment, made = chosen([of_900_cells()], motion=motion)
    assert experiment.data.coordinates == "lagrangian"
    assert (experiment.data.crop, experiment.model.patch, experiment.model.kernel_sizes) == (160, 8, [3, 3])
    assert not made.warnings


@pytest.mark.parametrize(("motion", "crop"), [(0.2, 128), (3.1, 128), (6.0, 192), (9.0, 256), (40.0, 256)])
def test_crops_hold_what_moves_through_them(motion, crop):
    experiment, made = chosen([of_900_cells()], motion=motion, quantity=DIMENSIONLESS)
    assert experiment.data.coordinates == "grid"
    assert experiment.data.crop == crop
    assert f"moves at most {motion:.1f} cells a step" in made.comments["data.crop"]


def test_a_small_grid_is_taken_whole_and_finely():
    experiment, _ = chosen([series(300)])
    assert (experiment.data.crop, experiment.model.patch) == (0, 2)


@pytest.mark.parametrize("motion", [0.5, 2.0, 4.2, 7.0, 9.6, 14.4, 24.0])
def test_a_state_can_move_as_far_as_what_it_follows(motion):
    experiment, made = chosen([of_900_cells()], motion=motion, quantity=DIMENSIONLESS)
    reach = experiment.model.patch * (experiment.model.kernel_sizes[0] - 1) // 2
    assert reach >= motion - choices.REACH_SLACK
    assert not made.warnings


def test_what_must_tell_where_things_go_has_finer_patches():
    assert chosen([of_900_cells()], motion=0.5, quantity=DIMENSIONLESS)[0].model.patch == choices.LARGEST_PATCH == 4
    assert chosen([of_900_cells()], motion=0.5)[0].model.patch == 8


def test_motion_that_no_network_follows_is_told():
    _, made = chosen([series(300)], motion=40.0, quantity=DIMENSIONLESS)
    assert "a coarser grid would serve better" in made.warnings[0]


def test_long_cells_are_not_turned():
    part = series(300)
    long = type(part)(part.name, part.times, part.time_step, part.shape, (1.1, 0.7), 0.1)
    experiment, made = chosen([long])
    assert experiment.data.augmentation == ("flips",)
    assert "1.57 times" in made.comments["data.augmentation"]


def test_outages_are_dropped_from_a_long_archive_only():
    assert chosen([series(3000)], missing=0.2, most_missing=1.0)[0].data.max_missing == 0.5
    assert chosen([series(300)], missing=0.2, most_missing=1.0)[0].data.max_missing == 1.0
    assert chosen([series(3000)], missing=0.2, most_missing=0.3)[0].data.max_missing == 1.0


@pytest.mark.parametrize(("top", "ceiling"), [(40.0, 100.0), (150.0, 200.0), (800.0, 300.0)])
def test_the_ceiling_is_above_the_highest_credible_rate(top, ceiling, monkeypatch):
    monkeypatch.setattr(choices, "CREDIBLE", 1e-5)
    assert chosen([series(300)], top=top)[0].transform.ceiling == ceiling


def test_what_is_not_rain_is_left_as_it_is():
    experiment, made = chosen([series(300)], quantity=DIMENSIONLESS, top=0.9)
    assert (experiment.transform.name, experiment.transform.scale, experiment.loss.name) == ("linear", 1.0, "mae")
    assert (experiment.data.sampler, experiment.data.coordinates) == ("uniform", "grid")
    assert experiment.model.name == "encoder_forecaster"
    assert {key for key in made.comments if key.startswith("loss.")} == {"loss.name"}


def test_steps_are_those_of_the_time_but_no_more_than_the_data_bears():
    part = series(3000)
    assert chosen([part], seconds=2.0)[0].training.steps == 3600
    assert chosen([part], seconds=100.0)[0].training.steps == choices.FEWEST_STEPS
    assert chosen([part], seconds=0.01)[0].training.steps == choices.MOST_STEPS
    few, made = chosen([series(60)], seconds=0.01)
    assert few.training.steps < choices.MOST_STEPS
    assert "orientations" in made.comments["training.steps"]


def test_a_longer_run_decays_less_in_each_step():
    reference = config.read(REFERENCE).training
    long, made = chosen([series(3000)], seconds=2.0)
    decays = long.training.steps * long.training.weight_decay / (reference.steps * reference.weight_decay)
    assert decays == pytest.approx(1, rel=0.1)
    assert "longer" in made.comments["training.weight_decay"]


@pytest.mark.parametrize(("days", "trust"), [(choices.MANY_DAYS - 1, 0.3), (choices.MANY_DAYS, 1.0)])
def test_what_many_days_teach_is_believed_whole(days, trust):
    assert chosen([series(288 * days)])[0].model.trust == trust


def test_a_split_by_days_comes_with_its_windows():
    _, made = chosen([series(*[60] * 60, gap_hours=19)])
    assert made.comments["data.splits.by"].endswith("; 1,620 training, 270 validation and 270 test windows")
    assert made.tree["data"]["splits"]["test_days"] == (7,)


def test_sizes_shrink_to_an_end():
    size, work = Size(2.0, 384, 16), []
    while size:
        work.append(size.work)
        size = size.smaller()
    assert work == sorted(work, reverse=True)
    assert len(work) == len(set(work)) < 15


@st.composite
def archives(draw):
    parts = []
    for n in range(draw(st.integers(1, 3))):
        runs = draw(st.lists(st.integers(1, 80), min_size=1, max_size=5))
        part = series(
            *runs,
            minutes=draw(st.sampled_from([1, 2, 5, 6, 10, 15, 30])),
            wet=draw(st.sampled_from([0, 0.01, 0.5])),
            name=str(n),
        )
        shape = draw(st.tuples(st.integers(1, 3000), st.integers(1, 3000)))
        km = draw(st.tuples(*[st.floats(0.1, 20) | st.just(math.nan)] * 2))
        parts.append(type(part)(part.name, part.times, part.time_step, shape, km, part.wet))
    return parts


@settings(max_examples=40, deadline=None)
@given(
    archives(),
    st.floats(0, 128) | st.just(math.nan),
    st.floats(0, 0.9),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 2000),
    st.sampled_from([RAIN_RATE, DIMENSIONLESS]),
    st.sampled_from(["cpu", "cuda", "mps"]),
    st.floats(1e-3, 1e3),
)
def test_any_archive_gives_a_config_that_stands(parts, motion, heavy, missing, most, top, quantity, device, seconds):
    try:
        choose_frames(parts)
    except NotEnoughFrames:
        return
    facts = {"motion": motion, "heavy": heavy, "missing": missing, "most_missing": max(missing, most), "top": top}
    experiment, made = chosen(parts, device=device, seconds=seconds, quantity=quantity, **facts)
    text = write_commented(experiment, made.comments)
    assert config.with_settings(tomllib.loads(text), (), source="plan") == experiment
    model = make_model(model_config(experiment.model))
    assert experiment.data.crop % model.cell_multiple == 0
    assert min(min(part.shape) for part in parts) >= model.cell_multiple
    if not experiment.data.crop:
        assert len({part.shape for part in parts}) == 1
    assert experiment.training.warmup_steps < experiment.training.steps


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
    assert re.match(r"# Planned by nowcast [\d.]+ from its fingerprint of the records", made.text())
    assert "60 frames on 1 day every 5 minutes: rain" in made.text()


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


@pytest.mark.parametrize("name", real_records())
def test_real_records_are_planned_and_the_plan_accepted(name, shared, measured, monkeypatch):
    monkeypatch.setattr(fingerprint, "FRAMES", 12)
    monkeypatch.setattr(fingerprint, "PAIRS", 1)
    monkeypatch.setattr(fingerprint, "SIDE", 256)
    made = plan_records([str(shared / "radar" / name)], device="cpu")
    Path("my.toml").write_text(made.text(), encoding="utf-8")
    facts = dry_run_facts(config.read("my.toml"), "cpu")
    assert facts["windows"]["training"] >= 1
    assert facts["windows"]["validation"] >= 1
    assert config.read("my.toml") == made.experiment
    if "dwd" in name or "cirrus" in name:
        assert any("the runs of frames are short and allow 20 of 60 minutes" in warning for warning in made.warnings)
    if "dry" in name:
        assert any("hardly any rain to learn from" in warning for warning in made.warnings)


def test_a_size_that_is_too_slow_or_too_large_gives_way_to_a_smaller(tmp_path):
    tried = []

    def slow(learner, *, batch_size, shape, most_seconds):
        width, crop = learner.experiment.model.hidden_channels[0], shape[0]
        tried.append((width, crop, batch_size))
        return Estimate(20.0 * batch_size * (crop / 256 * width / 10.5) ** 2, int(1e8))

    path = record(tmp_path, shape=(300, 300), motion=(3, 4), frames=30)
    made = recipe.make_recipe([str(path)], device=CPU, estimate=slow)
    assert tried == [(16, 160, 4), (8, 128, 2)], "the second is chosen by what the first took"
    assert made.experiment.model.hidden_channels == [8, 8]
    assert "5.8 s a step" in made.comments["training.steps"]


def test_a_grid_too_large_for_the_memory_is_told(tmp_path):
    path = str(record(tmp_path, shape=(24, 28)))
    with pytest.raises(MemoryLimitError, match=r"not even one case of a small network fits into 0\.0 GB") as error:
        recipe.make_recipe([path], device=CPU, estimate=known_cost, memory_limit=1e6)
    assert error.value.exit_code == 7


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
        says="the longest run of frames without a gap has 5: too few for a plan\nright",
    )
    refused(75, "train", "--data", short, says="the longest run of frames without a gap has 5")
    refused(2, "plan", short, "--device", "tpu", says="--device tpu: there is no such device")
    refused(5, "plan", short, "--output", "absent/my.toml", says="my.toml cannot be written: there is no folder absent")
    refused(5, "plan", short, "--output", tmp_path, says="it is a folder")
    refused(5, "plan", short, "--output", short, "--overwrite", says=r"short\.nc is an input .*, and no input is overwritten")
    refused(2, "plan", short, "--output", "-", says="--output -: this cannot go to stdout")
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


def test_training_without_a_config_plans_and_says_so(tmp_path, measured):
    path = record(tmp_path, shape=(24, 28))
    train = ("train", "--data", path, "--output", "run")
    quick = [word for key in ("steps=2", "batch_size=1", "validation_cases=1") for word in ("--set", f"training.{key}")]
    code, out, err = command(*train, *quick)
    assert code == 0, err
    assert err.startswith("no CONFIG given: a plan is made from the records\n")
    assert "\n  data.lead_frames = " in err
    assert out.startswith("run/best.safetensors")
    text = Path("run/config.toml").read_text(encoding="utf-8")
    assert text.startswith("# Planned by nowcast")
    comments = read_comments(text)
    assert comments["training.steps"] == "set by hand"
    assert "minutes of motion" in comments["data.input_frames"]
    assert config.as_dict(config.read("run/config.toml")) == read_checkpoint("run").facts["config"]

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


def test_one_process_plans(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(2, "train", "--data", record(tmp_path), says="a plan is made by one process: nowcast plan")


# Config text


def test_a_commented_config_is_read_back_with_its_comments(tmp_path):
    text = REFERENCE.read_text(encoding="utf-8")
    comments = read_comments(text)
    assert comments == {key: comment for key, comment in commented_keys(REFERENCE).items() if comment}
    experiment = resolve(config.read(REFERENCE))
    written = rewritten(text, experiment)
    Path("again.toml").write_text(written, encoding="utf-8")
    assert resolve(config.read("again.toml")) == experiment
    assert read_comments(written) == comments
    assert written.splitlines()[:2] == text.splitlines()[:2]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_is_written_on_one_line(text):
    line = f"key = {config_text_inline([text, 1, True, 0.5])}"
    assert "\n" not in line
    assert tomllib.loads(line)["key"] == [text, 1, True, 0.5]


def config_text_inline(value):
    from nowcast.config.toml import inline

    return inline(value)


def test_spans_are_written_as_times():
    chosen_ = choose_frames([series(12, start=START + 5 * MINUTES)])
    experiment = resolve(config.read(REFERENCE))
    data = experiment.data.model_copy(update={"splits": chosen_.splits})
    text = write_commented(experiment.model_copy(update={"data": data}), {})
    assert config.with_settings(tomllib.loads(text), (), source="text").data.splits == chosen_.splits


def test_the_packaged_reference_recipe_is_the_one_in_configs():
    packaged = Path(recipe.__file__).with_name("radar.toml")
    assert not packaged.is_symlink()
    assert packaged.read_bytes() == REFERENCE.read_bytes()
