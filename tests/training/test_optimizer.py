"""The optimizers and the number of steps are those that the page of keys says they are."""

from typing import get_args

import pytest
import torch
from makers import ROOT

from nowcast.config.schema import Training
from nowcast.training.optimizer import count_steps, make_optimizer

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
