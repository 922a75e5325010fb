"""One update: its loss and gradient norm by hand, over several batches as over one."""

import pytest
import torch
from makers import tiny_experiment

from nowcast.dataset.batches import Batch
from nowcast.training.learner import Learner

CPU = torch.device("cpu")


def batch(seed):
    frames = 8 * torch.rand(2, 5, 16, 16, generator=torch.Generator().manual_seed(seed))
    frames[:, :, :seed] = torch.nan  # as many rows as the seed
    return Batch(frames[:, :2], frames[:, 2:], ((0, seed, 0, 0),) * 2, None)


def norm_of_gradients(learner):
    return torch.cat([each.grad.flatten() for each in learner.model.parameters()]).norm().item()


def test_a_step_tells_its_loss_and_the_norm_of_its_gradients():
    learner, one = Learner(tiny_experiment(["a.nc"], clip=0.0), CPU), batch(3)
    outcome = learner.compute_gradients([one], 6, progress=0.0)
    loss, norm = outcome.read()
    assert (outcome.step, outcome.cases) == (7, [(0, 3, 0, 0)] * 2)
    assert loss == pytest.approx(learner.batch_loss(one).item())
    assert norm == pytest.approx(norm_of_gradients(learner))
    assert abs(loss - norm) > 0.01


def test_the_loss_of_several_batches_is_the_mean_over_all_their_pixels():
    learner, batches = Learner(tiny_experiment(["a.nc"], clip=0.0), CPU), [batch(1), batch(9)]
    sums, counts = zip(*(learner.loss_sum(each) for each in batches), strict=True)
    assert [count.item() for count in counts] == [2 * 3 * rows * 16 for rows in (15, 7)]
    loss, norm = learner.compute_gradients(batches, 0, progress=0.0).read()
    assert loss == pytest.approx((sum(sums) / sum(counts)).item())
    assert norm == pytest.approx(norm_of_gradients(learner))


def test_gradients_are_clipped_to_the_norm_of_the_config():
    learner = Learner(tiny_experiment(["a.nc"], clip=1e-4), CPU)
    _, norm = learner.compute_gradients([batch(2)], 0, progress=0.0).read()
    assert norm > 1e-3
    assert norm_of_gradients(learner) == pytest.approx(1e-4, rel=1e-2)
