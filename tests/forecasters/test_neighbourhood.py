"""The share of events around a cell: equal to counting by hand, never more than is known, wider with each lead."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import rain

from nowcast.forecasters.baselines import Extrapolation
from nowcast.forecasters.neighbourhood import GROWTH, neighbourhood_exceedance

NAN = np.nan
forecasts = st.builds(
    lambda shape, missing, seed: np.random.default_rng(seed).choice(
        np.float32([0, 0.5, 1, 5, NAN]), shape, p=[(0.9 - missing) / 2, (0.9 - missing) / 2, 0.05, 0.05, missing]
    ),
    st.tuples(st.integers(1, 4), st.integers(1, 30), st.integers(1, 30)),
    st.sampled_from([0.0, 0.1, 0.6]),
    st.integers(0, 2**32),
)


def by_hand(field, threshold, radius):
    """Cell by cell, in float64."""
    rows, columns = np.indices(field.shape)
    out = np.full(field.shape, NAN)
    for y, x in np.argwhere(np.isfinite(field)):
        around = ((rows - y) ** 2 + (columns - x) ** 2 <= radius**2) & np.isfinite(field)
        out[y, x] = (field[around] >= threshold).mean()
    return out


@settings(max_examples=60)
@given(forecasts, st.sampled_from([0.0, 0.4, 1.0, 1.5, 2.5, 7.3]))
def test_it_is_the_share_counted_by_hand(forecast, growth):
    found = neighbourhood_exceedance(forecast, (0.5, 5.0), growth=growth)
    assert (found.dtype, found.shape) == (np.float32, (len(forecast), 2, *forecast.shape[1:]))
    for lead, field in enumerate(forecast):
        for column, threshold in enumerate((0.5, 5.0)):
            expected = by_hand(field, threshold, (lead + 1) * growth)
            np.testing.assert_allclose(found[lead, column], expected, rtol=1e-6, atol=0)


@settings(max_examples=60)
@given(forecasts)
def test_it_is_a_probability_where_the_forecast_is_known_and_falls_with_the_threshold(forecast):
    found = neighbourhood_exceedance(forecast, (0.1, 1.0, 100.0))
    known = np.isfinite(forecast)
    assert (np.isfinite(found) == known[:, None]).all()
    low, high, never = found.swapaxes(0, 1)
    assert ((high <= low) | ~known).all()
    assert ((low >= 0) & (low <= 1) | ~known).all()
    assert (never[known] == 0).all()


def test_a_single_shower_by_hand():
    forecast = np.zeros((2, 9, 9), np.float32)
    forecast[:, 4, 4] = 3
    forecast[:, 4, 5] = NAN
    near, far = neighbourhood_exceedance(forecast, (1.0,), growth=1.0)[:, 0]
    assert near[4, 4] == near[3, 4] * 5 / 4 == np.float32(1 / 4)  # five cells, of which one is missing beside the shower
    assert near[2, 4] == 0
    assert far[2, 4] == np.float32(1 / 13)
    assert far[0, 0] == 0
    assert np.isnan(far[4, 5])


def test_the_edge_of_the_grid_is_no_dry_area():
    wet = np.full((6, 5, 7), 2.0, np.float32)
    np.testing.assert_array_equal(neighbourhood_exceedance(wet, (1.0,), growth=3.0), 1)


def test_dry_places_stay_exactly_dry_in_large_discs():
    forecast = np.zeros((1, 200, 200), np.float32)
    forecast[0, :20] = 10
    found = neighbourhood_exceedance(forecast, (1.0,), growth=40.0)[0, 0]
    assert (found[60:] == 0).all()
    assert found[59, 100] > 0


def test_extrapolation_takes_probabilities_from_its_neighbourhood_and_none_where_that_is_missing():
    past = np.stack([rain(frames=4, shape=(40, 44), motion=(2, 3), missing=0.02, seed=seed) for seed in (0, 1)])
    method = Extrapolation()
    forecast, found = method.forecast_and_exceedance(past, 5, (1.0, 5.0))
    assert (found.dtype, found.shape) == (np.float32, (2, 5, 2, 40, 44))
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(np.isnan(forecast)[:, :, None], found.shape))
    np.testing.assert_array_equal(found[1], neighbourhood_exceedance(forecast[1], (1.0, 5.0), growth=GROWTH))
    doubt = [np.nanmean(found[:, lead] * (1 - found[:, lead])) for lead in range(5)]
    assert doubt == sorted(doubt)


@pytest.mark.slow
def test_it_scores_better_than_certainty_on_a_real_record(shared):
    from nowcast.netcdf.opening import open_records

    (record,) = open_records([shared / "radar" / "bom" / "melbourne_20180616.nc"])
    frames = record.read(range(4 + 12))
    past, observed = frames[None, :4], frames[4:]
    method = Extrapolation()
    (forecast,), (found,) = method.forecast_and_exceedance(past, 12, (0.5, 1.0))
    for column, threshold in enumerate((0.5, 1.0)):
        known = np.isfinite(observed) & np.isfinite(forecast)
        event = observed[known] >= threshold
        brier = ((found[:, column][known] - event) ** 2).mean()
        assert brier < 0.8 * ((forecast[known] >= threshold) != event).mean()
