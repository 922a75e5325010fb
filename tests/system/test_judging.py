"""Forecasts of others, judged on the command line: ensembles, probabilities and single forecasts on the same pixels."""

import csv
import html
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from makers import command, rain, write_record
from makers.foreign import improver_file, pysteps_export

from nowcast.evaluation.evaluate import evaluate
from nowcast.evaluation.pooling import pool
from nowcast.evaluation.score_files import as_dataset
from nowcast.forecasters import open_forecaster
from nowcast.netcdf.opening import open_records
from nowcast.prediction.cases import Selection
from nowcast.scores import SCORES
from nowcast.scores.exceedance import PERCENTS

KINDS = ("probabilities", "members", "distribution")  # those of sums need half an hour of lead times
PROBABILITY_SCORES = {name: score for name, score in SCORES.items() if score.kind in KINDS}
START = np.datetime64("2020-06-01T00:00:00")
MINUTES = np.timedelta64(60, "s")
FRAMES, REFERENCES, LEADS = 12, (4, 5, 6), 3  # of the record; positions to forecast from
MEMBERS = 4


@pytest.fixture(scope="module")
def fields():
    return rain(frames=FRAMES, shape=(20, 24), missing=0.02)


@pytest.fixture
def here(tmp_path, monkeypatch, fields):
    monkeypatch.chdir(tmp_path)
    write_record("observed.nc", fields)
    return tmp_path


def futures(fields, position):
    return fields[position + 1 : position + 1 + LEADS]


def reference(position):
    return str(START + 5 * position * MINUTES)


def truth(fields):
    """The observed fields without gaps, so that forecasts of them have none."""
    return np.nan_to_num(fields, nan=1.0)


def members(fields, position):
    """The truth too early, in time, too late and 1 mm/h too wet."""
    whole = truth(fields)
    shifted = [futures(whole, position + n) for n in (-1, 0, 1)]
    return np.stack([*shifted, futures(whole, position) + 1]).astype(np.float32)


def ensemble_folder(folder, fields):
    folder.mkdir()
    for position in REFERENCES:
        pysteps_export(folder, members(fields, position), name=str(position), reference=reference(position))
    return folder


def probability_folder(folder, fields, thresholds=(0.5, 1.0)):
    """The shares of the ensemble's members, as improver writes probabilities: a file for each lead time."""
    folder.mkdir()
    for position in REFERENCES:
        for lead in range(LEADS):
            shares = np.stack([(members(fields, position)[:, lead] >= threshold).mean(axis=0) for threshold in thresholds])
            options = {"thresholds": thresholds, "units": "1", "scale": 1}
            improver_file(
                folder / f"{position}-{lead}.nc",
                shares,
                reference=reference(position),
                lead_minutes=5 * (lead + 1),
                variable="probability_of_rainfall_rate_above_threshold",
                **options,
            )
    return folder


def evaluated(*argv, thresholds="0.5,1"):
    """{(forecaster, score, lead, threshold): row} of these forecasters and the baselines, without differences."""
    asked = ["--thresholds", thresholds] if thresholds else []
    code, out, err = command("evaluate", *argv, "--observations", "observed.nc", "--format", "csv", "-q", *asked)
    assert code == 0, err
    rows = [row for row in csv.DictReader(io.StringIO(out)) if not row["against"]]
    return {(row["forecaster"], row["score"], row["lead_minutes"], row["threshold"]): row for row in rows}


def refused(code, *argv, says):
    """An error of one or two lines that say so, and no traceback."""
    found, out, err = command("evaluate", *argv, "--observations", "observed.nc", "-q")
    assert (found, out) == (code, ""), err
    error = err[err.index("error: ") :]
    assert re.search(says, error), err
    assert len(error.strip().splitlines()) <= 2


def test_a_folder_of_perfect_forecasts_is_perfect(here, fields):
    (here / "fc").mkdir()
    for position in REFERENCES:
        pysteps_export(here / "fc", futures(truth(fields), position), name=str(position), reference=reference(position))
    _, _, err = command("evaluate", "fc", "--observations", "observed.nc")
    assert "fc: no forecast_reference_time is stated; it is taken from what pysteps counts its times from\n" in err
    assert "fc states no map projection: assumed to be that of observed, whose coordinates are the same\n" in err
    found = evaluated("fc")
    assert {name for name, *_ in found} >= {"fc", "persistence", "extrapolation"}
    assert found["fc", "csi", "5.0", "1.0"]["num_cases"] == str(len(REFERENCES))
    assert float(found["fc", "csi", "", "1.0"]["value"]) == 1
    assert float(found["fc", "rmse", "10.0", ""]["value"]) == 0
    assert float(found["persistence", "rmse", "10.0", ""]["value"]) > 0
    assert not any(score in PROBABILITY_SCORES for _, score, _, _ in found)  # all are deterministic


def test_an_ensemble_stands_beside_deterministic_forecasts(here, fields):
    found = evaluated(str(ensemble_folder(here / "ens", fields)))
    values = {key: float(row["value"]) for key, row in found.items() if row["value"]}
    for lead in ("5.0", "15.0", ""):
        assert values["persistence", "crps_fair", lead, ""] == pytest.approx(values["persistence", "mae", lead, ""])
        assert values["ens", "crps_ecdf", lead, ""] > values["ens", "crps_fair", lead, ""]
        assert values["persistence", "spread", lead, ""] == 0 < values["ens", "spread", lead, ""]
        hk = values["persistence", "hk", lead, "1.0"]
        assert values["persistence", "roc_area", lead, "1.0"] == pytest.approx((1 + hk) / 2)
        wrong = 1 - values["persistence", "accuracy", lead, "1.0"]
        assert values["persistence", "brier", lead, "1.0"] == pytest.approx(wrong)
        pairs = {found[name, score, lead, ""]["num_pairs"] for name in ("ens", "persistence") for score in ("mae", "crps_fair")}
        assert len(pairs) == 1
        # the mean of the members is what is scored where one field is needed
        assert values["ens", "mean_rmse", lead, ""] == pytest.approx(values["ens", "rmse", lead, ""], rel=1e-6)


def test_probabilities_score_as_the_ensemble_that_they_are_the_shares_of(here, fields):
    names = [str(ensemble_folder(here / "ens", fields)), str(probability_folder(here / "chance", fields))]
    found = evaluated(*names)
    for name, score in PROBABILITY_SCORES.items():
        if score.needs_threshold:
            mine, its = (found[forecaster, name, "10.0", "1.0"] for forecaster in ("chance", "ens"))
            assert float(mine["value"]) == pytest.approx(float(its["value"]), abs=1e-6), name
            assert mine["num_pairs"] == its["num_pairs"]
    assert not any(name == "chance" and score in ("csi", "mae", "crps_fair") for name, score, *_ in found)


def test_the_thresholds_are_those_of_the_probabilities_unless_asked_for(here, fields):
    folder = str(probability_folder(here / "chance", fields, thresholds=(0.2, 2.0)))
    found = evaluated(folder, thresholds=None)
    assert {key[3] for key in found if key[1] == "csi"} == {"0.2", "2.0"}
    found = evaluated(folder, thresholds="2,5")
    assert found["chance", "brier", "5.0", "2.0"]["value"]
    assert found["chance", "brier", "5.0", "5.0"]["value"] == ""
    assert found["chance", "brier", "5.0", "5.0"]["num_pairs"] == "0"
    says = r"chance gives probabilities of 0\.2, 2 mm/h and none of the thresholds 5, 10\.\nUse --thresholds 0\.2,2\."
    refused(2, folder, "--thresholds", "5,10", says=says)


def test_the_files_of_scores_hold_the_sums_of_probabilities(here, fields, undrawn):
    ensemble_folder(here / "ens", fields), probability_folder(here / "chance", fields)
    argv = ["evaluate", "ens", "chance", "--observations", "observed.nc", "--output", "scores", "--thresholds", "0.5,1", "-q"]
    code, out, err = command(*argv)
    assert code == 0, err
    block = out[out.index("probabilities, pooled over leads") :].splitlines()
    assert block[0].split()[-2:] == ["spread/RMSE", "members"]
    assert (block[1].split()[0], block[1].split()[-1]) == ("ens", str(MEMBERS))
    assert block[2].split()[0] == "chance"
    assert block[2].split()[-4:] == ["–"] * 4
    assert "'ens' has 4 members: its scores of a single field, such as CSI and MAE, are those of the ensemble mean" in out
    assert "the mean of the 4 members of 'ens'" in html.unescape((here / "scores" / "report.html").read_text())
    assert "'chance' gives only probabilities: it has no scores of a single field, such as CSI and MAE.\n" in out
    with xr.open_dataset("scores/scores.nc", engine="netcdf4") as scores:
        assert scores.has_probabilities.values.tolist() == [1] * len(scores.forecaster)
        assert scores.has_members.sel(forecaster="chance") == 0
        assert scores.has_pairs.sel(forecaster="chance") == 0
        assert scores.percent.values.tolist() == list(PERCENTS)
        assert scores["rank"].values.tolist() == list(range(MEMBERS + 1))
        counts = scores.block_probabilities_num_forecast.sel(forecaster="ens", lead_minutes=5, threshold=1).sum("block")
        assert counts.where(counts > 0, drop=True).percent.values.tolist() == [25, 50, 75, 100]  # one is always wet
        assert counts.sum() == scores.block_members_num_pairs.sel(forecaster="ens", lead_minutes=5).sum()
    told = json.loads((here / "scores" / "scores.json").read_text())
    assert {row["score"] for row in told["scores"]} >= set(PROBABILITY_SCORES)
    assert (here / "scores" / "report.html").stat().st_size > 0


def test_a_single_case_has_scores_and_no_interval(here, fields):
    pysteps_export(here, futures(truth(fields), 5), name="one", reference=reference(5))
    code, out, _ = command("evaluate", "one.nc", "--observations", "observed.nc", "-q")
    assert code == 0
    assert "No confidence intervals: the cases are from 1 block, at least 5 are needed" in out


def test_a_lead_time_of_zero_is_no_forecast(here, fields):
    path = pysteps_export(here, fields[4:8], name="a", reference=reference(4), leads=[0, 1, 2, 3])
    assert {key[2] for key in evaluated(str(path))} == {"", "5.0", "10.0", "15.0"}
    alone = pysteps_export(here, fields[4:5], name="b", reference=reference(4), leads=[0])
    refused(3, str(alone), says="b.nc does not say when its forecast starts")
    improver_file(here / "c.nc", fields[4], reference=reference(4), lead_minutes=0)
    refused(3, "c.nc", says=r"c has no lead time above 0\.\nExpected forecasts for later than their reference time")


def test_leads_between_the_frames_are_left_out_and_logged(here, fields):
    write_record("observed.nc", fields, step_minutes=10)
    path = pysteps_export(here, rain(frames=4, shape=(20, 24)), name="a", reference=str(START + 40 * MINUTES))
    assert {key[2] for key in evaluated(str(path))} == {"", "10.0", "20.0"}
    _, _, err = command("evaluate", path, "--observations", "observed.nc", "-q")
    assert err == "a: left out 2 of 4 lead times, because observed has no frame then (its time step is 10 min)\n"
    odd = pysteps_export(here, rain(frames=1, shape=(20, 24)), name="odd", reference=str(START + 40 * MINUTES))
    refused(3, str(odd), says=r"odd has lead times of 5 min, observed a frame every 10 min\.\nExpected observations at")


def test_other_times_grids_and_blank_fields_are_refused(here, fields):
    shape = (20, 24)
    late = pysteps_export(here, rain(frames=3, shape=shape), name="late", reference="2020-07-01T00:00:00")
    refused(3, str(late), says=r"late has forecasts from 2020-07-01T00:00:00Z: no overlap in time\.\nobserved goes from 2020")
    small = pysteps_export(here, rain(frames=3, shape=(20, 20)), name="small", reference=reference(5))
    refused(3, str(small), says=r"small is not on the grid of observed: 20 × 20 cells in place of 20 × 24\.\nRegrid one of")
    blank = pysteps_export(here, np.full((3, *shape), np.nan, np.float32), name="blank", reference=reference(5))
    refused(3, str(blank), says=r"error: blank forecasts nothing but missing values in the one case: nothing can be scored\.")


def test_files_named_one_by_one_say_how_to_name_them(here, fields):
    for position in REFERENCES[:2]:
        pysteps_export(here, futures(truth(fields), position), name=f"p{position}", reference=reference(position))
    expected = (
        r"the files of forecasts have no reference time in common: p4 from .*00:20:00Z; p5 from .*00:25:00Z\.\nThe files of one"
    )
    refused(3, "p4.nc", "p5.nc", says=expected)
    assert len({key for key in evaluated("p*.nc") if key[1] == "mae" and key[0] == here.name}) == LEADS + 1


def test_an_observed_record_is_no_forecast(here):
    refused(3, "observed.nc", says="observed.nc does not say when its forecast starts")


def test_a_quantity_that_is_no_rain_is_scored_by_its_name(here):
    share = np.clip(rain(frames=20, shape=(20, 24)) / 10, 0, 1)
    write_record("observed.nc", share, variable="cloud", standard_name="cloud_area_fraction", units="1")
    named = ["--variable", "cloud", "-q"]
    assert (
        command("predict", "persistence", "observed.nc", "--reference-time", reference(5), "--output", "f.nc", *named)[0] == 0
    )
    found = evaluated("f.nc", *named[:2], thresholds="0.2")
    assert found["f", "mae", "5.0", ""]["value"] == found["persistence", "mae", "5.0", ""]["value"] != ""


def judged(*names, position=None):
    """An Evaluation of these folders on the record, of one case or of all, by the functions that the command calls."""
    at = None if position is None else START + 5 * position * MINUTES
    sources = {name: open_forecaster(name, device=torch.device("cpu")) for name in (*names, "persistence")}
    selection = Selection(start=at, end=at)
    return evaluate(sources, open_records(["observed.nc"]), selection=selection, thresholds=(0.5, 1.0))


def test_sums_of_probabilities_come_back_from_files_and_pool(here, fields):
    ensemble_folder(here / "ens", fields), probability_folder(here / "chance", fields)
    whole, parts = judged("ens", "chance"), [judged("ens", "chance", position=position) for position in REFERENCES]
    for n, part in enumerate(parts):
        days = {name: {("observed", f"day {n}"): tally for tally in blocks.values()} for name, blocks in part.blocks.items()}
        as_dataset(replace(part, blocks=days), []).to_netcdf(f"{n}.nc", engine="netcdf4")
    pooled = pool([f"{n}.nc" for n in range(len(parts))])
    for name in whole.blocks:
        for kind, total in whole.tally(name).kinds.items():
            for part, array in total.arrays().items():
                again = pooled.total(name, kind).arrays()[part]
                np.testing.assert_allclose(again, array, rtol=1e-12, atol=1e-12, err_msg=f"{name} {kind} {part}")
    assert pooled.forecasters_with("pairs") == ["ens", "persistence"]
