"""What a run decides by itself is written down and stays; runs made before that resume and forecast all the same."""

import logging

import numpy as np
import pytest
import torch
from makers import rain, tiny_experiment, write_record
from makers.runs import train

from nowcast import config
from nowcast.commands.train import dry_run_summary
from nowcast.errors import CheckpointError
from nowcast.forecasters import open_forecaster
from nowcast.models.checkpoint import BEST, LAST, PREVIOUS, read_checkpoint, write_checkpoint
from nowcast.models.engine.amx import functions
from nowcast.runtime import precision
from nowcast.training.compatibility import check_same
from nowcast.training.run_folder import CONFIG

pytestmark = [pytest.mark.usefixtures("cache"), pytest.mark.slow]
CPU = torch.device("cpu")
START, STEP = np.datetime64("2020-06-01T00:00:00"), np.timedelta64(300, "s")


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """A function that gives this machine a processor with these flags."""

    def has(*flags):
        (tmp_path / "cpuinfo").write_text(f"flags : avx2 {' '.join(flags)}\n")
        precision.processor_flags.cache_clear()

    monkeypatch.setattr(precision, "PROCESSOR", tmp_path / "cpuinfo")
    # it would be found missing (or not) once for all tests that follow
    monkeypatch.setattr(functions, "library", lambda *_: None)
    yield has
    precision.processor_flags.cache_clear()


def decided(run):
    """The precisions in the run's config, in its checkpoint's config, and in its checkpoint."""
    metadata = read_checkpoint(run / BEST).metadata
    return config.read(run / CONFIG).training.precision, metadata["config"]["training"]["precision"], metadata["precision"]


@pytest.mark.parametrize(("flags", "name"), [((), "float32"), (("avx512_bf16",), "bfloat16"), (("amx_bf16",), "bfloat16")])
def test_the_precision_is_decided_once_and_for_all(tmp_path, record, processor, caplog, flags, name):
    processor(*flags)
    wanted = tiny_experiment([record], precision="auto", steps=2)
    summary = dry_run_summary(wanted, "cpu")
    assert (summary["precision"], summary["config"]["training"]["precision"]) == (name, name)
    train(wanted, tmp_path / "run")
    assert decided(tmp_path / "run") == (name, name, name)
    assert str(open_forecaster(str(tmp_path / "run"), device=CPU).precision) == f"torch.{name}"
    assert "units" not in caplog.text


def test_another_processor_goes_on_in_what_was_decided_and_forecasts_as_it_can(tmp_path, record, processor, caplog):
    processor("avx512_bf16")
    train(tiny_experiment([record], precision="auto", steps=2), tmp_path / "run")
    processor()
    with caplog.at_level(logging.INFO, "nowcast"):
        assert open_forecaster(str(tmp_path / "run"), device=CPU).precision == torch.float32
    assert caplog.text.count("does not support in hardware: it forecasts in float32") == 1
    train(tiny_experiment([record], precision="auto", steps=3), tmp_path / "run", resume=True)
    assert decided(tmp_path / "run")[0] == "bfloat16"
    assert "training.precision = bfloat16, but this processor has no hardware support" in caplog.text
    train(tiny_experiment([record], precision="float32", steps=4), tmp_path / "run", resume=True)
    assert decided(tmp_path / "run")[0] == read_checkpoint(tmp_path / "run" / LAST).metadata["precision"] == "float32"


def aged(run, *, data=(), without=()):
    """Make a run one that was trained before these keys of [data] were there, and before it recorded its precision."""
    for path in (run / name for name in (BEST, LAST, PREVIOUS)):
        checkpoint = read_checkpoint(path)
        metadata = {key: value for key, value in checkpoint.metadata.items() if key not in without}
        tree = {**metadata["config"], "training": metadata["config"]["training"] | {"precision": "auto"}}
        tree["data"] = {key: value for key, value in tree["data"].items() if key not in data}
        write_checkpoint(path, metadata | {"config": tree}, checkpoint.tensors)
    lines = (run / CONFIG).read_text().replace('"float32"', '"auto"').splitlines(keepends=True)
    (run / CONFIG).write_text("".join(line for line in lines if line.partition(" = ")[0] not in data))


def test_a_run_made_before_frames_could_be_absent_resumes_and_forecasts(tmp_path, processor):
    processor()
    fields = rain(frames=40, shape=(24, 28))
    there = np.delete(np.arange(40), [10, 33])
    record = write_record(tmp_path / "rain.nc", fields[there], times=START + there * STEP)

    def without_absent(**training):
        wanted = tiny_experiment([record], precision="auto", **training)
        return wanted.model_copy(update={"data": wanted.data.model_copy(update={"max_absent": 0})})

    train(without_absent(steps=2), tmp_path / "known")
    train(without_absent(steps=4), tmp_path / "known", resume=True)
    train(without_absent(steps=2), tmp_path / "old")
    aged(tmp_path / "old", data=("max_absent",), without=("precision",))
    resumed = config.read(tmp_path / "old" / CONFIG, ["training.steps=4"])
    assert resumed.data.max_absent == 1, "of new runs"
    train(resumed, tmp_path / "old", resume=True)
    own = config.read(tmp_path / "old" / CONFIG)
    assert own.data.max_absent == 0
    check_same(resumed, own, source="old.toml", output=tmp_path / "old")
    one, other = (read_checkpoint(tmp_path / name / LAST) for name in ("known", "old"))
    assert one.metadata["windows_sha256"] == other.metadata["windows_sha256"]
    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())
    past = fields[None, 4:6]
    forecasts = [open_forecaster(str(tmp_path / name), device=CPU).forecast(past, 3) for name in ("known", "old")]
    np.testing.assert_array_equal(*forecasts)


def test_absent_frames_that_are_asked_for_are_another_run(tmp_path, record):
    train(tiny_experiment([record], steps=2), tmp_path / "old")
    aged(tmp_path / "old", data=("max_absent",))
    wanted = config.read(tmp_path / "old" / CONFIG, ["training.steps=4", "data.max_absent=1"])
    with pytest.raises(CheckpointError, match=r"data\.max_absent = 1 \(before: 0\)"):
        train(wanted, tmp_path / "old", resume=True)
