"""Losses by hand, and the mask: values under it change neither the loss nor its gradient."""

import math

import pytest
import torch
from makers.models import build

from nowcast.config.schema import NamedSection
from nowcast.errors import UsageError
from nowcast.models.guided.calibration import count_guidance
from nowcast.models.guided.guidance import MISSING, RATES
from nowcast.models.guided.network import Guided, GuidedConfig
from nowcast.models.losses import LOSSES, CrossEntropy, at_least_one, make_loss
from nowcast.models.transform import make_transform

LINEAR = make_transform(NamedSection(name="linear"))
LOG = make_transform(NamedSection(name="log", offset=0.5, ceiling=100.0))  # that of guidance


def mean(loss, forecast, observed, validity, transform):
    """The loss as training takes it: the sum of the errors divided by the count."""
    if loss.takes_distributions:
        forecast = build("guided" if loss.takes_guidance else "probabilistic").loss_input(forecast)
    total, count = loss.sum_and_count(forecast, observed, validity, transform)
    return total / at_least_one(count)


def fields(loss=LOSSES["mse"], seed=0):
    generator = torch.Generator().manual_seed(seed)
    forecast = torch.rand(2, 3, 4, 5, generator=generator) * 0.9 + 0.05
    if loss.takes_guidance:  # log-odds at eight rates
        forecast = torch.stack([3 * forecast - rate for rate in range(8)], dim=2)
    elif loss.takes_distributions:  # locations and logs of the spread
        forecast = torch.stack([*[forecast] * 3, *[forecast - 2] * 3], dim=2)
    observed = torch.rand(2, 3, 4, 5, generator=generator) * 40
    validity = (torch.rand(2, 3, 4, 5, generator=generator) > 0.3).float()
    return forecast.requires_grad_(), observed, validity


@pytest.fixture(params=LOSSES)
def loss(request):
    return make_loss(NamedSection(name=request.param))


def test_a_loss_is_a_finite_scalar_with_gradients_only_where_known(loss):
    forecast, observed, validity = fields(loss)
    value = mean(loss, forecast, observed, validity, LOG)
    value.backward()
    assert value.shape == ()
    assert math.isfinite(value.item())
    assert value.item() > 0
    gradient = forecast.grad if forecast.ndim == 5 else forecast.grad[:, :, None]
    known = validity[:, :, None].expand_as(gradient) > 0
    assert (gradient[~known] == 0).all()
    assert (gradient[known] != 0).all()


@pytest.mark.parametrize("under_mask", [0.0, 1e30, torch.inf, torch.nan])
def test_what_is_under_the_mask_changes_nothing(loss, under_mask):
    forecast, observed, validity = fields(loss)
    reference = mean(loss, forecast, observed, validity, LOG)
    (gradient,) = torch.autograd.grad(reference, forecast)
    changed = torch.where(validity > 0, observed, under_mask)
    again = mean(loss, forecast, changed, validity, LOG)
    (gradient_again,) = torch.autograd.grad(again, forecast)
    assert again.item() == reference.item()
    assert torch.equal(gradient, gradient_again)


def test_nothing_known_gives_zero_and_no_gradient(loss):
    forecast, observed, validity = fields(loss)
    value = mean(loss, forecast, observed, torch.zeros_like(validity), LOG)
    value.backward()
    assert value.item() == 0
    assert (forecast.grad == 0).all()


def one(*values):
    return torch.tensor(values).reshape(1, 1, 1, -1)


def test_values_by_hand():
    forecast, observed, known = one(1.0, 2.0, 9.0), one(3.0, 2.5, 0.0), one(1.0, 1.0, 0.0)
    assert mean(LOSSES["mse"](), forecast, observed, known, LINEAR).item() == pytest.approx((4 + 0.25) / 2)
    assert mean(LOSSES["mae"](), forecast, observed, known, LINEAR).item() == pytest.approx((2 + 0.5) / 2)
    entropy = mean(LOSSES["bce"](), one(0.25), one(1.0), one(1.0), LINEAR)
    assert entropy.item() == pytest.approx(-math.log(0.25))


@pytest.mark.parametrize(
    ("name", "keys"),
    [("mse", {}), ("mae", {}), ("balanced", {}), ("bce", {}), ("bce", {"reduction": "sum"}), ("exceedance", {})],
)
def test_a_mean_is_taken_over_known_pixels_and_that_of_sums_over_cases(name, keys):
    loss = make_loss(NamedSection(name=name, **keys))
    forecast, observed, validity = fields(loss)
    assert loss.takes_distributions == (name == "exceedance")
    if loss.takes_distributions:
        forecast = build("probabilistic").loss_input(forecast)
    count = loss.sum_and_count(forecast, observed, validity, LINEAR)[1]
    assert 2 < validity.sum() < validity.numel()
    assert count == (len(observed) if keys else validity.sum())


def test_exceedance_is_the_cross_entropy_of_the_logistic_distribution():
    loss = make_loss(NamedSection(name="exceedance", thresholds=[1.0, 4.0], weights=[1.0, 3.0]))
    location, spread = 2.0, 0.5
    forecast = torch.tensor([location / spread] * 3 + [1 / spread] * 3).reshape(1, 1, 6, 1, 1)
    above = [1 / (1 + math.exp((threshold - location) / spread)) for threshold in (1.0, 4.0)]
    expected = -math.log(above[0]) - 3 * math.log(1 - above[1])
    observed = torch.full((1, 1, 1, 1), 1.0)  # at the first threshold: reached
    assert mean(loss, forecast, observed, torch.ones(1, 1, 1, 1), LINEAR).item() == pytest.approx(expected, rel=1e-5)


def test_of_the_guidance_itself_the_relative_loss_is_one_on_the_counts_it_was_fitted_to():
    generator = torch.Generator().manual_seed(0)
    coded = torch.randint(-60, 40, (3, 2, 1, 24, 28), generator=generator) - 6 * torch.arange(8)[:, None, None]
    coded = torch.where(torch.rand(3, 2, 1, 24, 28, generator=generator) < 0.1, MISSING, coded).to(torch.int8)
    chance = torch.sigmoid(0.7 * coded.float() / 10 - 0.5)
    reached = torch.rand(3, 2, 1, 24, 28, generator=generator) < chance
    observed = torch.tensor([0.0, *RATES])[reached.cumprod(dim=2).sum(dim=2)]
    model = Guided(GuidedConfig(hidden_channels=(2,), kernel_sizes=(3,)))
    model.correct_guidance(sum(count_guidance(one, rain) for one, rain in zip(coded.numpy(), observed.numpy(), strict=True)))
    outputs = model(torch.zeros(3, 2, 2, 24, 28), 2, guidance=coded)
    total, count = make_loss(NamedSection(name="relative_exceedance")).sum_and_count(
        model.loss_input(outputs), observed, torch.ones_like(observed), LOG
    )
    assert count == (coded[:, :, 0] != MISSING).sum()
    assert (total / count).item() == pytest.approx(1, rel=1e-4)


def test_relative_exceedance_is_binary_cross_entropy_divided_by_that_of_the_guidance():
    loss = make_loss(NamedSection(name="relative_exceedance", thresholds=[0.5, 5.0]))
    forecast, observed, validity = fields(type(loss))
    with torch.no_grad():
        forecast[0, 1, :, 2, 3] = torch.nan
    model = build("guided")
    model.entropy.copy_(torch.arange(1.0, 9.0))
    total, count = loss.sum_and_count(model.loss_input(forecast), observed, validity, LOG)
    known = (validity > 0) & ~forecast[:, :, 0].isnan()
    entropies = [
        torch.nn.functional.binary_cross_entropy_with_logits(
            forecast[:, :, rate][known], (observed >= RATES[rate])[known].float()
        )
        / model.entropy[rate]
        for rate in (1, 4)
    ]
    assert count == known.sum()
    torch.testing.assert_close(total / count, sum(entropies) / 2)
    expected, found = (torch.autograd.grad(value, forecast)[0] for value in (sum(entropies) / 2, total / count))
    torch.testing.assert_close(found, expected)


def test_exceedance_leaves_out_cells_without_guidance():
    """Their outputs are NaN, and so was the loss of each batch with such a cell: no guided network could train with it."""
    loss = make_loss(NamedSection(name="exceedance", thresholds=[0.5, 5.0], weights=[1.0, 3.0]))
    forecast, observed, validity = fields(LOSSES["relative_exceedance"])
    with torch.no_grad():
        forecast[0, 1, :, 2, 3] = torch.nan
    total, count = loss.sum_and_count(build("guided").loss_input(forecast), observed, validity, LOG)
    known = (validity > 0) & ~forecast[:, :, 0].isnan()
    expected = sum(
        weight * torch.nn.functional.binary_cross_entropy_with_logits(
            forecast[:, :, rate][known], (observed >= RATES[rate])[known].float(), reduction="sum"
        )
        for rate, weight in ((1, 1.0), (4, 3.0))
    )  # fmt: skip
    assert count == known.sum() == validity.sum() - 1
    torch.testing.assert_close(total, expected)
    found, gradient = (torch.autograd.grad(value, forecast)[0] for value in (total, expected))
    torch.testing.assert_close(found, gradient)


def test_the_gradient_of_cross_entropy_is_that_of_its_sum():
    generator = torch.Generator().manual_seed(0)
    odds = (4 * torch.randn(5, 6, generator=generator, dtype=torch.float64)).requires_grad_()
    reached, known = (torch.rand(5, 6, generator=generator) < share for share in (0.4, 0.8))
    assert torch.autograd.gradcheck(lambda z: CrossEntropy.apply(z, reached, known), odds)
    far = torch.tensor([[500.0, -500.0]], requires_grad=True)
    entropy = CrossEntropy.apply(far, torch.tensor([[False, True]]), torch.tensor([[True, True]]))
    entropy.backward()
    assert entropy.item() == 1000
    assert far.grad.tolist() == [[1, -1]]


@pytest.mark.parametrize("keys", [{"thresholds": [2.0, 1.0]}, {"thresholds": []}])
def test_thresholds_of_relative_exceedance_ascend(keys):
    with pytest.raises(UsageError, match="thresholds"):
        make_loss(NamedSection(name="relative_exceedance", **keys))


@pytest.mark.parametrize("keys", [{"weights": [1.0]}, {"thresholds": [2.0, 1.0], "weights": [1.0, 1.0]},
                                  {"thresholds": [], "weights": []}])  # fmt: skip
def test_thresholds_of_exceedance_ascend_and_have_a_weight_each(keys):
    with pytest.raises(UsageError, match="thresholds"):
        make_loss(NamedSection(name="exceedance", **keys))


def test_balanced_weights_follow_the_observed_rain_with_thresholds_included():
    balanced = make_loss(NamedSection(name="balanced", mse=0.0, space="rain_rate"))
    rates = [0.0, 0.49, 0.5, 2.0, 5.0, 9.9, 10.0, 30.0, 80.0]
    weights = [1, 1, 1, 2, 5, 5, 10, 30, 30]
    for rate, weight in zip(rates, weights, strict=True):
        loss = mean(balanced, one(rate + 1.0), one(rate), one(1.0), LINEAR)
        assert loss.item() == pytest.approx(weight, rel=1e-5), rate


def test_balanced_in_rain_rate_and_in_values_differ_by_the_transform():
    forecast, observed, known = one(0.5), one(1.0), one(1.0)
    in_values = mean(make_loss(NamedSection(name="balanced", mse=0.0)), forecast, observed, known, LOG)
    assert in_values.item() == pytest.approx(abs(0.5 - LOG.encode(observed).item()), rel=1e-5)
    in_rates = mean(make_loss(NamedSection(name="balanced", mse=0.0, space="rain_rate")), forecast, observed, known, LOG)
    assert in_rates.item() == pytest.approx(LOG.decode(forecast).item() - 1.0, rel=1e-5)


def test_cross_entropy_as_the_2015_paper_counts_it_sums_frames_and_pixels_per_case():
    forecast, observed, known = torch.full((2, 3, 4, 5), 0.5), torch.ones(2, 3, 4, 5), torch.ones(2, 3, 4, 5)
    summed = mean(make_loss(NamedSection(name="bce", reduction="sum")), forecast, observed, known, LINEAR)
    assert summed.item() == pytest.approx(3 * 4 * 5 * math.log(2), rel=1e-5)
