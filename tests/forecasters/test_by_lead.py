"""Probabilities lead by lead are those of all leads at once, on the whole grid and in tiles."""

import logging

import numpy as np
import pytest
import torch
from makers import rain
from makers.models import untrained_network

from nowcast.errors import UsageError
from nowcast.forecasters import network as forecasters_network

LEADS, RATES = 4, (0.1, 0.5, 2.0, 10.0)


def network(name, **options):
    """A network with random weights, so that its probabilities differ from cell to cell."""
    made, generator = untrained_network(name, **options), torch.Generator().manual_seed(2)
    with torch.no_grad():
        made.model.head.weight.normal_(std=0.3, generator=generator)
    return made


def past(shape=(40, 44)):
    frames = rain(frames=4, shape=shape, missing=0.02, seed=3)
    frames[:, 5:12, 6:14] = np.nan
    return frames


@pytest.mark.parametrize(
    ("name", "coordinates"), [("probabilistic", "grid"), ("probabilistic", "lagrangian"), ("guided", "grid")]
)
def test_they_are_those_of_all_lead_times(name, coordinates):
    made, frames = network(name, coordinates=coordinates), past()
    whole = made.forecast_and_exceedance(frames[None], LEADS, RATES)[1][0]
    found = list(made.exceedance_by_lead(frames, LEADS, RATES))
    assert np.isnan(whole).any()
    assert np.isfinite(whole).any()
    assert len(found) == LEADS
    np.testing.assert_allclose(np.stack(found), whole, atol=1e-6)
    dry = np.where(np.isnan(frames), np.nan, 0).astype(np.float32)
    for chances in made.exceedance_by_lead(dry, 2, RATES):
        assert np.nanmax(chances) == 0
    assert torch.is_grad_enabled()
    with pytest.raises(UsageError, match="past frames"):
        made.exceedance_by_lead(frames[:1], LEADS, RATES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["probabilistic", "guided"])
def test_tiles_advance_together(monkeypatch, caplog, name):
    frames = past((150, 160))
    whole = np.stack(list(network(name).exceedance_by_lead(frames, LEADS, RATES)))
    monkeypatch.setattr(forecasters_network, "SMALL_GRID", 0)
    monkeypatch.setattr(forecasters_network, "available_bytes", lambda device: 3e6)
    with caplog.at_level(logging.INFO):
        tiled = np.stack(list(network(name).exceedance_by_lead(frames, LEADS, RATES)))
    assert "tiles" in caplog.text
    np.testing.assert_array_equal(np.isnan(tiled), np.isnan(whole))
    assert np.nanmean(np.abs(tiled - whole)) < 0.003
