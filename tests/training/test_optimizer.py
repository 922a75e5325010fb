"""The optimizers, their learning rates and the number of steps are those that the page of keys says they are."""

from typing import get_args

import pytest
import torch
from makers import ROOT

from nowcast.config.schema import Training
from nowcast.training.optimizer import Average, count_steps, learning_rate, make_optimizer, optimizer_tensors, restore_optimizer

BETAS = (0.8, 0.95)


@pytest.mark.parametrize(
    ("name", "key", "value", "default"),
    [
        ("adamw", "betas", BETAS, (0.9, 0.999)),
        ("adam", "betas", BETAS, (0.9, 0.999)),
        ("sgd", "momentum", BETAS[0], 0),
        ("rmsprop", "alpha", BETAS[1], 0.99),
        ("adadelta", "rho", BETAS[1], 0.9),
    ],
)
def test_the_averages_of_every_optimizer_are_those_of_betas(name, key, value, default):
    """`default`: what torch takes by itself, which the page states where it is not Adam's."""
    made = make_optimizer(torch.nn.Linear(2, 2), Training(steps=1, optimizer=name, betas=BETAS))
    assert made.defaults[key] == value
    assert type(made)(torch.nn.Linear(2, 2).parameters()).defaults[key] == default
    if key != "betas":
        row = next(line for line in (ROOT / "configs" / "README.md").read_text().splitlines() if line.startswith("| `betas`"))
        assert f"the {key} of `{name}` (torch: {default})" in row


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("sgd", torch.optim.SGD),
        ("rmsprop", torch.optim.RMSprop),
        ("adadelta", torch.optim.Adadelta),
    ],
)
def test_every_optimizer_has_the_rate_and_the_decay_of_the_config(name, kind):
    made = make_optimizer(torch.nn.Linear(2, 2), Training(steps=1, optimizer=name, learning_rate=0.03, weight_decay=0.07))
    assert type(made) is kind
    assert (made.defaults["lr"], made.defaults["weight_decay"]) == (0.03, 0.07)


def test_the_state_of_an_optimizer_is_restored():
    layers = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(6)))  # 12 parameters
    made = [make_optimizer(layers, Training(steps=1, optimizer="adamw")) for _ in range(2)]
    layers(torch.ones(1, 2)).sum().backward()
    made[0].step()
    tensors = optimizer_tensors(made[0])
    restore_optimizer(made[1], tensors)
    assert optimizer_tensors(made[1]).keys() == tensors.keys() >= {"11.exp_avg", "0.step"}
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in optimizer_tensors(made[1]).items())


def test_the_average_follows_early_weights_fast_and_copies_whole_numbers():
    """Its decay is 1 / 10 at step 0, 10 / 19 at step 9, and that of the config late."""
    model = torch.nn.BatchNorm1d(1)
    average = Average(model, 0.9)
    for step, expected in ((0, 0.9), (9, 0.9 * 10 / 19 + 9 / 19), (1000, (0.9 * 10 / 19 + 9 / 19) * 0.9 + 0.1)):
        model.running_mean.fill_(1.0)
        model.num_batches_tracked.fill_(step + 1)
        average.update(model, step=step)
        assert average.weights["running_mean"].item() == pytest.approx(expected)
        assert average.weights["num_batches_tracked"].item() == step + 1


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [
        ({"schedule": "cosine"}, (2, 12, 20), (1.0, 0.0, 0.0)),  # more steps than were planned
        ({"schedule": "onecycle"}, (2, 5, 12), (1 / 25, 1.0, 1 / 250_000)),
        ({"schedule": "decay", "decay_factor": 0.5, "decay_every": 4}, (2, 3, 4, 8), (1.0, 1.0, 0.5, 0.25)),
        ({"schedule": "constant"}, (2, 12), (1.0, 1.0)),
    ],
)
def test_schedules_begin_after_the_warm_up(schedule, steps, expected):
    settings = Training(steps=12, learning_rate=1.0, warmup_steps=2, **schedule)
    assert [learning_rate(step, 12, settings) for step in (0, 1)] == [0.5, 1.0]
    assert [learning_rate(step, 12, settings) for step in steps] == pytest.approx(expected, abs=1e-9)
    assert learning_rate(2, 2, settings) == pytest.approx(expected[0]), "all steps are warm-up"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"steps": 7}, 7),
        ({"epochs": 3, "batch_size": 4}, 3 * 26),  # the last batch of an epoch is not full
        ({"epochs": 3, "batch_size": 4, "accumulate": 2}, 3 * 13),
    ],
)
def test_epochs_are_as_many_steps_as_take_every_window(settings, expected):
    assert count_steps(Training(**settings), 101) == expected


@pytest.mark.parametrize("name", get_args(Training.model_fields["optimizer"].annotation))
def test_every_optimizer_takes_betas_that_are_written_as_whole_numbers(name):
    weights = torch.nn.Linear(2, 2)
    optimizer = make_optimizer(weights, Training(steps=1, optimizer=name, betas=(0, 0)))
    weights(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert all(torch.isfinite(value).all() for value in weights.parameters())
