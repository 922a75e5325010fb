"""Transforms: encode and decode are inverses, dry is 0, and missing cells leave no trace but the validity channel."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nowcast.config.schema import NamedSection
from nowcast.models.transform import TRANSFORMS, make_transform, network_input, split_missing


@pytest.fixture(params=TRANSFORMS)
def transform(request):
    return make_transform(NamedSection(name=request.param))


def test_decode_is_the_inverse_of_encode(transform):
    rain = torch.tensor([0.0, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 75.0])
    torch.testing.assert_close(transform.decode(transform.encode(rain)), rain, rtol=1e-4, atol=1e-5)


def test_dry_is_zero_both_ways(transform):
    assert transform.encode(torch.zeros(1)).item() == 0
    assert transform.decode(torch.zeros(1)).item() == 0
    assert transform.decode(torch.full((1,), -0.3)).item() == 0


@given(rain=st.lists(st.floats(0, 100, width=32), min_size=2, max_size=20))
def test_encode_keeps_the_order_of_rates(rain):
    rain = torch.tensor(sorted(rain))
    for name in TRANSFORMS:
        values = make_transform(NamedSection(name=name)).encode(rain)
        assert (values.diff() >= -1e-6).all()  # a vector's rest is computed by other code, which rounds otherwise


@pytest.mark.parametrize("name", ["log", "dbz"])
def test_forecasts_are_cut_to_the_ceiling(name):
    transform = make_transform(NamedSection(name=name))
    assert transform.decode(torch.tensor([5.0])) == transform.decode(torch.tensor([1.0]))


def test_log_is_one_at_its_ceiling():
    assert make_transform(NamedSection(name="log", ceiling=80.0)).encode(torch.tensor([80.0])).item() == pytest.approx(1)


def test_dbz_is_marshall_and_palmers_reflectivity():
    transform = make_transform(NamedSection(name="dbz", floor=0.0, ceiling=100.0))
    # 200 · 10^1.6 mm⁶ m⁻³ is 39.01 dBZ
    assert 100 * transform.encode(torch.tensor([10.0])).item() == pytest.approx(39.0103, abs=1e-3)


def test_dbz_lies_between_its_floor_and_ceiling_by_the_constants_given():
    transform = make_transform(NamedSection(name="dbz", floor=10.0, ceiling=50.0, zr_a=300.0, zr_b=1.4))
    rates = torch.tensor([10.0, 1.0, 0.05])  # 38.77, 24.77 and 6.56 dBZ, the last below the floor
    assert transform.encode(rates).tolist() == pytest.approx([0.719280, 0.369280, 0.0], abs=1e-5)
    decoded = transform.decode(torch.tensor([0.719280, 0.369280, 0.0, 2.0]))
    assert decoded.tolist() == pytest.approx([10.0, 1.0, 0.0, (1e5 / 300) ** (1 / 1.4)], rel=1e-4)


def test_missing_is_zero_with_validity_zero():
    rain = torch.tensor([[[[1.0, torch.nan], [torch.inf, 0.0]]]])
    filled, validity = split_missing(rain)
    assert filled.tolist() == [[[[1.0, 0.0], [0.0, 0.0]]]]
    assert validity.tolist() == [[[[1.0, 0.0], [0.0, 1.0]]]]


def test_network_input_holds_values_and_validity(transform):
    rain = torch.rand(2, 3, 5, 7) * 10
    rain[0, 1, 2, 3] = torch.nan
    values = network_input(rain, transform)
    assert values.shape == (2, 3, 2, 5, 7)
    assert torch.isfinite(values).all()
    assert values[0, 1, :, 2, 3].tolist() == [0, 0]
    assert values[:, :, 1].sum() == 2 * 3 * 5 * 7 - 1
