"""scripts/skill/members.py scores members of a forecaster at cells and of sums, as by hand; benchmarks/ensembles.py times."""

import re
import subprocess
import sys

import members as skill_members
import numpy as np
import pytest
from makers import ROOT, rain, write_record

from nowcast.errors import DataError
from nowcast.scores.ensemble import EnsembleSums, add_members
from nowcast.scores.exceedance import ExceedanceSums


def test_flatness_is_0_of_even_ranks_and_grows_where_members_lie_to_one_side():
    sums = [EnsembleSums.zeros(1, most_members=1) for _ in range(2)]
    known = np.ones((1, 2), bool)
    for each, observed in zip(sums, ([[0.0, 2.0]], [[2.0, 2.0]]), strict=True):
        chances = ExceedanceSums.zeros(1, (0.5,))
        add_members(chances, each, 0, np.ones((1, 1, 2), np.float32), np.array(observed, np.float32), known)
    assert [float(skill_members.flatness(each)[0]) for each in sums] == [0.0, 1.0]


def test_cases_lie_on_the_days_asked_for(tmp_path):
    record = skill_members.open_records([write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 24)))])[0]
    day = int(record.times[0].astype("datetime64[D]").astype(int)) % 10
    positions = skill_members.cases_of(record, [day], 3)
    assert positions.shape == (3, skill_members.PAST + skill_members.LEADS)
    assert len(skill_members.cases_of(record, [(day + 1) % 10], 3)) == 0
    words = [str(tmp_path / "rain.nc"), "--alone", "--days", str((day + 1) % 10), "--output", str(tmp_path / "out")]
    with pytest.raises(DataError, match=r"no case in .*rain\.nc"):
        skill_members.main(words)


def test_power_is_told_by_lead_time_of_all_and_of_all_wavelengths():
    spectra = skill_members.SpectrumSums.empty(2, wavelengths_km=skill_members.WAVELENGTHS_KM)
    spectra.num_cases[:] = 1
    eight, sixteen, beyond = (skill_members.WAVELENGTHS_KM.index(wave) for wave in (8.0, 16.0, 90.5))
    spectra.power_o[:, [eight, sixteen, beyond]] = [[1, 4, 5], [2, 4, 5]]
    spectra.power_f[:, [eight, sixteen, beyond]] = [[2, 2, 5], [1, 2, 5]]
    assert skill_members.power_text([spectra]) == "8 km 0.50 to 2.00, 1.00; 16 km 0.50 to 0.50, 0.50; all wavelengths 0.81"


def test_ratios_are_apart_whose_interval_lies_outside_of_the_goal():
    drawn = np.stack([np.array([0.7, 1.0, 1.3, 0.75, np.nan]) + change for change in (-0.06, 0.06)] * 50)
    assert skill_members.outside(drawn) == "2 of 4"  # .64 to .76 and 1.24 to 1.36; .69 to .81 reaches the goal


@pytest.mark.slow
def test_members_of_extrapolation_are_scored_alone(tmp_path, capsys):
    record = write_record(tmp_path / "rain.nc", rain(frames=20, shape=(40, 40)))
    words = ["--cases", "1", "--members", "3", "--alone", "--perfect", "2", "--output", str(tmp_path / "out")]
    skill_members.main([str(record), *words])
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "members.md").read_text(encoding="utf-8") == printed.rstrip("\n") + "\n"
    assert printed.startswith("1 cases on 1 days")
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith(("| cells", "| 30 min", "| 60 min"))]
    assert len(rows) == 7
    scores = {row[0].removeprefix("| "): float(row[2]) for row in rows}
    assert all(scores[kind] > 0 for kind in ("cells", "30 min, 0 km", "60 min, 10 km"))
    assert np.isnan(scores["60 min, 40 km"]), "what enters the grid is missing, so no square of 40 km is known"
    assert len(re.findall(r"- members: 4 km [\d.]+ to [\d.]+, [\d.]+; .* all wavelengths [\d.]+", printed)) == 2
    assert "Range with each of 2 further members as the observation" in printed
    perfect = dict(re.findall(r"- (.*): flatness ([\d.]+ to [\d.]+); spread ÷ error of all leads", printed))
    assert list(perfect) == [kind for kind, score in scores.items() if np.isfinite(score)], "unknown scores are left out"
    assert "Seconds of a core" not in printed, "the further members take time as well"
    skill_members.main([str(record), *words[:5], "--output", str(tmp_path / "bare")])
    bare = capsys.readouterr().out
    assert bare.split("Seconds of a core: members")[0].strip() == printed.split("Range with")[0].strip()


def test_what_a_perfect_ensemble_gets_is_that_of_further_members():
    """Of two members 0 and 2 and an observation of 5; taken for observed are 1.5 and 9."""
    blocks = {}
    for name, seen in ((f"{skill_members.PERFECT}2", 1.5), (f"{skill_members.PERFECT}3", 9.0)):
        totals = skill_members.Totals(2, 5.0, (1.0, 1.0))
        members = np.stack([np.full((4, 4), value, np.float32) for value in (0.0, 2.0)])
        for lead in range(skill_members.LEADS):
            totals.add(lead, members, np.full((4, 4), seen, np.float32), np.ones((4, 4), bool))
        blocks[name] = [totals.tally()]
    cells = skill_members.perfect_text(blocks).splitlines()[0]
    # ranks: all between the two, or all above them; spread √3 (variance 2 times 3 / 2), error of their mean 0.5 and 8
    assert cells == "- cells: flatness 1.333 to 1.333; spread ÷ error of all leads 0.22 to 3.46, of one 0.22 to 3.46"


@pytest.mark.slow
def test_the_benchmark_times_members_in_a_process_of_their_own():
    script = ROOT / "scripts" / "benchmarks" / "ensembles.py"
    words = [sys.executable, str(script), "--grid", "32,32", "--members", "2", "--only", "members"]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"[\d.]+ [\d.]+ [\d.]+ 0\.0\n", printed)
