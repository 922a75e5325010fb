"""scripts/skill_constants.py chooses constants for a fold by the services outside it, and leaves the package as it was."""

import sys
from pathlib import Path

import numpy as np
import pytest
from makers import rain, write_record

from nowcast import motion
from nowcast.baselines import BASELINES, Persistence
from nowcast.models import probabilistic

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))

import skill
import skill_constants
import skill_record
from skill_constants import averaged, choose, counted, csi, using

WIDE, NARROW = (("MOTION_SIGMA", 30.0),), (("MOTION_SIGMA", 10.0),)


@pytest.fixture
def two(monkeypatch):
    """Two services, one to a fold, and a single constant."""
    monkeypatch.setattr(skill_constants, "FOLDS", {"A": ("north",), "B": ("south",)})
    monkeypatch.setattr(skill_constants, "CONSTANTS", {"MOTION_SIGMA": skill_constants.CONSTANTS["MOTION_SIGMA"]})


def figures(*given, against=0.5):
    return {
        name: np.stack([np.full(3, ours), np.full(3, against)]) for name, ours in zip(((), WIDE, NARROW), given, strict=True)
    }


def test_constants_are_those_asked_for_and_then_the_package_s_again():
    def found():
        return motion.IMAGE_CELL, probabilistic.OFFSET, probabilistic.ANCHORS, probabilistic.WET

    before = found()
    with using((("IMAGE_CELL", 2.0), ("OFFSET", 1.0))):
        cell, offset, anchors, wet = found()
    assert (cell, offset, wet) == (2.0, 1.0, anchors[1])
    assert anchors[3] == pytest.approx(np.log(2) / np.log(101), abs=1e-5)
    assert found() == before


def test_what_is_counted_is_known_to_all():
    forecast, observed = np.float32([[0.5, 0.5, 0.0, 6.0]]), np.float32([[0.5, 0.0, 2.0, 7.0]])
    assert counted(forecast, observed, np.ones_like(forecast, bool)).tolist() == [[2, 1, 1], [1, 1, 0], [1, 0, 0]]
    known = np.array([[True, False, False, False]])
    found = csi(counted(forecast, observed, known))
    assert found[0] == 1
    assert np.isnan(found[1:]).all()


def test_a_record_in_which_a_figure_is_undefined_for_one_counts_for_none():
    none, pysteps = np.nan, [0.5, 0.4, 0.2]
    records = [{"a": np.array([[0.4, none, 0.1], pysteps]), "b": np.array([[0.2, 0.2, none], pysteps])},
               {"a": np.array([[0.6, 0.5, 0.2], pysteps]), "b": np.array([[0.4, 0.1, none], pysteps])}]  # fmt: skip
    found = averaged(records)
    np.testing.assert_allclose(found["a"], [[0.5, 0.5, np.nan], [0.5, 0.4, np.nan]])
    np.testing.assert_allclose(found["b"], [[0.3, 0.1, np.nan], [0.5, 0.4, np.nan]])


@pytest.mark.usefixtures("two")
def test_the_best_on_these_services_is_chosen_and_the_package_s_where_none_is_better():
    assert choose([figures(0.5, 0.6, 0.4), figures(0.5, 0.5, 0.5)]) == WIDE
    assert choose([figures(0.5, 0.6, 0.4), figures(0.5, 0.2, 0.8)]) == NARROW
    assert choose([figures(0.5, 0.5, 0.5)]) == ()


@pytest.mark.usefixtures("two")
def test_a_fold_gets_what_is_best_outside_of_it(tmp_path, monkeypatch, capsys):
    for name in skill_record.KEPT:
        monkeypatch.setitem(BASELINES, name, Persistence)
    for service, seed in (("north", 1), ("south", 2)):
        (tmp_path / service).mkdir()
        write_record(tmp_path / service / "a.nc", rain(frames=10, shape=(70, 66), motion=(1, 2), seed=seed))
    real, asked = skill_constants.score_all, []

    def told(paths, given, candidates):
        found = real(paths, given, candidates)
        asked.append(candidates)
        if len(asked) == 1:  # south likes it wide, north narrow
            found["south"] |= figures(0.5, 0.7, 0.3)
            found["north"] |= figures(0.5, 0.3, 0.7)
        return found

    monkeypatch.setattr(skill_constants, "score_all", told)
    skill_constants.main(["--radar", str(tmp_path), "--baselines", str(tmp_path / "kept")])
    assert asked[0] == {"north": [(), NARROW, WIDE], "south": [(), NARROW, WIDE]}
    assert asked[1] == {"north": [WIDE], "south": [NARROW]}
    out = capsys.readouterr().out
    assert "| MOTION_SIGMA | 20.0 | 30.0 | 10.0 |" in out
    assert "| the package's | 1.000 (1.000) | 1.000 (1.000) | 1.000 (1.000) |" in out


def test_services_without_records_are_told(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        skill_constants.main(["--radar", str(tmp_path), "--baselines", str(tmp_path)])
    assert stopped.value.code == 3
    assert f"no records of {', '.join(s for fold in skill.FOLDS.values() for s in fold)}" in capsys.readouterr().err
