"""Checkpoints hold the weights that forecast, and describe the training."""

import math
from dataclasses import replace

import pytest
import torch
from makers import tiny_experiment
from makers.stored import edit

from nowcast.dataset.archive import open_archive
from nowcast.errors import CheckpointError
from nowcast.models.checkpoint import BEST, LAST, PREVIOUS, read_checkpoint
from nowcast.training.learner import Learner
from nowcast.training.snapshots import Snapshots
from nowcast.training.state import TrainingState

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def made(record, tmp_path):
    """Snapshots of a learner whose average differs from its weights by 1."""
    experiment = tiny_experiment([record], ema=0.5)
    learner = Learner(experiment, torch.device("cpu"))
    for value in learner.average.weights.values():
        value += 1
    return Snapshots(learner, open_archive(experiment.data), tmp_path, num_steps=9)


def test_the_best_checkpoint_holds_the_average_and_describes_itself(made):
    made.save_best(TrainingState(step=3, best_loss=0.5))
    best = read_checkpoint(made.output / BEST)
    weights = made.learner.model.state_dict()
    assert best.tensors_of("model").keys() == weights.keys()
    for name, tensor in best.tensors_of("model").items():
        assert torch.equal(tensor, weights[name] + 1)
    data, archive = made.learner.experiment.data, made.archive
    expected = {
        "step": 3, "best_loss": 0.5, "quantity": "rain_rate", "units": "mm h-1", "input_frames": data.input_frames,
        "lead_frames": data.lead_frames, "time_steps": [300], "spacing_km": [[1.0, 1.0]], "precision": "float32",
        "windows": {split: archive.num_windows(split) for split in ("training", "validation")},
        "windows_sha256": archive.digest, "grids_sha256": archive.grids_digest,
    }  # fmt: skip
    assert {key: best.metadata[key] for key in expected} == expected
    assert data.input_frames != data.lead_frames
    assert len(set(expected["windows"].values())) == 2
    assert "frame_statistics" not in best.metadata


@pytest.mark.parametrize("state", [None, {"step": "3"}, {"steps": 3}])
def test_a_checkpoint_without_its_state_does_not_fit(made, state):
    made.save_last(TrainingState(step=1))
    last = read_checkpoint(made.output / LAST)
    metadata = {key: value for key, value in last.metadata.items() if key != "state"} | ({"state": state} if state else {})
    with pytest.raises(CheckpointError, match=r"^the checkpoint in .* does not fit the config: "):
        made.restore(replace(last, metadata=metadata))


def test_a_spacing_is_rounded_and_0_where_it_is_unknown(record, tmp_path):
    for scale, expected in ((1.23456789, [[1.2346, 1.2346]]), (None, [[0.0, 0.0]])):
        with edit(record) as file:
            for name in ("y", "x"):
                if scale:
                    file[name][:] = scale * file[name][:]
                else:
                    file[name].delncattr("units")
                    file[name].delncattr("standard_name")
        experiment = tiny_experiment([record])
        snapshots = Snapshots(Learner(experiment, torch.device("cpu")), open_archive(experiment.data), tmp_path, num_steps=9)
        snapshots.save_best(TrainingState())
        assert read_checkpoint(tmp_path / BEST).metadata["spacing_km"] == expected


def test_the_last_checkpoint_has_the_state_and_the_one_before_it_is_kept(made):
    for step in (1, 2):
        made.save_last(TrainingState(step=step))
    last, previous = (read_checkpoint(made.output / name) for name in (LAST, PREVIOUS))
    assert (previous.metadata["step"], last.metadata["step"], last.metadata["num_steps"]) == (1, 2, 9)
    state = made.restore(last)
    assert (state.step, state.best_loss) == (2, math.inf)
    assert made.restore(previous).step == 1  # as if `last` were damaged
    for step in (3, 4):
        made.save_last(TrainingState(step=step))
        kept = read_checkpoint(made.output / PREVIOUS).metadata["step"]
        assert kept == {3: 1, 4: 3}[step], "a damaged one takes no good one's place"


@pytest.mark.parametrize(
    ("name", "tensors", "ema"),
    [("adamw", 3, 0.0), ("adamw", 4, 0.5), ("adadelta", 3, 0.0), ("rmsprop", 2, 0.0), ("sgd", 2, 0.0)],
)
def test_the_room_that_checkpoints_take_is_known_before(record, tmp_path, name, tensors, ema):
    """tensors: the weights, those of the optimizer and the average, for each weight."""
    experiment = tiny_experiment([record], ema=ema, optimizer=name)
    learner = Learner(experiment, torch.device("cpu"))
    best, last = Snapshots(learner, open_archive(experiment.data), tmp_path, num_steps=9).num_bytes()
    assert best == sum(value.nbytes for value in learner.model.state_dict().values())
    assert last == tensors * best
