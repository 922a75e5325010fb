"""Cross entropies in one pass (entropy.c) are those of torch, threshold by threshold in float64, and so are their gradients."""

import pytest
import torch
import torch.nn.functional as F
from makers.models import LOG, LOSS_OF, OF_DISTRIBUTIONS, build

from nowcast.config.schema import NamedSection
from nowcast.models.engine.entropy import SOURCE, LinearCrossEntropy
from nowcast.models.losses import make_loss
from nowcast.runtime import compiled

THRESHOLDS = [0.1, 0.7, 5.0, 60.0]  # two of the rates of guidance, one between them, one above all


@pytest.fixture
def num_threads():
    if compiled.load(SOURCE) is None:
        pytest.skip("no C compiler")
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def loss_and_gradient(name, outputs, *, factor=1.0):
    """Of 2 cases, 3 lead times and 17 × 19 cells, a third of them unknown; `factor` of what is derived."""
    keys = {} if name == "guided" else {"weights": [0.5, 1.0, 2.0, 3.0]}
    loss = make_loss(NamedSection(name=LOSS_OF[name], thresholds=THRESHOLDS, **keys))
    generator = torch.Generator().manual_seed(1)
    observed = 30 * torch.rand(2, 3, 17, 19, generator=generator) ** 4
    validity = (torch.rand(2, 3, 17, 19, generator=generator) > 0.3).float()
    observed = torch.where(validity > 0, observed, torch.nan)
    outputs = outputs.detach().requires_grad_()
    model = build(name)
    if name == "guided":
        model.entropy.copy_(torch.linspace(0.5, 0.01, 8))
    total, count = loss.sum_and_count(model.loss_input(outputs), observed, validity, LOG)
    (factor * total).backward()
    return total.detach(), outputs.grad, count


@pytest.fixture(params=OF_DISTRIBUTIONS)
def case(request):
    outputs = 20 * torch.randn(2, 3, OF_DISTRIBUTIONS[request.param], 17, 19, generator=torch.Generator().manual_seed(0))
    if request.param == "guided":
        outputs[1, 0, :, 2, 3:6] = torch.nan  # no guidance
    return request.param, outputs


def test_one_pass_gives_what_torch_gives(case, num_threads):
    name, outputs = case
    found, gradient, count = loss_and_gradient(name, outputs, factor=0.3)
    expected, expected_gradient, expected_count = loss_and_gradient(name, outputs.double(), factor=0.3)
    assert found.dtype == torch.float32
    assert expected.dtype == torch.float64, "threshold by threshold"
    assert count == expected_count
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(gradient, expected_gradient.float(), rtol=1e-4, atol=1e-6 * expected_gradient.abs().max().item())


def test_threads_change_no_bit(case, num_threads):
    found = []
    for number in (1, 2):
        num_threads(number)
        found.append(loss_and_gradient(*case))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_what_is_not_finite_is_not_hidden(num_threads):
    outputs = torch.zeros(2, 3, 6, 17, 19)
    outputs[0, 1, 0] = torch.nan
    assert loss_and_gradient("probabilistic", outputs)[0].isnan()


@pytest.mark.parametrize(("least", "most"), [(-80.0, -9.1), (-9.1, -8.9), (-8.9, -5.1), (-12.0, 3.0)])
@pytest.mark.parametrize("wet", [(), (5,), (130, 400)])
def test_dry_places_with_small_probabilities_are_as_exact_as_others(num_threads, least, most, wet):
    generator = torch.Generator().manual_seed(3)
    odds = least + (most - least) * torch.rand(1, 1, 1, 1, 600, dtype=torch.float64, generator=generator)
    observed, known = torch.full((1, 1, 1, 600), 0.09), torch.rand(1, 1, 1, 600, generator=generator) < 0.9
    observed[..., list(wet)], known[..., list(wet)] = 0.1, True
    outputs = odds.float().requires_grad_()
    library = compiled.load(SOURCE)
    total = LinearCrossEntropy.apply(outputs, observed, known, [[1.0]], [0.1], [0.7], library)
    total.backward()
    odds.requires_grad_()
    reached = (observed >= 0.1).double()[:, :, None]
    each = F.binary_cross_entropy_with_logits(odds, reached, weight=0.7 * known[:, :, None].double(), reduction="none")
    each.sum().backward()
    assert total.item() == pytest.approx(each.sum().item(), rel=1e-5)
    torch.testing.assert_close(outputs.grad, odds.grad.float(), rtol=1e-5, atol=0)


def test_dry_places_have_the_weight_of_each_threshold(num_threads):
    outputs = torch.tensor([-12.0, -14.0])[None, None, :, None, None].expand(1, 1, 2, 1, 200).clone().requires_grad_()
    given = (
        torch.zeros(1, 1, 1, 200),
        torch.ones(1, 1, 1, 200, dtype=torch.bool),
        [[1.0, 0.0], [0.0, 1.0]],
        [0.1, 1.0],
        [1.0, 3.0],
    )
    total = LinearCrossEntropy.apply(outputs, *given, compiled.load(SOURCE))
    total.backward()
    entropies = torch.log1p(torch.tensor([-12.0, -14.0]).exp()) * torch.tensor([1.0, 3.0])
    assert total.item() == pytest.approx(200 * entropies.sum().item(), rel=1e-5)
    slopes = torch.tensor([-12.0, -14.0]).sigmoid() * torch.tensor([1.0, 3.0])
    torch.testing.assert_close(outputs.grad[0, 0, :, 0], slopes[:, None].expand(2, 200), rtol=1e-5, atol=0)


def test_what_is_not_finite_in_a_dry_place_is_not_hidden(num_threads):
    outputs = torch.full((1, 1, 1, 1, 200), -20.0)
    outputs[..., 150] = torch.nan
    given = torch.zeros(1, 1, 1, 200), torch.ones(1, 1, 1, 200, dtype=torch.bool), [[1.0]], [0.1], [1.0]
    assert LinearCrossEntropy.apply(outputs, *given, compiled.load(SOURCE)).isnan()
