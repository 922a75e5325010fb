"""The tables of scores fit the terminal, and begin with what the networks have seen of the cases."""

import sys

import numpy as np
import pytest
from makers import command, evaluation, rain, tiny_run, write_record
from makers.terminals import terminal

from nowcast.commands.evaluate import for_new_records
from nowcast.evaluation.score_files import as_dataset
from nowcast.forecasters import spread_runs
from nowcast.report.table import table
from nowcast.runtime.streams import terminal_width
from nowcast.scores import SCORES
from nowcast.scores.bootstrap import difference_interval
from nowcast.scores.ensemble import EnsembleSums, add_members
from nowcast.scores.exceedance import ExceedanceSums
from nowcast.scores.sums import Tally

THRESHOLDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


@pytest.fixture(scope="module")
def scored():
    return evaluation(names=("persistence", "net"), thresholds=THRESHOLDS, leads=12)


def words(text):
    return [word for line in text.splitlines() for word in line.split()]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_no_line_is_longer_than_the_terminal_and_no_word_is_cut(scored, width):
    lines = table(scored, width).splitlines()
    assert max(map(len, lines)) <= width
    assert set(words("\n".join(lines))) - {"6", "4", "of", "12", "lead", "wavelengths;"} <= {
        *words(table(scored)),
        *(f"≥{threshold:g}" for threshold in THRESHOLDS),
        *("CSI,", "bias,", "pooled", "over", "leads", "times;", "--format", "csv", "or", "--output", "has", "all."),
    }


def test_every_threshold_is_there_at_eighty_columns_and_the_lead_times_left_out_are_told(scored):
    lines = table(scored, 80).splitlines()
    assert lines[0].split() == ["CSI,", "pooled", "over", "leads", *(f"≥{threshold:g}" for threshold in THRESHOLDS)]
    assert lines[4].split()[:1] == ["bias,"]
    (at,) = [n for n, line in enumerate(lines) if line.startswith("CSI≥1 at minute")]
    assert lines[at].split()[3:] == ["10", "20", "30", "40", "50", "60"]
    assert lines[at + 3] == "6 of 12 lead times; --format csv or --output has all."


def test_the_tables_by_scale_and_wavelength_hold_the_scores_of_each_forecaster(scored):
    lines = table(scored, 200).splitlines()

    def below(title):
        (at,) = [n for n, line in enumerate(lines) if line.startswith(title)]
        return lines[at].removeprefix(title).split(), [line.split() for line in lines[at + 1 : at + 3]]

    names, middle = ("persistence", "net"), THRESHOLDS.index(1.0)
    tallies = [scored.tally(name).pooled() for name in names]
    heads, rows = below("FSS≥1 at km")
    assert heads == [*(f"{scale:g}" for scale in tallies[0]["windows"].scales_km), "useful", "from"]
    assert rows == [
        [name, *(f"{value:.3f}" for value in (*SCORES["fss"](tally)[0, middle], SCORES["fss_useful"](tally)[0, middle]))]
        for name, tally in zip(names, tallies, strict=True)
    ]
    heads, rows = below("power ratio at km")
    spectra = tallies[0]["spectra"]
    shown = [n for n, power in enumerate(spectra.power_o[0]) if power > 0 and np.log2(spectra.wavelengths_km[n]) % 1 == 0]
    assert heads == [*(f"{spectra.wavelengths_km[n]:g}" for n in shown), "resolution,", "km"]
    assert rows == [
        [name, *(f"{SCORES['spectrum_ratio'](tally)[0, n]:.3f}" for n in shown),
         f"{SCORES['effective_resolution'](tally)[0]:.1f}"]
        for name, tally in zip(names, tallies, strict=True)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def of_ensembles():
    """The same with probabilities and members, of two networks that are compared in pairs."""
    result, rng = evaluation(names=("ours", "the_other_one"), thresholds=THRESHOLDS, leads=2), np.random.default_rng(0)
    for of_name in result.blocks.values():
        for block, tally in of_name.items():
            observed = rng.gamma(0.5, 4, (30, 40)).astype(np.float32)
            members = (observed * rng.gamma(4, 0.25, (4, 30, 40))).astype(np.float32)
            exceedance, ensemble = ExceedanceSums.zeros(2, THRESHOLDS), EnsembleSums.zeros(2, most_members=4)
            for lead in range(2):
                add_members(exceedance, ensemble, lead, members, observed, np.ones(observed.shape, bool))
            of_name[block] = Tally({**tally.kinds, "probabilities": exceedance, "members": ensemble})
    return result


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_no_table_of_probabilities_is_divided_for_its_title(of_ensembles, width):
    lines = table(of_ensembles, width).splitlines()
    assert max(map(len, lines)) <= width
    for name, heads in {
        "Brier": [f"≥{threshold:g}" for threshold in THRESHOLDS],
        "ROC area": [f"≥{threshold:g}" for threshold in THRESHOLDS],
        "": ["CRPS", "CRPS fair", "CRPS ecdf", "spread/RMSE", "members"],
    }.items():
        title = f"{name}, probabilities, pooled over leads" if name else "probabilities, pooled over leads"
        (at,) = [n for n, line in enumerate(lines) if line.startswith(title)]
        if width == 80:  # the title takes a line of its own
            assert lines[at] == title
            at += 1
        assert " ".join(lines[at].replace(title, "").split()) == " ".join(heads)
        assert [line.split()[0] for line in lines[at + 1 : at + 3]] == ["ours", "the_other_one"]
        assert len(lines[at + 1].split()) == 1 + len(heads)


def test_shares_of_members_are_not_called_probabilities_beside_the_field(of_ensembles):
    text = table(of_ensembles)
    assert "'ours' has 4 members" in text
    assert "probabilities beside the field" not in text


def test_a_wide_terminal_shows_one_table_of_all(scored):
    assert table(scored, 200).splitlines()[0].split()[3:5] == ["CSI≥0.1", "CSI≥0.5"]


@pytest.mark.parametrize("columns", [80, 200])
def test_the_width_is_that_of_the_terminal(columns, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    with terminal(columns) as (stream, _):
        monkeypatch.setattr(sys, "stdout", stream)
        assert terminal_width() == columns
    monkeypatch.setenv("COLUMNS", "91")
    assert terminal_width() == 91


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"num_cases_in_training": 6}, "Beware: 'net' was trained on all 6 cases: these scores are too good."),
        ({"num_cases_in_training": 2}, "Beware: 'net' was trained on 2 of the 6 cases: these scores are too good."),
        (
            {"num_cases_in_validation": 1},
            "Beware: 'net' was chosen or calibrated on 1 of the 6 cases: these scores are a little too good.",
        ),
        (
            {"num_cases_at_seen_times": 3},
            "Beware: 'net' has seen a record of another name at the times of 3 of the 6 cases: "  # noqa: ISC004
            "if it is the same radar, these scores are too good.",
        ),
    ],
)
def test_the_first_line_says_that_a_network_has_seen_the_cases(counts, says):
    result = evaluation(names=("persistence", "net"), thresholds=(1.0,))
    assert "Beware" not in table(result)
    result.about["forecasters"]["net"] |= counts
    assert table(result).splitlines()[0] == says


def test_pooled_scores_of_seen_cases_propose_no_records():
    result = evaluation(names=("persistence", "net"), thresholds=(1.0,))
    result.about["forecasters"]["net"] |= {"num_cases_in_training": 6}
    asked = {"--observations": None, "--start": None, "--thresholds": None}
    assert for_new_records(result, asked) == asked
    scored = {"--observations": ["a.nc"], "--start": "2020-06-01", "--thresholds": "1"}
    assert for_new_records(result, scored) == {"--observations": ..., "--thresholds": "1"}


@pytest.mark.slow
def test_a_run_that_is_scored_on_its_own_days_says_so_and_proposes_other_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    record = write_record(tmp_path / "rain.nc", rain(frames=60, shape=(24, 28)))
    tiny_run(tmp_path / "run", [record])
    renamed = write_record(tmp_path / "other.nc", rain(frames=60, shape=(24, 28)))
    scored = ("evaluate", "run", "--thresholds", "1", "--every", "30", "--observations")
    code, out, err = command(*scored, record)
    assert code == 0, err
    assert out.startswith("Beware: 'run' was trained on ")
    assert err.splitlines()[-1] == "next: nowcast evaluate run --thresholds 1 --observations RECORD... --output scores/"
    _, out, _ = command(*scored, renamed)
    assert out.startswith("Beware: 'run' has seen a record of another name at the times of 8 of the 9 cases: ")
    times = np.datetime64("2020-06-02T00:00:00") + np.arange(30) * np.timedelta64(300, "s")
    later = write_record(tmp_path / "rain_later.nc", rain(frames=30, shape=(24, 28)), times=times)
    _, out, err = command(*scored, later)
    assert out.startswith("pooled over leads")
    assert f"--observations {later} --thresholds 1 --every 30" in err.splitlines()[-1]


def test_two_networks_are_compared_in_pairs_with_intervals():
    result = evaluation(names=("persistence", "a", "b"), thresholds=(1.0, 5.0), leads=3)
    rows = result.rows()
    found = {(row["score"], row["threshold"]): row for row in rows if (row["forecaster"], row["against"]) == ("a", "b")
             and row["lead_minutes"] is None}  # fmt: skip
    assert not [row for row in rows if (row["forecaster"], row["against"]) == ("b", "a")]  # each pair once
    csi = [SCORES["csi"].pooled(result.tally(name))[0, 0] for name in ("a", "b")]
    assert found["csi", 1.0]["value"] == csi[0] - csi[1]
    assert found["csi", 1.0]["low"] < found["csi", 1.0]["value"] < found["csi", 1.0]["high"]
    separate = difference_interval(*(list(result.blocks[name].values()) for name in ("a", "b")), SCORES["csi"].pooled)
    assert found["csi", 1.0]["low"] == separate[0][0, 0]
    lines = table(result, 80, rows=rows).splitlines()
    (at,) = [n for n, line in enumerate(lines) if line.startswith("difference, pooled")]
    assert lines[at].split()[2:] == ["CSI≥1", "CSI≥5", "MAE", "RMSE"]
    assert lines[at + 1].startswith("a − b")
    for line, part in zip(lines[at + 1 : at + 4], ("value", "low", "high"), strict=True):
        assert f"{found['mae', None][part]:+.3f}".replace("-", "−") == line.split()[-2]
    with_dataset = as_dataset(result, rows)
    assert with_dataset.against.values.tolist() == ["persistence", "b"]
    assert float(with_dataset.csi_pooled_difference.sel(forecaster="a", against="b", threshold=1)) == csi[0] - csi[1]
    assert "'a' has a higher CSI than 'b' " in table(result)


def test_without_enough_days_the_difference_has_no_interval():
    lines = table(evaluation(names=("a", "b"), thresholds=(1.0,), num_blocks=2)).splitlines()
    (at,) = [n for n, line in enumerate(lines) if line.startswith("difference, pooled")]
    assert lines[at + 1].startswith("a − b")
    assert lines[at + 2] == ""


def test_a_glob_names_all_runs_that_it_matches(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "scores"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "runs" / name / "best.safetensors").touch()
    assert spread_runs(["runs/*", "persistence", "f*.nc"]) == ["runs/a", "runs/b", "persistence", "f*.nc"]


def test_small_differences_are_not_written_as_0():
    """Half of "−0.000 to +0.000" is a sign that decides whether 0 lies inside."""
    result = evaluation(names=("persistence", "a", "b"), thresholds=(1.0,), leads=1)
    rows = [row | {"value": -0.0002, "low": -0.0004, "high": -0.0} for row in result.rows()]
    lines = table(result, rows=rows).splitlines()
    (at,) = [n for n, line in enumerate(lines) if line.startswith("difference, pooled")]
    assert [line.split()[-1] for line in lines[at + 1 : at + 4]] == ["−0.0002", "−0.0004", "+0.000"]
