"""The sentences below the table: each is written only where the scores support it."""

import math
import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nowcast.evaluation.result import Evaluation
from nowcast.quantity import RAIN_RATE
from nowcast.report.sentences import findings, headline, number
from nowcast.scores import Setup, tallies

THRESHOLDS = (1.0, 5.0)


def evaluation(forecasts, observed, *, days=1, thresholds=THRESHOLDS, spacing=(1.0, 1.0)):
    """The same case on each of so many days, every 5 minutes."""
    result = Evaluation(tuple(5.0 * n for n in range(1, len(observed) + 1)), thresholds, RAIN_RATE, ["a"], num_cases=days)
    found = tallies(forecasts, observed, np.isfinite(observed), Setup(thresholds, spacing))
    for name, tally in found.items():
        for day in range(days):
            result.add(name, ("a", f"day {day}"), tally)
    return result


def by_lead(*errors, shape=(8, 8)):
    """A forecast of half-wet fields of 9 mm/h which misses so many wet rows at each lead."""
    observed = np.zeros((len(errors), *shape), np.float32)
    observed[:, :4] = 9
    forecast = observed.copy()
    for lead, rows in enumerate(errors):
        forecast[lead, :rows] = 0
    return forecast, observed


def test_a_sentence_gives_how_long_a_forecaster_is_better_at_each_threshold():
    forecast, observed = by_lead(1, 1, 2, 3)
    baseline, _ = by_lead(2, 2, 3, 2)
    weak = np.where(np.arange(4)[:, None, None] < 1, forecast, np.minimum(forecast, 3))  # under 5 mm/h from the second lead on
    said = findings(evaluation({"net": weak, "persistence": baseline}, observed, days=3))
    assert said == ["'net' has a higher CSI than persistence up to 15 minutes at 1 mm/h, up to 5 minutes at 5 mm/h."]


def test_thresholds_at_which_a_forecaster_is_never_better_come_last():
    baseline, observed = by_lead(1)
    false_alarms = observed.copy()
    false_alarms[:, 4:7] = 2
    said = findings(evaluation({"net": false_alarms, "persistence": baseline}, observed, days=3))
    assert said[0] == "'net' has a higher CSI than persistence up to 5 minutes at 5 mm/h, not at all at 1 mm/h."


@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        ((1, 1, 1, 1), (2, 2, 2, 2), "up to 20 minutes at every threshold"),
        ((2, 1, 1, 2), (2, 2, 2, 2), "from 10 to 15 minutes at every threshold"),
        ((2, 2, 1, 2), (2, 2, 2, 2), "at 15 minutes at every threshold"),
        ((1, 2, 1, 1), (2, 2, 2, 2), "up to 5 and from 15 to 20 minutes at every threshold"),
        ((1, 2, 1, 2, 1, 2), (2,) * 6, "at 3 of 6 lead times up to 25 minutes at every threshold"),
        ((2, 2, 2, 2), (2, 2, 2, 2), "at no lead time"),
    ],
)
def test_a_sentence_lists_the_lead_times_at_which_one_is_better(mine, theirs, said):
    (forecast, observed), (baseline, _) = by_lead(*mine), by_lead(*theirs)
    result = evaluation({"net": forecast, "extrapolation": baseline}, observed, days=2)
    assert findings(result) == [f"'net' has a higher CSI than extrapolation {said}."]


def test_with_five_days_the_sentence_gives_its_confidence():
    rng = np.random.default_rng(0)
    result = Evaluation((5.0, 10.0), (1.0,), RAIN_RATE, ["a"], num_cases=8)
    for day in range(8):
        observed = rng.gamma(0.5, 4, (2, 12, 12))
        good, bad = observed + 0.1, observed + rng.normal(0, 3, observed.shape)
        good[1] = bad[1] + (0.5 if day % 2 else -0.4)  # at the second lead as good as the other, by and large
        for name, tally in tallies({"net": good, "persistence": bad}, observed, np.isfinite(observed), Setup((1.0,))).items():
            result.add(name, ("a", str(day)), tally)
    (said,) = [text for text in findings(result) if "CSI" in text]
    assert said == (
        "'net' has a higher CSI than persistence up to 10 minutes at 1 mm/h; with 95 % confidence up to 5 minutes at 1 mm/h."
    )


@pytest.mark.parametrize(("days", "said"), [(4, "too few days for"), (10, "too few days with such events for")])
def test_the_headline_says_why_there_is_no_interval(days, said):
    """Rain on one day alone: most resamples of ten days with it, a third of them without."""
    (forecast, observed), (baseline, _) = by_lead(1), by_lead(2)
    result = Evaluation((5.0,), (1.0,), RAIN_RATE, ["a"], num_cases=days)
    for day in range(days):
        wet = float(day == 0)
        fields = {"net": forecast * wet, "persistence": baseline * wet}
        for name, tally in tallies(fields, observed * wet, np.isfinite(observed), Setup((1.0,))).items():
            result.add(name, ("a", str(day)), tally)
    assert f"(+0.250; {said} a confidence interval)" in headline(result, result.rows())


def test_thresholds_without_any_confidence_are_left_out_of_it():
    """At 5 mm/h it is better on one day of six and as good on the others, at 1 mm/h better on all."""
    (better, observed), (baseline, _) = by_lead(1, 1), by_lead(2, 2)
    result = Evaluation((5.0, 10.0), THRESHOLDS, RAIN_RATE, ["a"], num_cases=6)
    lighter = np.where(baseline > 0, baseline, np.minimum(better, 2))
    for day in range(6):
        forecasts = {"net": lighter if day else better, "persistence": baseline}
        for name, tally in tallies(forecasts, observed, np.isfinite(observed), Setup(THRESHOLDS)).items():
            result.add(name, ("a", str(day)), tally)
    assert findings(result)[0] == (
        "'net' has a higher CSI than persistence up to 10 minutes at every threshold; "
        "with 95 % confidence up to 10 minutes at 1 mm/h."
    )


def test_confidence_names_the_thresholds_it_is_for():
    forecast, observed = by_lead(1, 1, 2)
    baseline, _ = by_lead(2, 2, 2)
    always = evaluation({"net": forecast, "persistence": baseline}, observed, days=6)
    assert findings(always) == [
        "'net' has a higher CSI than persistence up to 10 minutes at every threshold, everywhere with 95 % confidence."
    ]
    weak = np.where(observed > 0, np.float32(3), forecast)  # once it is better at 1 mm/h alone
    other = evaluation({"net": np.minimum(weak, 3), "persistence": baseline}, observed, days=6)
    assert findings(other)[0] == (
        "'net' has a higher CSI than persistence up to 15 minutes at 1 mm/h, not at all at 5 mm/h, "
        "everywhere with 95 % confidence."
    )


def test_a_better_score_by_smoothing_is_reported_with_the_lost_power():
    rng = np.random.default_rng(0)
    observed = np.stack([gaussian_filter(field, 1.5) * 4 for field in rng.gamma(0.1, 4, (3, 80, 80))])
    moved = np.roll(observed, 4, axis=2)
    smooth = np.stack([gaussian_filter(field, 6) for field in moved])
    said = [text for text in findings(evaluation({"net": smooth, "extrapolation": moved}, observed, days=3)) if "MSE" in text]
    assert len(said) == 1
    assert re.fullmatch(
        r"Part of the low MSE of 'net', [\d.]+ \(extrapolation [\d.]+\), comes from smoothing: .*"
        r"it forecasts \d+ % of the observed area at 5 mm/h \(theirs: 100 %\); "
        r"it has no detail finer than \d+ km \(theirs: \d+ km\).",
        said[0],
    )
    unknown = findings(evaluation({"net": smooth, "extrapolation": moved}, observed, days=3, spacing=(np.nan, np.nan)))
    assert "% of the observed area" in unknown[-1]
    assert "detail" not in unknown[-1]
    several = findings(evaluation({"net": smooth, "extrapolation": moved}, observed, days=3, thresholds=(1, 5, 6)))[-1]
    assert "forecasts 0 % of the observed area at 5 mm/h (theirs: 100 %), 0 % at 6 mm/h (100 %); it has" in several


def test_a_win_without_loss_and_a_loss_without_a_win_are_no_smooth_wins():
    forecast, observed = by_lead(0, 0)
    worse, _ = by_lead(3, 3)
    for forecasts in ({"net": forecast, "persistence": worse}, {"net": worse, "persistence": forecast}):
        assert not [text for text in findings(evaluation(forecasts, observed, days=2)) if "MSE" in text]


def test_baselines_are_compared_among_themselves_only_where_they_are_alone():
    forecast, observed = by_lead(1, 1)
    names = ("extrapolation", "persistence")
    alone = findings(evaluation(dict.fromkeys(names, forecast), observed, days=2))
    assert alone == ["extrapolation has a higher CSI than persistence at no lead time."]
    beside = findings(evaluation(dict.fromkeys((*names, "net"), forecast), observed, days=2))
    assert [text.split(" has ")[0] for text in beside] == ["'net'", "'net'"]


def test_a_single_case_and_thresholds_without_events_are_mentioned():
    forecast, observed = by_lead(1, 1)
    said = findings(evaluation({"persistence": forecast}, observed, thresholds=(1.0, 10.0, 20.0)))
    assert said == [
        "Only one case was scored: other cases can give very different scores.",
        "10 or 20 mm/h or more was never observed: there, every forecast of it is a false alarm.",
    ]


# The first sentence of the report


def test_the_report_begins_with_what_is_better_by_how_much_and_until_when():
    forecast, observed = by_lead(1, 1, 2, 3)
    worse, _ = by_lead(2, 2, 3, 2)
    dry, _ = by_lead(4, 4, 4, 4)
    result = evaluation({"net": forecast, "persistence": dry, "extrapolation": worse}, observed)
    assert headline(result, result.rows()) == (
        "At 1 mm/h, 'net' is better than extrapolation, the best of 2 baselines, with a CSI of 0.562 against 0.438 "
        "(+0.125; too few days for a confidence interval), all lead times taken together; lead by lead it is better up to 15 "
        "minutes ahead."
    )


@pytest.mark.parametrize(
    ("mine", "said"),
    [((1, 1), "better than persistence, with"), ((3, 3), "worse than persistence, with"), ((2, 2), "about as good as")],
)
def test_the_first_sentence_says_better_worse_or_as_good(mine, said):
    (forecast, observed), (baseline, _) = by_lead(*mine), by_lead(2, 2)
    result = evaluation({"net": forecast, "persistence": baseline}, observed, days=6)
    sentence = headline(result, result.rows())
    assert f"'net' is {said}" in sentence
    difference = (4 - mine[0]) / 4 - 0.5
    assert f"({difference:+.3f}, 95 % confidence {difference:+.3f} to {difference:+.3f})".replace("-", "−") in sentence
    assert sentence.endswith("at every lead time, up to 10 minutes." if mine[0] < 2 else "better at no lead time.")


def test_a_difference_within_its_interval_is_called_as_good():
    """On five days of six it is a little better, on one much worse: nobody knows which is."""
    (better, observed), (middle, _), (bad, _) = by_lead(1), by_lead(2), by_lead(4)
    result = Evaluation((5.0,), (1.0,), RAIN_RATE, ["a"], num_cases=6)
    for day in range(6):
        forecasts = {"net": better if day else bad, "persistence": middle}
        for name, tally in tallies(forecasts, observed, np.isfinite(observed), Setup((1.0,))).items():
            result.add(name, ("a", str(day)), tally)
    assert "'net' is about as good as persistence" in headline(result, result.rows())


def test_one_forecaster_alone_and_baselines_alone_have_a_first_sentence():
    forecast, observed = by_lead(1, 1)
    alone = evaluation({"net": forecast}, observed)
    assert headline(alone, alone.rows()) == "'net' has a CSI of 0.750 at 1 mm/h; nothing was scored beside it."
    worse, _ = by_lead(3, 3)
    both = evaluation({"persistence": worse, "extrapolation": forecast}, observed)
    assert headline(both, both.rows()).startswith("At 1 mm/h, extrapolation is better than persistence, with")


@pytest.mark.parametrize("rain", [{"net": 0, "persistence": 0}, {"net": 9, "persistence": 0}, {"net": 0, "persistence": 9}])
def test_days_without_rain_compare_no_csi(rain):
    """CSI is 0 or undefined there: neither is better, and something was scored."""
    observed = np.zeros((2, 8, 8), np.float32)
    never = evaluation({name: observed + value for name, value in rain.items()}, observed, days=2)
    assert headline(never, never.rows()) == (
        "1 mm/h or more was never observed: no forecast can have a CSI above 0 there, so none is better than another."
    )
    assert findings(never) == ["1 or 5 mm/h or more was never observed: there, every forecast of it is a false alarm."]


def test_thresholds_never_observed_are_left_out_of_comparisons():
    (forecast, observed), (baseline, _) = by_lead(1, 1), by_lead(2, 2)
    result = evaluation({"net": forecast, "persistence": baseline}, observed, days=2, thresholds=(1.0, 5.0, 50.0))
    assert findings(result)[-1] == "'net' has a higher CSI than persistence up to 10 minutes at 1 and 5 mm/h."


def test_the_interval_of_a_baseline_before_a_less_simple_one_is_found():
    """Rows hold the extrapolation minus persistence, and the sentence says the opposite difference."""
    (better, observed), (middle, _), (bad, _) = by_lead(1), by_lead(2), by_lead(4)
    result = Evaluation((5.0,), (1.0,), RAIN_RATE, ["a"], num_cases=6)
    for day in range(6):
        forecasts = {"persistence": better if day < 4 else middle, "extrapolation": middle if day < 5 else bad}
        for name, tally in tallies(forecasts, observed, np.isfinite(observed), Setup((1.0,))).items():
            result.add(name, ("a", str(day)), tally)
    (row,) = (row for row in result.rows() if row["against"] and row["score"] == "csi" and row["lead_minutes"] is None)
    low, high = (f"{-row[end]:+.3f}" for end in ("high", "low"))
    assert low != high
    assert f"(+{-row['value']:.3f}, 95 % confidence {low} to {high})" in headline(result, result.rows())


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.1234, ".3f", "0.123"),
        (0.0005001, ".3f", "0.001"),
        (0.00042, ".3f", "0.0004"),
        (-0.00042, ".3f", "-0.0004"),
        (0.00003, ".4f", "3e-05"),
        (0.00042, "+.3f", "+0.0004"),
        (-0.00042, "+.3f", "-0.0004"),
        (-0.0, ".3f", "0.000"),
        (-0.0, "+.3f", "+0.000"),
        (-2.2e-16, "+.3f", "+0.000"),  # the rounding error of sums
        (math.nan, ".3f", "–"),
    ],
)
def test_only_0_looks_like_0_and_it_has_no_minus(value, form, text):
    assert number(value, form) == text
