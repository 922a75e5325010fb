"""The main job on real radar: two services train, a third one is forecast and scored."""

import json
import os
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from nowcast.baselines import Extrapolation
from nowcast.forecast_file import read_forecast
from nowcast.netcdf import open_records

ROOT = Path(__file__).resolve().parent.parent
FEW = ("training.steps=4", "training.validate_every=4", "training.validation_cases=4", "training.batch_size=2", "data.crop=64",
       "model.hidden_channels=[8, 8]")  # fmt: skip


def nowcast(cache, *words):
    done = subprocess.run([sys.executable, "-m", "nowcast", *map(str, words)], capture_output=True, text=True,
                          env={**os.environ, "NOWCAST_CACHE": str(cache)}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    """The reference recipe, shortened, trained on MeteoSwiss and KNMI."""
    folder = tmp_path_factory.mktemp("run")
    data = [word for service in ("mch", "knmi") for word in ("--data", shared / "radar" / service)]
    settings = [word for setting in FEW for word in ("--set", setting)]
    nowcast(folder / "cache", "train", ROOT / "configs" / "radar.toml", *data, *settings, "--output", folder / "run")
    return folder / "run"


def test_a_network_trained_on_crops_forecasts_another_services_whole_grid(run, shared, tmp_path):
    path = shared / "radar" / "fmi" / "20160928.nc"
    nowcast(tmp_path, "predict", run, path, "--output", tmp_path / "f.nc")
    forecast, (record,) = read_forecast(tmp_path / "f.nc"), open_records([path])
    assert forecast.reference_times.tolist() == [record.times[-1].tolist()]
    fields, last = forecast.read(0), record.read([len(record) - 1])[0]
    assert fields.shape == (12, 1226, 760)
    assert np.isfinite(fields[:, np.isfinite(last)]).all()
    assert np.nanmin(fields) >= 0
    with netCDF4.Dataset(tmp_path / "f.nc") as file, netCDF4.Dataset(path) as source:
        assert np.array_equal(file["y"][:], source["y"][:])
        assert file["precip_intensity"].grid_mapping == "crs"


def test_a_forecast_is_the_right_way_up(shared, tmp_path):
    """Persistence of a record whose rows run north, in the file's own order of rows."""
    path = shared / "radar" / "dwd" / "yw_20170816.nc"
    nowcast(tmp_path, "predict", "persistence", path, "--output", tmp_path / "f.nc")
    with netCDF4.Dataset(tmp_path / "f.nc") as file, netCDF4.Dataset(path) as source:
        last = source["rainfall_rate"][-1].filled(np.nan)
        np.testing.assert_allclose(file["precip_intensity"][7].filled(np.nan), last, rtol=1e-6)
        assert file["y"][0] < file["y"][-1]


def test_scores_of_a_real_record_are_those_computed_by_hand(run, shared, tmp_path):
    path = shared / "radar" / "knmi" / "20100826.nc"
    words = ("--start", "2010-08-26T03:00", "--end", "2010-08-26T03:00", "--format", "json", "--output", tmp_path / "scores")
    rows = json.loads(nowcast(tmp_path, "evaluate", run, "--observations", path, *words))["scores"]
    got = {(r["forecaster"], r["lead_minutes"], r["threshold"]): r for r in rows if r["score"] == "csi"}
    (record,) = open_records([path])
    start = int(np.flatnonzero(record.times == np.datetime64("2010-08-26T03:00"))[0])
    past, observed = record.read(range(start - 3, start + 1)), record.read([start + 6])[0]
    last, moved = past[-1], Extrapolation().forecast(past[None], 6)[0, 5]
    known = np.isfinite(last) & np.isfinite(observed) & np.isfinite(moved)  # the network knows what any past frame saw
    for name, forecast in (("persistence", last), ("extrapolation", moved)):
        f, o = forecast[known] >= 1, observed[known] >= 1
        assert got[name, 30.0, 1.0]["value"] == pytest.approx((f & o).sum() / (f | o).sum(), abs=1e-12)
        assert got[name, 30.0, 1.0]["num_pairs"] == known.sum()
    assert got["run", 30.0, 1.0]["num_pairs"] == known.sum()
    report = (tmp_path / "scores" / "report.html").read_text()
    assert "http" not in report.replace("http-equiv", "")
    assert report.count("data:image/png;base64,") >= 2
