"""Interpolation in C (upsampling.c) gives the values and gradients of torch, on any number of threads."""

import pytest
import torch
import torch.nn.functional as F

from nowcast.models.probabilistic.upsampling import SOURCE, spread, upsample
from nowcast.runtime import compiled


@pytest.fixture(autouse=True)
def _compiled():
    if compiled.load(SOURCE) is None:
        pytest.skip("no C compiler")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.usefixtures("each_number_of_threads")
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("grid", [(3, 5), (1, 1), (1, 4), (6, 1)])
def test_finer_fields_are_those_of_torch(factor, grid):
    field = random(2, 3, *grid)
    expected = field.double() if factor == 1 else F.interpolate(field.double(), scale_factor=factor, mode="bilinear")
    torch.testing.assert_close(upsample(field, factor), expected.float(), rtol=1e-6, atol=1e-6)
    added = random(*expected.shape, seed=1)
    torch.testing.assert_close(upsample(field, factor, added=added), (expected + added).float(), rtol=1e-6, atol=1e-6)
    turned = field.transpose(0, 1)  # not contiguous
    torch.testing.assert_close(upsample(turned, factor), expected.float().transpose(0, 1), rtol=1e-6, atol=1e-6)


def spread_with_gradient(parameters, location, factor, grid):
    parameters = parameters.detach().requires_grad_()
    outputs = spread(parameters, location, factor, grid)
    weights = random(*outputs.shape, seed=2).to(outputs.dtype)
    (outputs * weights).sum().backward()
    return outputs.detach(), parameters.grad


@pytest.mark.usefixtures("each_number_of_threads")
@pytest.mark.parametrize(("factor", "cut"), [(2, (0, 0)), (2, (1, 3)), (3, (2, 1)), (4, (3, 0)), (8, (7, 9))])
@pytest.mark.parametrize("coarse", [(4, 5), (2, 2), (1, 2)])
def test_spread_parameters_and_their_gradient_are_those_of_torch(factor, cut, coarse):
    parameters = random(2, 3, 6, *coarse)
    location = random(2, 3, 1, *(factor * size for size in coarse), seed=1)
    grid = tuple(max(factor * size - less, 1) for size, less in zip(coarse, cut, strict=True))
    found = spread_with_gradient(parameters, location, factor, grid)
    expected = spread_with_gradient(parameters.double(), location.double(), factor, grid)
    assert found[0].shape == (2, 3, 6, *grid)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-5, atol=1e-5)


def test_threads_change_no_bit():
    parameters, location = random(2, 12, 6, 5, 7), random(2, 12, 1, 40, 56, seed=1)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(spread_with_gradient(parameters, location, 8, (37, 50)))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_gradients_pass_through_a_finer_field():
    field = random(1, 1, 2, 3).requires_grad_()
    upsample(field, 2).sum().backward()
    torch.testing.assert_close(field.grad, torch.full_like(field, 4.0))
