"""The table, CSV, JSON and NetCDF hold the same scores, and undefined scores are marked."""

import csv
import io
import json
import os
import signal

import numpy as np
import pytest
import xarray as xr
from makers import evaluation, write_record

from nowcast.evaluation import score_files
from nowcast.evaluation.evaluate import evaluate
from nowcast.forecasters.baselines import Extrapolation, Persistence
from nowcast.netcdf.opening import open_records
from nowcast.prediction.cases import Selection
from nowcast.report import folder as report_folder
from nowcast.report import table as report_table
from nowcast.runtime.signals import Terminated, terminating
from nowcast.scores import FIELD_KINDS, SCORES
from nowcast.scores.pixels import Sums

FIELD_SCORES = {name: score for name, score in SCORES.items() if score.kind in FIELD_KINDS}
COORDINATES = ("forecaster", "against", "lead_minutes", "threshold", "scale_km")
HOSTILE = "<script>alert('a&b')</script>"


def test_the_table_of_a_hand_made_record(tmp_path):
    fields = np.zeros((16, 4, 4), np.float32)
    fields[:4, :2] = 2  # the past: rain in the upper half; then in the left half
    fields[4:, :, :2] = 2
    record = open_records([write_record(tmp_path / "a.nc", fields)])
    sources = {"persistence": Persistence(), "extrapolation": Extrapolation()}
    result = evaluate(sources, record, selection=Selection(), thresholds=(1.0, 5.0))
    assert report_table.table(result).splitlines() == [
        "pooled over leads  CSI≥1  CSI≥5  bias≥1  bias≥5    MAE   RMSE   corr  cases  pairs",
        "persistence        0.333      –   1.000       –  1.000  1.414  0.000      1    192",
        "extrapolation      0.333      –   1.000       –  1.000  1.414  0.000      1    192",
        "",
        "CSI≥1 at minute      5     10     15     20     25     30     35     40     45     50     55     60",
        "persistence      0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333",
        "extrapolation    0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333",
        "",
        "power ratio at km      2      4  resolution, km",
        "persistence        1.000  1.000             2.0",
        "extrapolation      1.000  1.000             2.0",
        "2 of 3 wavelengths; --format csv or --output has all.",
        "",
        "Only one case was scored: other cases can give very different scores.",
        "5 mm/h or more was never observed: there, every forecast of it is a false alarm.",
        "extrapolation has a higher CSI than persistence at no lead time.",
        "No confidence intervals: the cases are from 1 block, at least 5 are needed (a block is one day of one record).",
    ]


@pytest.mark.slow
def test_the_table_of_many_leads_stays_readable():
    lines = report_table.table(evaluation(leads=60)).splitlines()
    assert max(map(len, lines)) < 450  # the sentences below the tables
    assert max(map(len, lines[:14])) < 130
    assert lines[4].split()[3:6] == ["25", "50", "75"]


def test_the_csv_is_tidy():
    result = evaluation()
    text = score_files.as_csv(result.rows())
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = "forecaster,against,lead_minutes,threshold,scale_km,score,value,low,high,num_cases,num_pairs"
    assert text.splitlines()[0] == columns
    a_lead = 10 * 4 + 8 + 4 * 2 + 1 + 17 + 1  # counts, errors, FSS, SSIM, spectrum, effective resolution
    views = 3 + 2  # leads, and all of them in two ways
    lines = 4  # of fss_useful, which is not compared
    assert len(rows) == views * (2 * (a_lead + lines) + a_lead)  # of which the network's differences to persistence
    assert {row["lead_minutes"] for row in rows} == {"", *(f"{m:.1f}" for m in result.lead_minutes)}
    for column in ("lead_minutes", "threshold", "value", "low", "high", "num_cases", "num_pairs"):
        assert all(np.isfinite(float(row[column])) for row in rows if row[column])
    assert "nan" not in text.lower()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(evaluation, folder) with a name in it that is hard to write."""
    result = evaluation(names=("persistence", HOSTILE), records=(HOSTILE,))
    result.examples = []  # no pictures of them
    folder = tmp_path_factory.mktemp("scores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_folder, "as_html", lambda *_, **__: "")
        report_folder.write(result, result.rows(), folder)
    return result, folder


@pytest.mark.slow
def test_json_csv_and_netcdf_agree(written):
    _, folder = written
    told = json.loads((folder / score_files.SCORES_JSON).read_text())
    assert told["records"] == [HOSTILE]
    assert (told["num_cases"], told["num_blocks"], told["quantity"]) == (6, 6, "rain_rate")
    with (folder / score_files.SCORES_CSV).open() as file:
        table = list(csv.DictReader(file))
    assert len(told["scores"]) == len(table)
    with xr.open_dataset(folder / score_files.SCORES_NC, engine="netcdf4") as scores:
        assert {f"{name}{end}" for name in FIELD_SCORES for end in ("", "_low", "_high", "_pooled")} <= set(scores)
        assert {f"{name}{view}_difference_low" for name in ("csi", "fss") for view in ("", "_pooled")} <= set(scores)
        values = {name: scores[name].values for name in scores}
        index = {dim: {v: n for n, v in enumerate(scores[dim].values.tolist())} for dim in scores.dims if dim in scores.coords}
        for row, line in zip(told["scores"], table, strict=True):
            assert all(str("" if value is None else value) == line[key] for key, value in row.items())
            scale = "wavelength_km" if row["score"].startswith("spectrum_ratio") else "scale_km"
            keys = {"scale_km": scale}
            at = {keys.get(key, key): row[key] for key in COORDINATES if row[key] is not None}
            pooled = "_pooled" if row["lead_minutes"] is None and row["score"] in SCORES else ""
            difference = "_difference" if row["against"] else ""
            for column, end in (("value", ""), ("low", "_low"), ("high", "_high")):
                name = f"{row['score']}{pooled}{difference}{end}"
                dims = scores.variables[name].dims
                assert set(at) == set(dims)
                value = values[name][tuple(index[dim][at[dim]] for dim in dims)]
                assert value == row[column] or (np.isnan(value) and row[column] is None)


@pytest.mark.slow
def test_sums_by_block_can_be_added_up_again(written):
    result, folder = written
    with xr.open_dataset(folder / score_files.SCORES_NC, engine="netcdf4") as scores:
        chosen = scores.sel(forecaster=HOSTILE).sum("block")
        arrays = {name: chosen[f"block_{name}"].values for name in Sums.zeros(1).arrays()}
        again = Sums(tuple(scores["threshold"].values.tolist()), **arrays)
        np.testing.assert_array_equal(SCORES["csi"](again), SCORES["csi"](result.total(HOSTILE)))
        assert scores["lead_minutes"].attrs["units"] == "min"
        assert scores["lead_minutes"].dtype == np.float64


def test_undefined_is_a_dash_empty_null_and_nan(tmp_path):
    result = evaluation(thresholds=(1.0, 1e5))
    rows = result.rows()
    undefined = [row for row in rows if row["threshold"] == 1e5 and row["score"] == "csi"]
    assert report_table.number(undefined[0]["value"]) == "–"
    assert ",csi,,,," in score_files.as_csv(undefined)
    assert '"value": null' in score_files.as_json(result, undefined)
    assert np.isnan(score_files.as_dataset(result, rows)["csi"].sel(threshold=1e5)).all()


def test_a_signal_while_scores_are_written_comes_after_the_file(tmp_path, monkeypatch):
    dataset, write = xr.Dataset({"csi": ("lead", np.arange(3.0))}), score_files.write_variables

    def terminated_meanwhile(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        write(*given)

    monkeypatch.setattr(score_files, "write_variables", terminated_meanwhile)
    with pytest.raises(Terminated), terminating():
        score_files.write_dataset(dataset, tmp_path / "scores.nc")
    with xr.open_dataset(tmp_path / "scores.nc", engine="netcdf4", decode_times=False) as written:
        assert written.equals(dataset)


def test_a_disk_that_gives_back_half_of_the_file_is_an_error_of_the_output(tmp_path, monkeypatch):
    def half(dataset, path):
        write(dataset, path)
        os.truncate(path, path.stat().st_size // 2)

    write = score_files.write_variables
    monkeypatch.setattr(score_files, "write_variables", half)
    with pytest.raises(OSError, match="does not read back as it was written"):
        score_files.write_dataset(xr.Dataset({"csi": ("lead", np.arange(3.0))}), tmp_path / "scores.nc")
