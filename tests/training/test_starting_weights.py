"""training.start_from takes the weights of another run where they mean the same, and refuses the others with exit code 4."""

import re
import shutil
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import torch
from makers import command, rain, tiny_experiment, tiny_run, write_record

from nowcast import config
from nowcast.commands.train import train_run
from nowcast.dataset.archive import open_archive
from nowcast.errors import CheckpointError
from nowcast.forecasters import open_forecaster
from nowcast.models.checkpoint import BEST, LAST, read_checkpoint, write_checkpoint
from nowcast.training.compatibility import seen_windows, unlike_start
from nowcast.training.learner import Learner
from nowcast.training.run_folder import LOG, METRICS, first_validation


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOWCAST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return write_record(tmp_path_factory.mktemp("radar") / "rain.nc", rain(frames=40, shape=(24, 28), missing=0.02))


@pytest.fixture(scope="module")
def source(record, cache, tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("runs") / "source", [record], seed=5)


def started(record, source, **training):
    experiment = tiny_experiment([record], start_from=str(source), **training)
    learner, archive = Learner(experiment, torch.device("cpu")), open_archive(experiment.data)
    learner.start_from(read_checkpoint(source), quantity=archive.quantity)
    return learner


def run(experiment, output, **options):
    return train_run(experiment, output, **{"resume": False, "overwrite": False} | options, device="cpu")


def test_weights_and_their_average_are_those_of_the_run_and_nothing_else_is(record, source):
    learner = started(record, source)
    expected = read_checkpoint(source / BEST).tensors_of("model")
    for found in (learner.model.state_dict(), learner.average.weights):
        assert set(found) == set(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not learner.optimizer.state


def test_of_a_last_checkpoint_the_average_is_taken_which_it_forecasts_with(record, source):
    last = read_checkpoint(source / LAST)
    assert not torch.equal(last.tensors_of("average")["head.weight"], last.tensors_of("model")["head.weight"])
    learner = started(record, source / LAST)
    assert torch.equal(learner.model.head.weight, last.tensors_of("average")["head.weight"])


def test_a_run_begins_with_the_weights_and_says_whose_they_are(record, source, tmp_path, caplog):
    caplog.set_level("INFO", logger="nowcast")
    # a rate this small leaves the weights where they were
    experiment = tiny_experiment([record], start_from=str(source), learning_rate=1e-12, steps=2)
    run(experiment, tmp_path / "run")
    begun, ended = read_checkpoint(source), read_checkpoint(tmp_path / "run")
    assert torch.allclose(begun.tensors_of("model")["head.weight"], ended.tensors_of("model")["head.weight"], atol=1e-6)
    seen = [span for spans in begun.metadata["stretches"].values() for span in spans]
    assert ended.metadata["started_from"] == {"checkpoint": str(source), "sha256": begun.digest, "seen": seen, "calibrated": {}}
    network = open_forecaster(str(tmp_path / "run"), device=torch.device("cpu"))
    assert network.seen("training") == ended.metadata["stretches"]["training"] + seen
    assert network.seen("validation") == ended.metadata["stretches"]["validation"]
    assert config.read(tmp_path / "run" / "config.toml").training.start_from == str(source)
    assert "started_from" not in begun.metadata
    event = first_validation(tmp_path / "run" / METRICS)
    assert event["weights"] == str(source)
    assert event["loss"] == pytest.approx(begun.metadata["best_loss"]), "the same weights, the same cases"
    told = [line for line in caplog.messages if "validation loss" in line]
    assert told[0].startswith(f"step 0, {source}: validation loss {event['loss']:.5g}, ")
    assert f"({source} {event['csi']['1']:.3f}, extrapolation " in told[1]


@pytest.mark.slow
def test_a_resumed_run_does_not_read_the_checkpoint_again(record, source, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((source / BEST).read_bytes())
    run(tiny_experiment([record], start_from=str(copy), steps=2), tmp_path / "run")
    copy.unlink()
    run(tiny_experiment([record], start_from=str(copy), steps=2), tmp_path / "run", resume=True)
    assert read_checkpoint(tmp_path / "run" / LAST).metadata["state"]["step"] == 2
    run(tiny_experiment([record], start_from=str(copy), steps=4), tmp_path / "run", resume=True)
    resumed = read_checkpoint(tmp_path / "run" / LAST)
    assert resumed.metadata["state"]["step"] == 4
    assert resumed.metadata["started_from"]["sha256"] == read_checkpoint(source).digest


@pytest.mark.slow
@pytest.mark.parametrize(("before", "now"), [("", "source"), ("source", "")])
def test_a_run_cannot_be_resumed_as_if_it_had_started_from_other_weights(record, source, tmp_path, before, now):
    """The key had no effect, and config.toml said ever after that the run had started from weights that it never had."""
    started = {"": "", "source": str(source)}
    run(tiny_experiment([record], start_from=started[before], steps=2), tmp_path / "run")
    text = (tmp_path / "run" / "config.toml").read_text()
    difference = re.escape(f"training.start_from = {started[now]} (before: {started[before]})")
    with pytest.raises(CheckpointError, match=rf"{difference}\.\nResume with the config of the run, .* start_from may change"):
        run(tiny_experiment([record], start_from=started[now], steps=4), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "config.toml").read_text() == text


def other(experiment, **sections):
    return experiment.model_copy(update={name: config.NamedSection(**values) for name, values in sections.items()})


MODEL = {"name": "encoder_forecaster", "hidden_channels": [4], "kernel_sizes": [3], "patch": 2}


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        (
            {"model": MODEL | {"hidden_channels": [8]}},
            r"encoder\S+ has shape [\d ×]+ in it and [\d ×]+ in the model\nmodel\.hidden_channels is \[4\] in it and \[8\] in",
        ),
        (
            {"model": MODEL | {"peepholes": True}},
            r"has shape none in it and 3 × 4 × 1 × 1 in the model\nmodel\.peepholes is False in it and True",
        ),
        (
            {"model": MODEL | {"output": "sigmoid"}},
            r"model\.output is 'linear' in it and 'sigmoid' in the config; use its \[model\]",
        ),
        (
            {"model": {"name": "many_to_many"}},
            r"has shape [\s\S]*model\.name is .encoder_forecaster. in it and .many_to_many. in the config",
        ),
        (
            {"transform": {"name": "log", "ceiling": 50.0}},
            r"transform\.ceiling is 100\.0 in it and 50\.0 in the config; use its \[transform\] or another run",
        ),
        ({"transform": {"name": "linear"}}, r"transform\.name is 'log' in it and 'linear' in the config"),
    ],
)
def test_what_does_not_fit_is_refused_and_no_run_begins(record, source, tmp_path, sections, says):
    experiment = other(tiny_experiment([record], start_from=str(source)), **sections)
    with pytest.raises(CheckpointError, match=says) as error:
        run(experiment, tmp_path / "run")
    assert error.value.exit_code == 4
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fact", "value", "says"),
    [
        ("quantity", "dimensionless", r"trained on dimensionless but the records hold rain_rate \(quantity\)"),
        ("units", "1", r"trained on 1 but the records hold mm h-1 \(units\); use records of 1"),
        ("config", {}, r"its config cannot be used \('transform'\)"),
    ],
)
def test_weights_for_something_else_are_refused(record, source, tmp_path, fact, value, says):
    checkpoint = read_checkpoint(source)
    write_checkpoint(tmp_path / "other.safetensors", {**checkpoint.metadata, fact: value}, checkpoint.tensors)
    with pytest.raises(CheckpointError, match=says):
        started(record, tmp_path / "other.safetensors")


def test_a_run_does_not_overwrite_the_network_that_it_starts_from(record, source, tmp_path):
    (tmp_path / "tiny.toml").write_text(config.write(tiny_experiment([record])))
    own = shutil.copytree(source, tmp_path / "run")
    before = (own / BEST).read_bytes()
    train = ("train", tmp_path / "tiny.toml", "--output", own, "--overwrite", "--set", f"training.start_from={own}")
    code, out, err = command(*train)
    assert (code, out) == (5, "")
    assert re.fullmatch(
        r"error: .*best\.safetensors is an input .*, and no input is overwritten\.\nChoose another output\.\n", err
    )
    assert (own / BEST).read_bytes() == before


def test_the_command_line_ends_with_exit_code_4(record, source, tmp_path):
    (tmp_path / "tiny.toml").write_text(config.write(tiny_experiment([record])))
    train = ("train", tmp_path / "tiny.toml", "--output", tmp_path / "run", "--set")
    code, out, err = command(*train, "training.start_from=absent")
    assert (code, out, err) == (4, "", "error: no such checkpoint or run folder: absent\n")
    setting = f"training.start_from={source}"
    code, out, err = command(*train, setting, "--set", "model.hidden_channels=[8]", "--dry-run")
    assert (code, out, err.count("\n")) == (4, "", 2)
    assert err.startswith(f"error: training.start_from = {source}: encoder.")
    code, out, err = command(*train, setting, "--dry-run")
    assert code == 0
    assert f'start_from = "{source}"' in out
    assert not (tmp_path / "run").exists()


def test_validation_windows_that_trained_the_weights_are_told(record, source, tmp_path):
    """The source was trained on the first 24 frames of the record; frames 8 to 39 validate here, in 28 windows."""
    times = [datetime(2020, 6, 1) + minutes for minutes in (timedelta(0), timedelta(minutes=40), timedelta(minutes=200))]
    experiment = tiny_experiment([record], start_from=str(source), steps=1)
    spans = config.Splits(by="spans", training=[times[:2]], validation=[times[1:]])
    experiment = experiment.model_copy(update={"data": experiment.data.model_copy(update={"splits": spans})})
    (tmp_path / "tiny.toml").write_text(config.write(experiment))
    train = ("train", tmp_path / "tiny.toml", "--output", tmp_path / "run")
    warning = f"Beware: '{source}' was trained on 14 of the 28 validation windows: their loss and scores are too good."
    code, _, err = command(*train, "--dry-run")
    assert (code, err.count(warning)) == (0, 1)
    code, _, err = command(*train)
    assert (code, err.count(warning), (tmp_path / "run" / LOG).read_text().count(warning)) == (0, 1, 1)

    renamed = shutil.copy(record, tmp_path / "other.nc")
    code, _, err = command(*train[:2], "--data", renamed, *train[2:], "--dry-run")
    assert f"'{source}' has seen a record of another name at the times of 14 of the 28 validation windows: if it is the" in err
    (tmp_path / "tiny.toml").write_text(config.write(tiny_experiment([record], start_from=str(source))))
    assert "Beware" not in command(*train, "--dry-run")[2]


@pytest.mark.parametrize(
    ("first", "last", "share"),
    [(39, 39, "1 of the 7"), (36, 36, "3 of the 7"), (29, 30, None), (29, 31, "1 of the 7"), (0, 39, "all 7")],
)
def test_a_validation_window_is_told_if_a_future_frame_trained_the_weights(record, source, first, last, share):
    """The windows end with frames 33 to 39; the three newest frames of each are in the future."""
    archive, checkpoint = open_archive(tiny_experiment([record]).data), read_checkpoint(source)
    (own,) = archive.records
    span = [own.name, *(f"{own.times[frame]}Z" for frame in (first, last))]
    trained = replace(checkpoint, metadata=checkpoint.metadata | {"stretches": {"training": [span]}})
    says = f"Beware: 'it' was trained on {share} validation windows: their loss and scores are too good."
    assert seen_windows(trained, "it", archive) == ([says] if share else [])


def test_other_time_steps_and_coordinates_are_told(record, source, tmp_path):
    other = write_record(tmp_path / "other.nc", rain(frames=40, shape=(24, 28)), step_minutes=10)
    checkpoint = read_checkpoint(source)

    def told(path, **data):
        changed = config.as_dict(tiny_experiment([path]))
        experiment = config.from_dict({**changed, "data": changed["data"] | data}, source="test")
        return unlike_start(checkpoint, "old", experiment.data, open_archive(experiment.data))

    assert told(record) == []
    assert told(other) == ["Beware: 'old' was trained with time steps of 5 min, these records have 10 min."]
    of_coordinates = ["Beware: 'old' was trained with data.coordinates = 'grid', not 'lagrangian'."]
    assert told(record, coordinates="lagrangian") == of_coordinates
    within = replace(checkpoint, metadata=checkpoint.metadata | {"time_steps": [120, 900]})
    archive = open_archive(tiny_experiment([other]).data)
    assert unlike_start(within, "old", tiny_experiment([other]).data, archive) == []
