"""Members in `nowcast evaluate`: of any forecaster that gives them, and of pysteps' STEPS."""

import json

import numpy as np
import pytest
from makers import command, rain, write_record

from nowcast.forecasters.baselines import Steps


def scores_of(text, forecaster):
    """{(score, lead time, threshold, …): value} of a forecaster."""
    rows = [row for row in json.loads(text)["scores"] if row["forecaster"] == forecaster and row["against"] is None]
    named = [{name: value for name, value in row.items() if name not in ("forecaster", "value", "low", "high")} for row in rows]
    values = [float("nan") if row["value"] is None else row["value"] for row in rows]
    return {tuple(name.items()): value for name, value in zip(named, values, strict=True)}


@pytest.fixture
def record(tmp_path):
    return write_record(tmp_path / "rain.nc", rain(frames=7, shape=(32, 36)))


@pytest.mark.parametrize("seed", [(), ("--seed", 5)])
def test_an_ensemble_is_scored_as_its_file_is(tmp_path, record, seed):
    asked = ["--observations", record, "--leads", 2, "--start", "2020-06-01T00:20", "--end", "2020-06-01T00:20"]
    asked += ["--thresholds", "0.1,0.2,1", "--format"]
    code, direct, err = command("evaluate", "extrapolation", *asked, "json", "--members", 3, *seed)
    assert code == 0, err
    predicted = ["--reference-time", "2020-06-01T00:20", "--leads", 2, "--members", 3, *seed, "--output", tmp_path / "f.nc"]
    assert command("predict", "extrapolation", record, *predicted)[0] == 0
    code, stored, err = command("evaluate", tmp_path / "f.nc", *asked, "json")
    assert code == 0, err
    own, same = scores_of(direct, "extrapolation"), scores_of(stored, "f")
    assert own.keys() == same.keys()
    assert {dict(key)["score"] for key in own} > {"crps", "crps_fair", "spread", "brier", "brier_reliability"}
    assert own == pytest.approx(same, rel=1e-6, nan_ok=True)  # also at 0.1 and 0.2, which members often are exactly


def test_members_in_files_are_all_scored(tmp_path, record):
    predicted = ["--reference-time", "2020-06-01T00:20", "--leads", 1, "--members", 3, "--output", tmp_path / "f.nc"]
    assert command("predict", "extrapolation", record, *predicted)[0] == 0
    code, _, err = command("evaluate", tmp_path / "f.nc", "--observations", record, "--members", 2)
    assert (code, err) == (2, "error: --members 2: f holds 3 members, which are all scored.\nLeave --members out.\n")


def test_a_seed_draws_other_members_and_needs_members(record):
    asked = ["extrapolation", "--observations", record, "--leads", 1, "--every", 60, "--format", "csv"]
    drawn = [command("evaluate", *asked, "--members", 3, *seed) for seed in ((), ("--seed", 0), ("--seed", 5))]
    assert [code for code, _, _ in drawn] == [0, 0, 0], drawn
    assert drawn[0][1] == drawn[1][1] != drawn[2][1]
    assert "--members 3 --seed 5 --output scores/" in drawn[2][2]
    code, _, err = command("evaluate", *asked, "--seed", 5)
    assert (code, err) == (2, "error: --seed belongs to --members: nothing else is random\n")


def test_none_of_the_forecasters_gives_members(record):
    code, _, err = command("evaluate", "persistence", "--observations", record, "--members", 3)
    assert (code, "none of persistence gives members" in err) == (2, True), err


def test_steps_is_an_ensemble_of_its_own():
    pytest.importorskip("pysteps")
    past = rain(frames=4, shape=(64, 64))
    past[:, :3] = np.nan
    drawn = np.stack(list(Steps().members(past, 2, 3, seed=1)))
    assert drawn.shape == (2, 3, 64, 64)
    known = np.isfinite(drawn[0]).all(axis=0)  # a perturbed motion brings what is missing to other cells of each member
    assert known.mean() > 0.7
    assert not known[0].any()
    assert drawn[0][:, known].std(axis=0).max() > 0.1
    np.testing.assert_array_equal(drawn, np.stack(list(Steps().members(past, 2, 3, seed=1))))
    dry = np.stack(list(Steps().members(np.zeros_like(past), 2, 3)))
    assert (dry[np.isfinite(dry)] == 0).all()
