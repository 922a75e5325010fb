"""A network that gives probabilities is scored by them, beside the neighbourhood and forecasts that give none."""

import numpy as np
import pytest
import xarray as xr
from makers import command, rain, write_record
from makers.ensembles import exceedance_sums

from nowcast import forecasters
from nowcast.commands import evaluate as commands_evaluate
from nowcast.errors import DataError
from nowcast.evaluation.evaluate import evaluate
from nowcast.evaluation.probabilities import Probabilities, default_thresholds
from nowcast.forecasters.baselines import Extrapolation, Persistence
from nowcast.forecasters.forecaster import Forecaster
from nowcast.forecasters.neighbourhood import radius_per_frame
from nowcast.netcdf.opening import open_records
from nowcast.prediction.cases import Selection
from nowcast.scores import SCORES
from nowcast.scores.distribution import RATES

EVERYTHING = Selection()
BRIER, CRPS = SCORES["brier"], SCORES["crps"]


class Sure(Forecaster):
    """A network's stand-in: the newest frame, and with `chance` the same probability everywhere but in its `hidden` rows."""

    input_frames, lead_frames = 2, 3

    def __init__(self, chance=None, *, thresholds=(0.5, 2.0), hidden=0, name="net"):
        self.name, self.chance, self.hidden, self.asked = name, chance, hidden, []
        self.thresholds = thresholds if chance is not None else ()
        self.is_probabilistic = chance is not None

    def forecast(self, past, num_leads):
        return np.repeat(past[:, -1:], num_leads, axis=1)

    def forecast_and_exceedance(self, past, num_leads, thresholds):
        self.asked.append((past.shape, num_leads, thresholds))
        out = np.full((len(past), num_leads, len(thresholds), *past.shape[2:]), self.chance, np.float32)
        out[..., : self.hidden, :] = np.nan
        return self.forecast(past, num_leads), out


@pytest.fixture
def record(tmp_path):
    return open_records([write_record(tmp_path / "observed.nc", rain(frames=12, shape=(20, 24)))])[0]


def score(record, *sources, thresholds=(0.5, 2.0)):
    sources = {source.name: source for source in (*sources, Persistence(), Extrapolation())}
    return evaluate(sources, [record], selection=EVERYTHING, thresholds=thresholds)


def test_a_constant_probability_scores_by_hand(record):
    result = score(record, Sure(0.3))
    sums = result.total("net", "probabilities").pooled()
    rate = sums.num_observed.sum(axis=-1) / sums.num_pairs
    np.testing.assert_allclose(BRIER(sums), rate * 0.7**2 + (1 - rate) * 0.3**2, rtol=1e-6)
    assert (sums.num_forecast[..., 30] == sums.num_pairs).all()
    for name in result.blocks:
        pairs = result.total(name, "probabilities").num_pairs
        np.testing.assert_array_equal(pairs, np.repeat(result.total(name).num_pairs[:, None], 2, axis=1))


def test_the_network_is_asked_for_the_thresholds_that_are_scored(record):
    net = Sure(0.3)
    result = score(record, net, thresholds=(1.0, 5.0, 7.5))
    assert net.asked == [((1, 2, 20, 24), 3, tuple(sorted({1.0, 5.0, 7.5, *RATES})))] * result.num_cases
    assert (result.total("net", "probabilities").num_pairs > 0).all()


def test_its_field_scores_as_it_does_without_probabilities(record):
    both, plain = score(record, Sure(0.3)), score(record, Sure())
    assert not plain.forecasters_with("probabilities")
    for name in both.blocks:
        for part, array in both.total(name).arrays().items():
            np.testing.assert_array_equal(array, plain.total(name).arrays()[part])
    everybody = ["net", "persistence", "extrapolation"]
    assert [both.forecasters_with(kind) for kind in ("pairs", "probabilities", "distribution")] == [everybody] * 3
    assert both.forecasters_with("members") == ["persistence"]  # the others state probabilities


def test_the_crps_of_a_network_is_that_of_its_distribution(record):
    result = score(record, Sure(0.3))
    sums, probabilities = result.total("net", "distribution"), result.total("net", "probabilities")
    np.testing.assert_allclose(sums.sum_brier[:, RATES.index(0.5)], probabilities.sum_brier[:, 0], rtol=1e-6)
    observed = np.stack([record.read(range(n + 4, n + 7)) for n in range(result.num_cases)])
    certain = result.total("persistence", "distribution")
    assert CRPS(certain) == pytest.approx(SCORES["mae"](result.total("persistence")), rel=0.1)
    assert sums.num_pairs.sum() <= observed.size
    rows = [row for row in result.rows() if row["score"] == "crps" and row["lead_minutes"] is None and not row["against"]]
    assert {row["forecaster"]: row["value"] for row in rows}["net"] == pytest.approx(CRPS.pooled(sums)[0])
    assert not [row for row in result.rows() if row["forecaster"] == "net" and row["score"] == "crps_fair"]


def test_a_case_is_forecast_once_for_its_field_and_its_probabilities(record, monkeypatch):
    net, made = Sure(0.3), []
    monkeypatch.setattr(net, "forecast", lambda past, num_leads: made.append(1) or Sure.forecast(net, past, num_leads))
    result = score(record, net)
    assert len(made) == len(net.asked) >= result.num_cases


def test_extrapolation_stands_beside_it_by_its_neighbourhood_and_persistence_as_it_is(record):
    result = score(record, Sure(0.3))
    method, expected = Extrapolation().on_record(record, record.time_step), 0
    for first in range(result.num_cases):
        frames = record.read(range(first, first + 7))
        chances = method.forecast_and_exceedance(frames[None, :4], 3, (0.5, 2.0))[1][0].swapaxes(0, 1)
        expected = expected + exceedance_sums(chances, frames[4:], thresholds=(0.5, 2.0))["probabilities"]
    found = result.total("extrapolation", "probabilities")
    for part in ("num_forecast", "num_observed", "sum_brier"):
        np.testing.assert_allclose(found.arrays()[part], expected.arrays()[part], rtol=1e-9, err_msg=part)
    members, field = result.total("persistence", "probabilities"), result.total("persistence")
    np.testing.assert_allclose(members.sum_brier, field.misses + field.false_alarms)


def test_the_neighbourhood_grows_by_half_a_kilometre_a_minute(record):
    assert Extrapolation().on_record(record, record.time_step).growth == pytest.approx(0.5 * 5)
    assert Extrapolation().on_record(record, 3 * record.time_step).growth == pytest.approx(0.5 * 15)
    assert radius_per_frame(5, (4.0, 1.0)) == pytest.approx(0.5 * 5 / 2)
    assert radius_per_frame(15, (np.nan, np.nan)) == 0.5 * 15  # as cells of 1 km
    net = Sure()
    assert type(net.on_record(record, record.time_step)) is Sure


def test_deterministic_forecasts_are_not_asked_for_probabilities(record, monkeypatch):
    def never(*_):
        raise AssertionError("an evaluation of deterministic forecasts must not get slower")

    monkeypatch.setattr(Extrapolation, "forecast_and_exceedance", never)
    assert score(record, Sure()).forecasters_with("probabilities") == []


def test_the_common_mask_is_where_the_probabilities_are_known_too(record):
    result = score(record, Sure(0.3, hidden=7))
    whole = score(record, Sure(0.3))
    assert (result.total("persistence").num_pairs < whole.total("persistence").num_pairs).all()
    assert (result.total("persistence").num_pairs <= result.num_cases * 13 * 24).all()


def test_probabilities_that_are_all_missing_are_named(record):
    with pytest.raises(DataError, match=r"^net forecasts nothing but missing values in all 6 cases: nothing can be scored\."):
        score(record, Sure(0.3, hidden=20))


def test_each_forecaster_is_asked_for_its_own_thresholds_and_their_positions_are_found():
    matched = {"file": ((5.0,), (1,)), "network": ((1.0, 5.0), (0, 1))}
    scored = Probabilities((1.0, 5.0), 1, matched, frozenset({"file"}), (0.1, 2.0))
    assert [scored.thresholds_of(name) for name in ("file", "network", "plain")] == [(5.0,), (0.1, 1.0, 2.0, 5.0), ()]
    positions = {name: [scored.position(name, column) for column in (0, 1)] for name in matched}
    assert positions == {"file": [None, 0], "network": [1, 3]}


def test_the_thresholds_of_the_first_that_gives_probabilities_are_scored_unless_asked():
    nets = {"a": Sure(), "b": Sure(0.3, thresholds=(4.0, 2.0)), "c": Sure(0.1), "extrapolation": Extrapolation()}
    assert default_thresholds(nets.values()) == (2.0, 4.0)
    assert default_thresholds([Extrapolation(), Sure()]) == ()


@pytest.mark.slow
def test_the_report_says_and_shows_it(record, tmp_path, monkeypatch, undrawn):
    opened = forecasters.open_forecaster
    nets = {"net": Sure(0.3), "other": Sure(0.6, name="other")}
    monkeypatch.setattr(commands_evaluate, "open_forecaster", lambda name, **options: nets.get(name) or opened(name, **options))
    monkeypatch.chdir(tmp_path)
    code, out, err = command("evaluate", "net", "other", "--observations", "observed.nc", "--output", "scores", "-q")
    assert (code, err) == (0, "")
    assert "'net', 'other' and extrapolation give probabilities beside the field: their Brier scores, ROC areas and CRPS" in out
    report = (tmp_path / "scores" / "report.html").read_text()
    for title in ("Reliability ≥ 0.5 mm/h", "ROC ≥ 2 mm/h", "Probabilities of ≥ 2 mm/h, all leads pooled"):
        assert title in report
    assert "extrapolation is the fraction of cells with the event in a disc that grows with lead time" in report
    with xr.open_dataset(tmp_path / "scores" / "scores.nc", engine="netcdf4") as scores:
        assert scores.threshold.values.tolist() == [0.5, 2.0]
        assert scores.has_probabilities.values.tolist() == [1] * len(scores.forecaster)
        assert np.isfinite(scores.brier).all()


def test_differences_in_brier_score_are_those_to_the_neighbourhood(record):
    result = score(record, Sure(0.3))
    (row,) = (
        row for row in result.rows()
        if (row["score"], row["against"], row["lead_minutes"], row["threshold"]) == ("brier", "extrapolation", None, 0.5)
        and row["forecaster"] == "net"
    )  # fmt: skip
    sides = [BRIER(result.total(name, "probabilities").pooled())[0, 0] for name in ("net", "extrapolation")]
    assert row["value"] == pytest.approx(sides[0] - sides[1])


@pytest.mark.parametrize("thresholds", [(0.5, 1.0, 5.0), (0.1, 0.5, 1.0, 2.0), (1.0,), (0.7, 5.0)])
def test_the_map_of_probabilities_is_of_the_threshold_that_it_names(record, thresholds):
    class Ladder(Sure):
        """Gives each threshold a probability of its own."""

        def forecast_and_exceedance(self, past, num_leads, thresholds):
            field, out = super().forecast_and_exceedance(past, num_leads, thresholds)
            return field, out * 0 + (1 / (1 + np.array(thresholds, np.float32)))[:, None, None]

    sources = {"net": Ladder(1.0, thresholds=thresholds), "persistence": Persistence()}
    result = evaluate(sources, [record], selection=EVERYTHING, thresholds=thresholds, examples=True)
    for example in result.examples:
        assert example.threshold in thresholds
        np.testing.assert_allclose(example.probabilities["net"], 1 / (1 + example.threshold), rtol=1e-6)
