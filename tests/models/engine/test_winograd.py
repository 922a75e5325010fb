"""Winograd convolutions and their gradients equal those of torch in float64, to rounding."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nowcast.models.convlstm import CellOptions, ConvLSTM
from nowcast.models.engine import winograd
from nowcast.runtime import compiled

SIZES = {"cases": st.integers(1, 3), "y": st.integers(1, 14), "x": st.integers(1, 14), "seed": st.integers(0, 99)}
CHANNELS = {"one": st.integers(1, 40), "two": st.integers(1, 20), "out": st.integers(1, 70)}


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def images(cases, channels, y, x):
    return torch.randn(cases, y, x, channels).movedim(-1, 1)


def exact(values, weight):
    return F.conv2d(values.double(), weight.double(), padding=weight.shape[-1] // 2)


def assert_near(found, expected, terms, *factors):
    """Sums of so many products of two factors; a tile rounds as its largest product does."""
    assert found.shape == expected.shape
    largest = math.prod(float(factor.abs().max()) for factor in factors)
    assert float((found - expected).detach().abs().max()) <= 5e-6 * largest * terms**0.5


@pytest.mark.parametrize("kernel", [3, 5])
def test_the_matrices_convolve(kernel):
    output, weight, values = winograd.matrices(kernel)
    g, d = np.random.default_rng(0).normal(size=kernel), np.random.default_rng(1).normal(size=len(values))
    np.testing.assert_allclose(output @ ((weight @ g) * (values @ d)), np.correlate(d, g), rtol=1e-12)


@pytest.mark.parametrize("kernel", [3, 5])
@settings(max_examples=15)
@given(**SIZES, **CHANNELS)
def test_forward_equals_torchs(kernel, cases, y, x, one, two, out, seed):
    torch.manual_seed(seed)
    first, second, weight = images(cases, one, y, x), images(cases, two, y, x), torch.randn(out, one + two, kernel, kernel)
    convolution = winograd.Convolution(weight)
    assert_near(
        convolution(first, second),
        exact(torch.cat([first, second], dim=1), weight),
        weight[0].numel(),
        torch.cat([first, second], dim=1),
        weight,
    )
    assert_near(convolution(first), exact(first, weight[:, :one]), one * kernel**2, first, weight)


@pytest.mark.parametrize("kernel", [3, 5])
@settings(max_examples=15)
@given(**SIZES, channels=CHANNELS["one"], out=CHANNELS["out"])
def test_weight_gradient_equals_torchs(kernel, cases, y, x, channels, out, seed):
    torch.manual_seed(seed)
    values, d_out = images(cases, channels, y, x), images(cases, out, y, x)
    weight = torch.randn(out, channels, kernel, kernel, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad((exact(values, weight) * d_out).sum(), weight)
    assert_near(winograd.weight_gradient(d_out, values, weight), expected, cases * y * x, values, d_out)


@pytest.mark.parametrize("kernel", [3, 5])
def test_the_number_of_threads_changes_no_bit(kernel, threads):
    torch.manual_seed(0)
    values, convolution, found = images(2, 20, 30, 31), winograd.Convolution(torch.randn(40, 20, kernel, kernel)), []
    for number in (1, 2, 5):
        threads(number)
        found.append(convolution(values))
    assert all(torch.equal(one, found[0]) for one in found)


def test_few_channels_small_grids_other_kernels_and_dtypes_are_torchs():
    taken, grid = torch.randn(128, 32, 3, 3), (32, 32)
    assert winograd.takes(taken, grid)
    assert not winograd.takes(taken, (31, 32))
    assert winograd.takes(torch.randn(128, 32, 5, 5), (16, 16))
    others = (taken[:, :31], taken[:31], taken[..., :1, :1], torch.randn(128, 32, 7, 7), taken.double(), taken.to("meta"))
    assert not any(winograd.takes(weight, grid) for weight in others)


def test_without_a_compiler_they_are_torchs(monkeypatch):
    monkeypatch.setattr(compiled, "load", lambda *_, **__: None)
    winograd.library.cache_clear()
    assert not winograd.takes(torch.randn(128, 32, 3, 3), (32, 32))
    winograd.library.cache_clear()


def outputs_and_gradients(net, frames, states):
    hidden, after = net(frames, states)
    outputs = [*hidden, *(part for state in after for part in state)]
    loss = sum((part * torch.linspace(-1, 1, part.numel()).view(part.shape)).sum() for part in outputs)
    inputs = [*net.parameters(), frames, *(part for state in states or [] for part in state)]
    return [*outputs, *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("given_states", [False, True])
@pytest.mark.parametrize("kernels", [(3, 3), (5, 5), (3, 5)])
@pytest.mark.parametrize("in_channels", [1, 20])
def test_the_engine_with_them_equals_the_cell_step_by_step(in_channels, kernels, given_states, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(winograd, "MANY_CHANNELS", 16)
    monkeypatch.setattr(winograd, "MANY_PLACES", {3: 1, 5: 1})
    net = ConvLSTM(in_channels, (16, 20), kernels, input_kernel_sizes=(3, 5), options=CellOptions(peepholes=True))
    frames, states = torch.randn(2, 4, in_channels, 7, 9, requires_grad=True), None
    if given_states:
        states = [[torch.randn(2, h, 7, 9, requires_grad=True) for _ in range(2)] for h in (16, 20)]
    assert all(winograd.takes(cell.state_weight, (7, 9)) for cell in net.cells)
    fast = outputs_and_gradients(net, frames, states)
    net.use_engine = False
    for found, expected in zip(fast, outputs_and_gradients(net, frames, states), strict=True):
        assert found.shape == expected.shape
        assert float((found - expected).detach().abs().max()) <= 1e-5 * max(float(expected.detach().abs().max()), 1)
