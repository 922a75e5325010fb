"""The steps of the cascade in C (scales.c) give the values of torch, in double precision, on any number of threads."""

import pytest
import torch

from nowcast.models.probabilistic import scales
from nowcast.runtime import compiled

GRIDS = [(64, 192), (16, 48), (128, 64), (8, 8)]


@pytest.fixture(autouse=True)
def _compiled():
    if compiled.load(scales.SOURCE) is None:
        pytest.skip("no C compiler")


def fields(shape, seed=0):
    """Values of either sign, and shares of which some are 0: (case, time, y, x) each."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 5, *shape, generator=generator)
    share = (4 * torch.rand(2, 5, *shape, generator=generator)).floor() / 4
    share[..., : shape[0] // 2, : shape[1] // 3] = 0
    return values, share


def compare(compute, *given):
    """Compare what `compute` finds in C with what torch finds in double precision, also where memory is not contiguous."""
    turned = [field.transpose(0, 1).contiguous().transpose(0, 1) for field in given]
    mixed = [turned[0], *given[1:]], [*given[:-1], turned[-1]]
    expected, *found = (compute(*each) for each in ([field.double() for field in given], given, turned, *mixed))
    for one in found:
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-6, check_dtype=False)


@pytest.mark.usefixtures("each_number_of_threads")
@pytest.mark.parametrize("shape", GRIDS)
def test_halves_and_their_details_are_those_of_torch(shape):
    values, share = fields(shape)
    compare(scales.halve, values, share)
    compare(scales.detail, values, share, scales.halve(values, share)[0])


@pytest.mark.parametrize("shape", [(7, 9), (5, 4), (4, 5), (3, 2)])
def test_halves_of_an_odd_number_of_cells_are_those_of_torch(shape):
    compare(scales.halve, *fields(shape))


@pytest.mark.usefixtures("each_number_of_threads")
@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_means_of_blocks_are_those_of_torch(shape, factor):
    values, _ = fields(shape)
    compare(lambda field: scales.means(field, factor), values)
    compare(lambda field: scales.shares_reached(field, 0.25, factor), values)
    for reach in (0, 1, 2, 9):
        compare(lambda field, reach=reach: scales.mean_squares(field, factor, reach=reach), values)


@pytest.mark.usefixtures("each_number_of_threads")
@pytest.mark.parametrize(("shape", "block"), [((64, 192), 64), ((64, 192), 32), ((16, 48), 16), ((16, 48), 4), ((3, 5), 1)])
@pytest.mark.parametrize("lag", [1, 2, 4])
def test_products_of_frames_are_those_of_torch(shape, block, lag):
    compare(lambda frames, known: scales.lagged_means(frames, known, block, lag), *fields(shape))


@pytest.mark.usefixtures("each_number_of_threads")
def test_an_autoregression_is_that_of_torch():
    weights = fields((16, 48), seed=1)
    compare(lambda a, b, newest, before: scales.combine((a, b), newest, before), *weights, *fields((16, 48)))


def test_a_value_that_is_reached_exactly_counts():
    field = torch.tensor([[0.25, 0.2499], [-1.0, 0.0]])[None, None]
    assert float(scales.shares_reached(field, 0.25, 2)) == float(scales.shares_reached(field.double(), 0.25, 2)) == 0.25


def test_threads_and_place_change_no_bit():
    values, share = fields((128, 192))
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        band, whole = scales.detail(values, share, scales.halve(values, share)[0])
        squares = scales.mean_squares(values, 8, reach=2)
        found.append([band, whole, squares, scales.lagged_means(values, share, 64, 1)])
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
    part = scales.lagged_means(values[..., 64:, 64:], share[..., 64:, 64:], 64, 1)
    assert torch.equal(part, found[0][3][..., 1:, 1:])


def test_what_is_nan_stays_nan():
    values, share = fields((16, 48))
    values[..., 5, 20] = share[..., 5, 20] = torch.nan
    mean, coarser = scales.halve(values, share)
    assert mean[..., 2, 10].isnan().all()
    assert coarser[..., 2, 10].isnan().all()
    band, whole = scales.detail(values, share, mean)
    assert band[..., 5, 20].isnan().all()
    assert whole[..., 5, 20].isnan().all()
    assert scales.mean_squares(values, 8, reach=2)[..., 0, 2].isnan().all()
    assert scales.lagged_means(values, share, 16, 1)[..., 0, 1].isnan().all()


def test_gradients_are_left_to_torch():
    values, share = fields((8, 8))
    scales.means(values.requires_grad_(), 8).sum().backward()
    torch.testing.assert_close(values.grad, torch.full_like(values, 1 / 64))
    scales.halve(values, share)[0].sum().backward()
    assert values.grad[share > 0].abs().sum() > 0
    weight = torch.ones(8, 8, requires_grad=True)
    scales.combine((weight, weight.detach()), values[0, 0].detach(), share[0, 0]).sum().backward()
    assert torch.equal(weight.grad, values[0, 0])
