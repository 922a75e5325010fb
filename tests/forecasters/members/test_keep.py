"""The structure of the noise is measured at the end of a training, and kept in its checkpoint."""

import numpy as np
import pytest
import torch
from makers import rain, write_record
from makers.guided import guided_experiment
from makers.runs import train

from nowcast.dataset.archive import open_archive
from nowcast.errors import CheckpointError
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.members.keep import keep_structure, middle
from nowcast.models.checkpoint import read_checkpoint, write_checkpoint

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


def test_the_middle_of_a_large_grid_is_measured():
    field = np.arange(140.0 * 130).reshape(1, 140, 130)
    np.testing.assert_array_equal(middle(field), field[:, 6:134, 1:129])
    assert middle(field[:, :50, :40]).shape == (1, 50, 40)
