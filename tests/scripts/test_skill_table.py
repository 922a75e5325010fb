"""scripts/skill/table.py: averages, ratios and goals equal those by hand, and an open goal is never called met."""

import math

import pytest
import table as skill_table


def values(**by_forecaster):
    """Every figure of a forecaster has the value given for it, unless a dict says otherwise; the default is 0.5."""
    found = {}
    for name in skill_table.FORECASTERS:
        given = by_forecaster.get(name, 0.5)
        given = given if isinstance(given, dict) else dict.fromkeys(skill_table.FIGURES, given)
        found[name] = dict.fromkeys(skill_table.FIGURES, 0.5) | given
    return found


def scored(service, record, found, *, fold="A", **cases):
    cases = {"network": "net", "seen": [], "step_minutes": 5.0, "record_minutes": 5.0, "leads": 12} | cases
    return skill_table.Scored(fold, service, record, cases, 6, found)


def test_records_are_averaged_before_services():
    records = [scored("a", "1", values(network=0.2, pysteps=0.1)), scored("a", "2", values(network=0.6, pysteps=0.3))]
    records.append(scored("b", "1", values(network=0.4, pysteps=0.8)))
    summary = skill_table.summarise(records)
    assert summary.services["a"]["network"]["CSI≥1"] == pytest.approx(0.4)
    assert summary.overall["network"]["CSI≥1"] == pytest.approx(0.4)
    assert summary.overall["pysteps"]["CSI≥1"] == pytest.approx((0.2 + 0.8) / 2)
    assert summary.mean_ratio("pysteps", "CSI≥1") == pytest.approx((0.4 / 0.2 + 0.4 / 0.8) / 2)
    assert summary.ratio_of_means("pysteps", "CSI≥1") == pytest.approx(0.4 / 0.5)


def test_what_one_forecaster_has_undefined_is_left_out_for_all():
    dry = values(network={"CSI≥1": math.nan, "MAE": 0.1}, pysteps={"CSI≥1": 0.0, "MAE": 0.2})
    summary = skill_table.summarise([scored("a", "dry", dry), scored("a", "wet", values(network=0.3, pysteps=0.6))])
    assert summary.services["a"]["pysteps"]["CSI≥1"] == pytest.approx(0.6)
    assert summary.services["a"]["network"]["MAE"] == pytest.approx(0.2)
    only_dry = skill_table.summarise([scored("a", "dry", dry)])
    assert math.isnan(only_dry.mean_ratio("pysteps", "CSI≥1"))
    assert skill_table.number(only_dry.mean_ratio("pysteps", "CSI≥1")) == "–"


def results(records, *, complete=True):
    return [goal.result for goal in skill_table.goals(records, skill_table.summarise(records), complete=complete)]


def test_goals_are_met_at_their_bounds_and_missed_below():
    network = {"CSI≥0.5": 0.5525, "CSI≥1": 0.5525, "CSI≥5": 0.525, "MSE": 0.4215, "bias≥5": 1.3}
    sprog = {"CSI≥0.5": 0.5, "CSI≥1": 0.5, "CSI≥5": 0.5}
    good = scored("a", "1", values(network=network, sprog=sprog), record_minutes=2.0)
    assert results([good]) == ["met"] * 10
    assert results([good], complete=False) == ["open"] * 10
    for figure, goals in (("CSI≥0.5", [0, 4, 7, 9]), ("CSI≥5", [2, 6]), ("MSE", [3]), ("bias≥5", [8])):
        worse = network | {figure: 1.4 if figure in ("MSE", "bias≥5") else 0.4}
        missed = results([scored("a", "1", values(network=worse, sprog=sprog), record_minutes=2.0)])
        assert [n for n, result in enumerate(missed) if result == "missed"] == goals


def test_goals_without_figures_are_open_until_everything_is_scored():
    assert results([], complete=False) == ["open"] * 10
    assert results([], complete=True) == ["missed"] * 10


def test_one_lost_service_misses_the_goal_and_is_named():
    records = [scored("a", "1", values(network=0.9)), scored("b", "1", values(network={"CSI≥1": 0.4}))]
    found = skill_table.goals(records, skill_table.summarise(records), complete=True)
    assert (found[7].found, found[7].result) == ("lowest 0.800: b CSI≥1 0.800", "missed")
    assert found[9].result == "missed"  # no record of two-minute steps, nor a nearly dry one: nothing to show


def test_figures_are_read_from_the_pooled_rows_of_the_first_forecaster():
    def row(score, value, *, forecaster="net", lead=None, threshold=None, scale=None, against=None):
        names = ("forecaster", "against", "lead_minutes", "threshold", "scale_km", "score", "value")
        return dict(zip(names, (forecaster, against, lead, threshold, scale, score, value), strict=True))

    rows = [
        row("csi", 0.3, threshold=1.0),
        row("csi", 0.9, threshold=1.0, lead=5.0),
        row("csi", 0.1, threshold=1.0, against="x"),
    ]
    rows += [row("fss", 0.7, threshold=1.0, scale=10.0), row("mse", None), row("csi", 0.2, threshold=1.0, forecaster="sprog")]
    found = skill_table.figures({"scores": rows, "about": {"forecasters": {"net": {}, "sprog": {}}}})
    assert found["network"]["CSI≥1"] == 0.3
    assert found["network"]["FSS≥1"] == 0.7
    assert found["sprog"]["CSI≥1"] == 0.2
    assert math.isnan(found["network"]["MSE"])
