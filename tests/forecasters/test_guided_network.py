"""Forecasts of a network that corrects guidance: in tiles as whole, missing where guidance is, in files and scores."""

import csv
import io
import logging

import numpy as np
import pytest
import torch
import xarray
from makers import command, rain, write_record
from makers.guided import guided_experiment
from makers.models import untrained_network

from nowcast.commands.train import train_run
from nowcast.errors import UsageError
from nowcast.forecasters import network as forecasters_network
from nowcast.forecasters.export import export
from nowcast.models.guided.guidance import MISSING, RATES, guidance

LEADS = 3


def network(**keys):
    """A network with random weights and cuts."""
    made, generator = untrained_network("guided", **keys), torch.Generator().manual_seed(2)
    with torch.no_grad():
        made.model.head.weight.normal_(std=0.3, generator=generator)
        made.model.cuts.normal_(generator=generator)
    return made


def past(shape=(40, 44), cases=2):
    return np.stack([rain(frames=2, shape=shape, missing=0.02, seed=seed) for seed in range(cases)])


def test_a_forecast_is_missing_where_guidance_is():
    frames = past()
    frames[:, :, 10:20, 10:20] = np.nan
    field, probabilities = network().forecast_and_exceedance(frames, LEADS, (0.5, 3.0, 50.0))
    assert field.shape == (2, LEADS, 40, 44)
    assert probabilities.shape == (2, LEADS, 3, 40, 44)
    never_seen = np.isnan(frames).all(axis=1)
    for case in range(2):
        missing = (guidance(frames[case], LEADS)[:, 0] == MISSING) | never_seen[case]
        np.testing.assert_array_equal(np.isnan(field[case]), missing)
        assert (np.isnan(probabilities[case]) == missing[:, None]).all()
    assert np.isnan(field).sum() > 100
    assert np.nanmin(field) >= 0
    assert np.nanmin(probabilities) >= 0
    assert np.nanmax(probabilities) <= 1
    assert (np.nan_to_num(np.diff(probabilities, axis=2)) <= 1e-6).all()


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["cuts", "areas"])
def test_tiles_give_what_the_whole_grid_gives(monkeypatch, caplog, rule):
    frames = past((150, 160), cases=2)
    whole = network(rule=rule).forecast_and_exceedance(frames, LEADS, (0.5, 2.0))
    monkeypatch.setattr(forecasters_network, "SMALL_GRID", 0)
    monkeypatch.setattr(forecasters_network, "available_bytes", lambda device: 6e6)
    with caplog.at_level(logging.INFO, logger="nowcast"):
        tiled = network(rule=rule).forecast_and_exceedance(frames, LEADS, (0.5, 2.0))
    assert "150 × 160 cells do not fit in memory at once: forecast in " in caplog.text
    assert "exact with" not in caplog.text
    for one, other in zip(whole, tiled, strict=True):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
        apart = np.abs(one - other) > 1e-3 * (1 + one)
        assert np.nanmean(apart) < 1e-4, "but for a cell whose odds are those at which rain begins"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    record = write_record(folder / "rain.nc", rain(frames=40, shape=(24, 28), missing=0.02))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOWCAST_CACHE", str(folder / "cache"))
        experiment = guided_experiment([record], steps=2)
        train_run(experiment, folder / "run", resume=False, overwrite=False, device="cpu", draw=lambda _: None)
    return folder


@pytest.mark.slow
def test_a_forecast_file_holds_probabilities(run, tmp_path):
    words = ("predict", run / "run", run / "rain.nc", "--probabilities", "--output", tmp_path / "f.nc")
    code, _, err = command(*words)
    assert code == 0, err
    with xarray.open_dataset(tmp_path / "f.nc") as file:
        (name,) = [name for name in file if "probability" in name]
        probabilities, field = file[name].values, file["precip_intensity"].values
        thresholds = next(file[axis].values for axis in file[name].dims if "threshold" in axis)
        assert "Shi et al. (2015)" in file.attrs["references"]
        assert "Seed (2003)" in file.attrs["references"]
    assert thresholds.tolist() == pytest.approx(list(RATES))
    assert field.shape == (LEADS, 24, 28)
    assert probabilities.size == field.size * len(RATES)
    assert np.isfinite(field).mean() > 0.5
    assert 0 <= np.nanmin(probabilities) <= np.nanmax(probabilities) <= 1


@pytest.mark.slow
def test_it_is_scored_beside_the_baselines(run, tmp_path, undrawn):
    code, out, err = command("evaluate", run / "run", "--observations", run / "rain.nc", "--format", "csv")
    assert code == 0, err
    rows = [row for row in csv.DictReader(io.StringIO(out)) if row["forecaster"] == "run" and not row["against"]]
    values = {
        score: [float(row["value"]) for row in rows if row["score"] == score and row["value"]] for score in ("csi", "brier")
    }
    assert values["csi"]
    assert values["brier"]
    assert all(0 <= value <= 1 for of_score in values.values() for value in of_score)


def test_it_is_exported_for_one_grid(tmp_path):
    with pytest.raises(UsageError, match=r"guided needs the motion of the rain, and is exported for one grid\.\nGive its rows"):
        export(network(), tmp_path / "network.pt2")
