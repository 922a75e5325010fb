"""The baselines of a validation: the right ones under their right names, over the pixels that all know, found once."""

import numpy as np
import pytest
import torch
from makers import rain

from nowcast.config.schema import Data
from nowcast.dataset.batches import Batch
from nowcast.forecasters.baselines import Extrapolation
from nowcast.quantity import DIMENSIONLESS, RAIN_RATE
from nowcast.scores.pixels import csi, mae
from nowcast.training.baselines import Baselines


def batch(*, past=3, future=2, missing=0.0):
    """Two cases of rain that moves by (1, 2) cells a frame."""
    frames = np.stack([rain(frames=past + future, shape=(40, 48), missing=missing, seed=seed) for seed in (0, 1)])
    return Batch(torch.from_numpy(frames[:, :past]), torch.from_numpy(frames[:, past:]), ((0, 0, 0, 0), (0, 1, 0, 0)))


@pytest.mark.parametrize(
    ("coordinates", "quantity", "input_frames", "expected"),
    [
        ("grid", RAIN_RATE, 2, {"extrapolation", "persistence"}),
        ("grid", RAIN_RATE, 1, {"persistence"}),
        ("grid", DIMENSIONLESS, 2, {"persistence"}),
        ("lagrangian", RAIN_RATE, 2, {"extrapolation"}),
        ("lagrangian", DIMENSIONLESS, 2, {"extrapolation"}),
        ("lagrangian", RAIN_RATE, 1, {"persistence"}),  # a single frame has no motion
    ],
)
def test_baselines_have_the_name_of_what_they_are(coordinates, quantity, input_frames, expected):
    baselines = Baselines.suited_to(Data(coordinates=coordinates, input_frames=input_frames), quantity)
    assert baselines.thresholds == quantity.thresholds
    assert set(baselines.score(0, batch(past=input_frames))[1]) == expected


def test_baselines_are_scored_over_the_pixels_that_all_know():
    cases = batch(missing=0.02)
    known, totals = Baselines((1.0, 5.0), extrapolates=True).score(0, cases)
    past, observed = cases.past.numpy(), cases.future.numpy()
    forecasts = {"extrapolation": Extrapolation().forecast(past, 2), "persistence": np.stack([past[:, -1]] * 2, axis=1)}
    everywhere = ~np.isnan(observed + forecasts["extrapolation"] + forecasts["persistence"])
    assert 0.5 < everywhere.mean() < 1
    np.testing.assert_array_equal(known, everywhere)
    for name, forecast in forecasts.items():
        hit, event = (forecast >= 1) & (observed >= 1) & known, ((forecast >= 1) | (observed >= 1)) & known
        error = np.abs(forecast - observed)[known].mean(dtype=np.float64)
        assert csi(totals[name].pooled())[0, 0] == pytest.approx(hit.sum() / event.sum())
        assert mae(totals[name].pooled())[0] == pytest.approx(error)
    assert mae(totals["extrapolation"].pooled())[0] < 0.5 * mae(totals["persistence"].pooled())[0], "it finds the motion"


@pytest.mark.parametrize(("most_bytes", "num_found"), [(1 << 28, 2), (960 * 2, 2), (960 * 2 - 1, 4), (0, 6)])
def test_the_motion_of_a_batch_is_found_once(monkeypatch, most_bytes, num_found):
    """960 bytes for a batch: 2 cases x 2 lead times x 40 x 48 pixels, in bits; those that do not fit are found again."""
    find, found = Extrapolation.forecast, []
    monkeypatch.setattr(Extrapolation, "forecast", lambda self, *given: found.append(1) or find(self, *given))
    baselines, cases = Baselines((1.0,), extrapolates=True, most_bytes=most_bytes), batch(missing=0.02)
    scored = [[baselines.score(k, cases) for k in (0, 1)] for _ in range(3)]
    assert len(found) == num_found
    for first, later in zip(scored[0], scored[2], strict=True):
        np.testing.assert_array_equal(first[0], later[0])
        for name, totals in first[1].items():
            np.testing.assert_array_equal(mae(totals), mae(later[1][name]))
