"""The structure of the noise is measured at the end of a training, and kept in its checkpoint."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from makers import rain, write_record
from makers.guided import guided_experiment
from makers.runs import train

from nowcast.dataset.archive import open_archive
from nowcast.dataset.windows import find_windows
from nowcast.errors import CheckpointError
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.members import keep
from nowcast.forecasters.members.keep import keep_structure, middle, structure_of
from nowcast.models.checkpoint import read_checkpoint, write_checkpoint
from nowcast.netcdf.opening import open_records
from nowcast.scores.distribution import RATES

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder and its config: 56 frames, of which the last 22 validate."""
    folder = tmp_path_factory.mktemp("keep")
    experiment = guided_experiment(
        [write_record(folder / "rain.nc", rain(frames=56, shape=(24, 28)))], steps=1, validation_cases=8
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOWCAST_CACHE", str(folder / "cache"))
        train(experiment, folder / "run")
        yield folder / "run", experiment


@pytest.mark.slow
def test_a_training_keeps_the_structure_of_its_members(run):
    folder, experiment = run
    network = open_forecaster(str(folder), device=CPU)
    assert network.structure.power.shape == (2, 3, 6)  # noises; lead times; waves of 2 to 32 cells, and longer ones
    np.testing.assert_array_equal(network.structure.minutes, [5, 10, 15])
    before = (folder / "best.safetensors").read_bytes()
    assert keep_structure(folder, open_archive(experiment.data), CPU)  # it is measured once
    assert (folder / "best.safetensors").read_bytes() == before


@pytest.mark.slow
def test_an_older_checkpoint_has_the_default_structure_and_resuming_adds_its_own(run):
    folder, experiment = run
    checkpoint = read_checkpoint(folder)
    metadata = {name: value for name, value in checkpoint.metadata.items() if name not in ("format", "members")}
    write_checkpoint(checkpoint.path, metadata, checkpoint.tensors)
    past = rain(frames=2, shape=(24, 28), seed=1)
    assert not keep_structure(folder, open_archive(experiment.data), CPU, most=7)  # too few to tell anything
    older = open_forecaster(str(folder), device=CPU)
    assert older.structure is None
    with_default = np.stack(list(older.members(past, 3, 2)))
    train(experiment, folder, resume=True)
    assert read_checkpoint(folder).metadata == checkpoint.metadata
    with_own = np.stack(list(open_forecaster(str(folder), device=CPU).members(past, 3, 2)))
    assert with_own.shape == with_default.shape
    assert (with_own != with_default).any()


@pytest.mark.slow
def test_the_one_noise_of_an_older_run_is_measured_anew(run):
    folder, experiment = run
    checkpoint = read_checkpoint(folder)
    metadata = {name: value for name, value in checkpoint.metadata.items() if name != "format"}
    both = metadata["members"]
    one = {name: both[name][0] for name in ("power", "memory")} | {name: both[name] for name in ("minutes", "km", "largest")}
    write_checkpoint(checkpoint.path, metadata | {"members": one}, checkpoint.tensors)
    assert open_forecaster(str(folder), device=CPU).structure.shared == 1
    archive = open_archive(experiment.data)
    assert keep_structure(folder, archive, CPU, most=7)  # too few to tell anything: it stays
    assert read_checkpoint(folder).metadata["members"] == one
    assert keep_structure(folder, archive, CPU, most=experiment.training.validation_cases)
    assert read_checkpoint(folder).metadata["members"] == both


@pytest.mark.slow
def test_a_damaged_structure_is_refused(run, tmp_path):
    checkpoint = read_checkpoint(run[0])
    metadata = {name: value for name, value in checkpoint.metadata.items() if name != "format"}
    write_checkpoint(tmp_path / "best.safetensors", metadata | {"members": {"km": [1]}}, checkpoint.tensors)
    with pytest.raises(CheckpointError, match="cannot be used"):
        open_forecaster(str(tmp_path), device=CPU)


class Asked:
    """A network of 2 past frames that gives no chance of rain, and keeps the shapes of the frames that it is given."""

    def __init__(self, grid=None):
        self.model, self.shapes = SimpleNamespace(grid=grid), set()

    def forecast_and_exceedance(self, past, num_leads, rates):
        self.shapes.add(past.shape[-2:])
        return None, np.zeros((len(past), num_leads, len(rates), *past.shape[-2:]), np.float32)

    def on_record(self, record, step):
        return SimpleNamespace(scale=(2.0, step / np.timedelta64(60, "s")))


def measured(monkeypatch, network, records, most=24):
    """The cases that are measured of these records, and what is told with them."""
    found = []
    monkeypatch.setattr(keep, "measure", lambda cases, *told, **scale: found.append((list(cases()), told, scale)))
    records = [record for path in records for record in open_records([path])]
    each = [find_windows(r.times, input_frames=2, lead_frames=3, time_step=r.time_step) for r in records]
    structure_of(network, SimpleNamespace(records=records, windows={"validation": each}), most=most)
    return found[0] if found else None


def test_cases_that_begin_with_rain_are_measured_in_the_middle_of_the_grid(tmp_path, monkeypatch):
    fields = np.full((40, 140, 130), 0.05, np.float32)  # drizzle counts as dry
    fields[10:24, 60:80, 60:90], fields[10:24, :4] = 3, np.nan
    record = write_record(tmp_path / "rain.nc", fields)
    cases, told, scale = measured(monkeypatch, network := Asked(), [record])
    assert (told, scale) == (((128, 128), 3), {"km": 2.0, "minutes": 5.0})
    assert network.shapes == {(128, 128)}
    assert len(cases) == 14  # whose newest past frames are 10 to 23
    expected = np.where(fields == np.float32(0.05), 0, fields)[:, 6:134, 1:129]
    for number, case in zip(range(10, 24), cases, strict=True):
        np.testing.assert_array_equal(case.past, fields[number - 1 : number + 1, 6:134, 1:129])
        np.testing.assert_array_equal(case.observed, expected[number + 1 : number + 4])
        assert case.exceedance.shape == (3, len(RATES), 128, 128)
    (case, *_), *_ = measured(monkeypatch, whole := Asked(grid=(140, 130)), [record])
    assert (whole.shapes, case.exceedance.shape[-2:]) == ({(140, 130)}, (128, 128))
    assert len(measured(monkeypatch, Asked(), [record], most=9)[0]) == 9
    fields[17:] = 0  # seven wet cases are left
    assert measured(monkeypatch, Asked(), [write_record(tmp_path / "few.nc", fields)]) is None


def test_only_records_like_the_longest_are_measured(tmp_path, monkeypatch):
    wet, paths = np.full((20, 24, 28), 2, np.float32), []
    for name, number, options in (("long", 20, {}), ("like", 16, {}), ("slow", 14, {"step_minutes": 10})):
        paths.append(write_record(tmp_path / f"{name}.nc", wet[:number], **options))
    paths.append(write_record(tmp_path / "wide.nc", np.full((14, 24, 30), 2, np.float32)))
    assert len(measured(monkeypatch, Asked(), paths, most=60)[0]) == 16 + 12


def test_the_middle_of_a_large_grid_is_measured():
    field = np.arange(140.0 * 130).reshape(1, 140, 130)
    np.testing.assert_array_equal(middle(field), field[:, 6:134, 1:129])
    assert middle(field[:, :50, :40]).shape == (1, 50, 40)
