"""scripts/skill/constants.py chooses constants for a fold by the services outside it, and leaves the package as it was."""

import constants as skill_constants
import numpy as np
import pytest
import record as skill_record
import services as skill
from constants import PACKAGE, SMALLEST, Constants, averaged, choose, count_case, counted, csi, halved, untrained
from makers import ROOT, rain, write_record

from nowcast.forecasters.baselines import BASELINES, Persistence
from nowcast.motion import MotionConstants

WIDE, NARROW = (("motion.smoothing", 30.0),), (("motion.smoothing", 10.0),)


@pytest.fixture
def two(monkeypatch):
    """Two services, one to a fold, and a single constant."""
    monkeypatch.setattr(skill_constants, "FOLDS", {"A": ("north",), "B": ("south",)})
    monkeypatch.setattr(skill_constants, "CONSTANTS", {"motion.smoothing": skill_constants.CONSTANTS["motion.smoothing"]})


def figures(*given, half=0.3, kept=0.5):
    """Of the network, the kept two, and the network at half the resolution."""
    names = (), WIDE, NARROW
    return {name: np.repeat([[own], [kept], [kept], [half]], 3, axis=1) for name, own in zip(names, given, strict=True)}


def test_a_network_has_the_chosen_constants_and_the_package_keeps_its_own():
    constants = PACKAGE.having((("motion.pixel_widths", (2, 2)), ("matching.offset", 1.0)))
    network = untrained(ROOT / "configs" / "radar.toml", constants)
    assert network.motion_constants == MotionConstants(pixel_widths=(2, 2))
    assert network.transform.offset == 1.0
    assert network.model.wet_value == network.model.anchors[1]
    assert network.model.anchors[3] == pytest.approx(np.log(2) / np.log(101), abs=1e-5)
    assert Constants() == PACKAGE


def test_what_is_counted_is_known_to_all():
    observed = np.float32([[0.5, 0.0, 2.0, 7.0]])
    forecasts = np.float32([[0.5, 0.5, 0.0, 6.0]]), np.float32([[0.5, 0.5, 2.0, 0.0]])
    assert counted(observed, *forecasts)[0].tolist() == [[2, 1, 1], [1, 1, 0], [1, 0, 0]]
    forecasts[1][0, 1:] = np.nan
    found = csi(counted(observed, *forecasts))
    assert (found[:, 0] == 1).all()
    assert np.isnan(found[:, 1:]).all()


def test_half_the_resolution_is_the_mean_of_what_is_known():
    field = np.float32([[1, 2, 3, 4, 9], [3, 4, np.nan, np.nan, 9], [np.nan, np.nan, 0, 0, 9], [np.nan, 5, 0, 1, 9]])
    np.testing.assert_array_equal(halved(field[None]), np.float32([[[2.5, 3.5], [np.nan, 0.25]]]))


class Asked:
    """A network that forecasts what it was last shown, and remembers of which grid."""

    def __init__(self):
        self.grids = []

    def forecast(self, past, num_leads):
        self.grids.append(past.shape)
        return np.repeat(past[:, -1:], num_leads, axis=1)


@pytest.mark.parametrize(("cells", "grids"), [(SMALLEST, [SMALLEST, SMALLEST // 2]), (SMALLEST - 1, [SMALLEST - 1])])
def test_small_grids_are_not_halved(cells, grids):
    fields, network = rain(frames=6, shape=(cells, cells), motion=(0, 0)), Asked()
    found = count_case(network, fields[:4], fields[4:], [fields[4:], 0 * fields[4:]])
    assert network.grids == [(1, 4, size, size) for size in grids]
    own = csi(found)
    assert own[:3, 0].tolist() == [1, 1, 0], "the network's, and those that are kept"
    assert (own[3, 0] == 1) if len(grids) == 2 else np.isnan(own[3]).all()


def test_a_record_in_which_a_figure_is_undefined_for_one_counts_for_none():
    none, kept = np.nan, [0.5, 0.4, 0.2]
    records = [{"a": np.array([[0.4, none, 0.1], kept, [none] * 3]), "b": np.array([[0.2, 0.2, none], kept, kept])},
               {"a": np.array([[0.6, 0.5, 0.2], kept, kept]), "b": np.array([[0.4, 0.1, none], kept, kept])}]  # fmt: skip
    found = averaged(records)
    np.testing.assert_allclose(found["a"], [[0.5, 0.5, np.nan], [0.5, 0.4, np.nan], kept])
    np.testing.assert_allclose(found["b"], [[0.3, 0.1, np.nan], [0.5, 0.4, np.nan], kept])


@pytest.mark.usefixtures("two")
def test_the_best_on_these_services_is_chosen_and_the_package_s_where_none_is_better():
    assert choose([figures(0.5, 0.6, 0.4), figures(0.5, 0.5, 0.5)]) == WIDE
    assert choose([figures(0.5, 0.6, 0.4), figures(0.5, 0.2, 0.8)]) == NARROW
    assert choose([figures(0.5, 0.5, 0.5)]) == ()
    at_half = figures(0.5, 0.49, 0.5)
    at_half[WIDE][-1] = 0.4
    assert choose([at_half]) == WIDE, "what is lost as they are is won at half their resolution"
    assert choose([figures(0.5, 0.4, 0.4, half=np.nan), figures(0.5, 0.5, 0.5)]) == (), "undefined at half, for all alike"


@pytest.mark.slow
@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("both_like", [(), (("matching.offset", 1.0),)])
def test_a_fold_gets_what_is_best_outside_of_it(both_like, tmp_path, monkeypatch, capsys):
    offset = skill_constants.Constant("matching.offset", (0.5, 1.0))
    monkeypatch.setitem(skill_constants.CONSTANTS, "matching.offset", offset)
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
            for service, likes in (("south", (0.7, 0.3)), ("north", (0.3, 0.7))):
                found[service] |= figures(0.5, *likes)
                found[service][("matching.offset", 1.0),] = figures(0.6 if both_like else 0.4, 0, 0)[()]
        return found

    monkeypatch.setattr(skill_constants, "score_all", told)
    skill_constants.main(["--radar", str(tmp_path), "--baselines", str(tmp_path / "kept")])
    every = [(), NARROW, WIDE, (("matching.offset", 1.0),)]
    assert asked[0] == {"north": every, "south": every}
    assert asked[1] == ({"north": [WIDE + both_like], "south": [NARROW + both_like]} if both_like else {}), "known, not asked"
    out = capsys.readouterr().out
    assert "| motion.smoothing | 20.0 | 30.0 | 10.0 |" in out
    if not both_like:
        for name in skill_record.KEPT:
            assert f"| chosen without the fold | {name} | 0.600 (0.600) | 0.600 (0.600) | 0.600 (0.600) |" in out


def test_services_without_records_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        skill_constants.main(["--radar", str(tmp_path), "--baselines", str(tmp_path)])
    assert stopped.value.code == 3
    assert f"no records of {', '.join(s for fold in skill.FOLDS.values() for s in fold)}" in capsys.readouterr().err
