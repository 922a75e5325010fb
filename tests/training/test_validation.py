"""The loss of a validation: that of all its known pixels, as a training step has it, however they lie in batches."""

import numpy as np
import pytest
import torch
from makers import rain, tiny_experiment

from nowcast.dataset.batches import Batch
from nowcast.errors import DataError
from nowcast.quantity import RAIN_RATE
from nowcast.training.baselines import Baselines
from nowcast.training.learner import Learner


class Cases:
    """Four cases in batches of one size: dry, wet with few pixels known, wet, and one of which no future is known."""

    def __init__(self, batch_size):
        self.batch_size = batch_size
        frames = np.stack([rain(frames=5, shape=(16, 16), seed=seed) for seed in range(4)])
        frames[0] = 0.0
        frames[1, 2:, 1:] = np.nan
        frames[3, 2:] = np.nan
        self.frames = torch.from_numpy(frames)

    def __getitem__(self, k):
        chosen = self.frames[k * self.batch_size : (k + 1) * self.batch_size]
        return Batch(chosen[:, :2], chosen[:, 2:], tuple((0, k, 0, n) for n in range(len(chosen))))

    def blocks(self, batch):
        return [(0, 0)] * len(batch.cases)


@pytest.mark.parametrize("name", ["mae", "bce"])  # means over pixels, and over cases
def test_the_loss_of_a_validation_does_not_depend_on_the_batches(name):
    experiment = tiny_experiment([], ema=0.0)
    if name == "bce":
        sections = {"loss": {"name": name, "reduction": "sum"}, "model": experiment.model.model_dump() | {"output": "sigmoid"}}
        experiment = type(experiment).model_validate(experiment.model_dump() | sections)
    learner = Learner(experiment, torch.device("cpu"))
    expected = float(learner.batch_loss(Cases(4)[0]).detach())
    found = [learner.validate(Cases(size), 4 // size, Baselines(RAIN_RATE.thresholds)).loss for size in (1, 2, 4)]
    assert found == pytest.approx([expected] * 3, rel=1e-5)
    assert expected > 0


def test_a_validation_without_any_observation_is_refused():
    learner, nothing = Learner(tiny_experiment([], ema=0.0), torch.device("cpu")), Cases(1)
    nothing.frames[:, 2:] = np.nan
    with pytest.raises(DataError, match=r"no validation case has a known cell in its future\.\nExpected observations"):
        learner.validate(nothing, 4, Baselines(RAIN_RATE.thresholds))
