"""The main job on real radar: two services train, a third one is forecast and scored."""

import csv
import json

import netCDF4
import numpy as np
import pytest
import xarray as xr
from makers import ROOT, command, rain, tiny_run, write_record

from nowcast.forecasters.baselines import BASELINES, Extrapolation, available
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.opening import open_records

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cache")]

FEW = ("training.steps=4", "training.validate_every=4", "training.validation_cases=4", "training.batch_size=2", "data.crop=64",
       "model.hidden_channels=[8, 8]")  # fmt: skip


def nowcast(*words):
    """What the command prints."""
    code, out, err = command(*words)
    assert code == 0, err
    return out


def part(path, folder, **window):
    """A window of a record, as it is stored, for what would take a minute on all its cells."""
    with xr.open_dataset(path, mask_and_scale=False, decode_times=False) as record:
        record.isel(**window).to_netcdf(folder / path.name)
    return folder / path.name


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    """The reference recipe, shortened, trained on MeteoSwiss and KNMI."""
    folder = tmp_path_factory.mktemp("run")
    data = [word for service in ("mch", "knmi") for word in ("--data", shared / "radar" / service)]
    settings = [word for setting in FEW for word in ("--set", setting)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOWCAST_CACHE", str(folder / "cache"))
        nowcast("train", ROOT / "configs" / "radar.toml", *data, *settings, "--output", folder / "run")
    return folder / "run"


def test_a_network_trained_on_crops_forecasts_another_services_whole_grid(run, shared, tmp_path):
    path = shared / "radar" / "fmi" / "20160928.nc"
    nowcast("predict", run, path, "--output", tmp_path / "f.nc")
    forecast, (record,) = read_forecast(tmp_path / "f.nc"), open_records([path])
    assert forecast.reference_times.tolist() == [record.times[-1].tolist()]
    fields, last = forecast.read(0), record.read([len(record) - 1])[0]
    assert fields.shape == (12, 1226, 760)
    extrapolation = BASELINES["extrapolation"]().forecast(record.read(range(len(record) - 4, len(record)))[None], 12)[0]
    np.testing.assert_array_equal(np.isfinite(fields), np.isfinite(extrapolation))
    assert np.isfinite(fields[0, np.isfinite(last)]).mean() > 0.98
    assert np.nanmin(fields) >= 0
    with netCDF4.Dataset(tmp_path / "f.nc") as file, netCDF4.Dataset(path) as source:
        assert np.array_equal(file["y"][:], source["y"][:])
        assert file["precip_intensity"].grid_mapping == "crs"


def test_a_forecast_is_the_right_way_up(shared, tmp_path):
    """Persistence of a record whose rows run north, in the file's own order of rows."""
    path = shared / "radar" / "dwd" / "yw_20170816.nc"
    nowcast("predict", "persistence", path, "--output", tmp_path / "f.nc")
    with netCDF4.Dataset(tmp_path / "f.nc") as file, netCDF4.Dataset(path) as source:
        last = source["rainfall_rate"][-1].filled(np.nan)
        np.testing.assert_allclose(file["precip_intensity"][7].filled(np.nan), last, rtol=1e-6)
        assert file["y"][0] < file["y"][-1]


def known_to_all(past, num_leads):
    """Where every baseline that is scored beside a forecaster has a value at the last lead."""
    forecasts = [BASELINES[name]().forecast(past[None], num_leads)[0, -1] for name in available()]
    return np.isfinite(forecasts).all(axis=0)


def test_scores_of_a_real_record_are_those_computed_by_hand(run, shared, tmp_path):
    path = part(shared / "radar" / "knmi" / "20100826.nc", tmp_path, y=slice(250, 550), x=slice(100, 420))
    words = ("--start", "2010-08-26T03:00", "--end", "2010-08-26T03:00", "--leads", "6", "--format", "json")
    rows = json.loads(nowcast("evaluate", run, "--observations", path, *words))["scores"]
    got = {(r["forecaster"], r["lead_minutes"], r["threshold"]): r for r in rows if r["score"] == "csi" and not r["against"]}
    (record,) = open_records([path])
    start = int(np.flatnonzero(record.times == np.datetime64("2010-08-26T03:00"))[0])
    past, observed = record.read(range(start - 3, start + 1)), record.read([start + 6])[0]
    last, moved = past[-1], Extrapolation().forecast(past[None], 6)[0, 5]
    known = np.isfinite(observed) & known_to_all(past, 6)  # the network knows what any past frame saw
    for name, forecast in (("persistence", last), ("extrapolation", moved)):
        f, o = forecast[known] >= 1, observed[known] >= 1
        assert (f & o).sum() > 1000
        assert got[name, 30.0, 1.0]["value"] == pytest.approx((f & o).sum() / (f | o).sum(), abs=1e-12)
        assert got[name, 30.0, 1.0]["num_pairs"] == known.sum()
    assert got["run", 30.0, 1.0]["num_pairs"] == known.sum()


def test_a_forecast_file_scores_as_the_network_that_made_it_whichever_way_rows_run(shared, tmp_path):
    """On a record whose rows run north; persistence is scored from the stored rows as they are."""
    path = part(shared / "radar" / "dwd" / "yw_20170816.nc", tmp_path, y=slice(100, 360), x=slice(260, 580))
    run = tiny_run(tmp_path / "run", [write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28)))])
    nowcast("predict", run, path, "--reference-time", "2017-08-16T01:20", "--output", tmp_path / "f.nc")
    told = json.loads(nowcast("evaluate", tmp_path / "f.nc", run, "--observations", path, "--format", "json"))
    assert (told["num_cases"], told["lead_minutes"]) == (1, [5, 10, 15])
    got = {(row["forecaster"], row["lead_minutes"], row["threshold"], row["scale_km"], row["score"], row["against"]): row
           for row in told["scores"]}  # fmt: skip
    for key, row in got.items():
        if key[0] == "f" and key[5] != "run":  # not the difference between the two
            assert row["value"] == pytest.approx(got["run", *key[1:]]["value"], abs=1e-9)
    with netCDF4.Dataset(path) as file:
        stored = file["rainfall_rate"][:].filled(np.nan)
    last, observed = stored[5], stored[8]  # the baselines find the motion with north at the top
    known = np.isfinite(observed) & known_to_all(stored[2:6, ::-1], 3)[::-1]
    f, o = last[known] >= 1, observed[known] >= 1
    assert (f & o).sum() > 1000
    csi = got["persistence", 15.0, 1.0, None, "csi", None]
    assert (csi["num_pairs"], csi["value"]) == (known.sum(), pytest.approx((f & o).sum() / (f | o).sum(), abs=1e-12))


def test_the_scores_of_a_folder_agree_with_what_is_printed(shared, tmp_path):
    path = shared / "radar" / "smhi" / "gothenburg_20150827.nc"
    where = ("--observations", path, "--every", "60", "--start", "2015-08-27T05:00", "--leads", "6")
    printed = nowcast("evaluate", "persistence", *where, "--output", tmp_path / "scores", "--format", "csv")
    assert (tmp_path / "scores" / "scores.csv").read_text() == printed
    rows = list(csv.DictReader(printed.splitlines()))
    told = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert told["num_cases"] == 7  # from 05:00 to 11:00
    assert [row["value"] or None for row in rows] == [None if r["value"] is None else str(r["value"]) for r in told["scores"]]
    with netCDF4.Dataset(tmp_path / "scores" / "scores.nc") as scores:
        row = next(r for r in rows if (r["forecaster"], r["lead_minutes"], r["threshold"]) == ("persistence", "30.0", "1.0"))
        assert float(scores["csi"][0, 5, 1]) == float(row["value"])
    report = (tmp_path / "scores" / "report.html").read_text()
    assert "http" not in report.replace("http-equiv", "")
    assert [report.count(f"data:image/{kind};base64,") for kind in ("png", "gif")] == [3, 3]
    assert report.count("data:image/svg+xml;base64,") > 15
