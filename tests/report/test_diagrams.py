"""Diagrams show the scores given, one colour for each forecaster, and nothing where a score is undefined."""

import itertools

import numpy as np
import pytest
from makers import evaluation

from nowcast.forecasters.baselines import BASELINES
from nowcast.report import diagrams
from nowcast.report.diagrams import curves, forecaster_styles, panel, pooled
from nowcast.report.maps import svg
from nowcast.scores import SCORES

NAMES = ("net", *BASELINES)


@pytest.fixture(scope="module")
def scored():
    result = evaluation(names=NAMES, leads=2)
    return result, result.rows(), forecaster_styles(NAMES)


def lines(axes, name):
    """The data of the line with that label."""
    return next(line.get_xydata() for line in axes.lines if line.get_label() == name)


def test_a_forecaster_keeps_its_colour_whoever_stands_beside_it():
    alone, beside = forecaster_styles(["net", "extrapolation"]), forecaster_styles(["net", "other", *BASELINES])
    assert alone["extrapolation"] == beside["extrapolation"]
    assert alone["net"] == beside["net"]
    many = forecaster_styles([*BASELINES, *(f"net {n}" for n in range(12))])
    assert len({(style.colour, style.marker) for style in many.values()}) == len(many)
    assert {style.line for name, style in many.items() if name in BASELINES} == {"--"}


def test_curves_hold_the_scores_and_their_intervals(scored):
    result, rows, _ = scored
    np.testing.assert_allclose(curves(rows, "csi", threshold=5.0)["net"][:, 1], SCORES["csi"](result.tally("net"))[:, 2])
    np.testing.assert_allclose(
        pooled(rows, "pod")["net"][:, :2].T, [result.thresholds, SCORES["pod"].pooled(result.tally("net"))[0]]
    )
    points = curves(rows, "mae")["net"]
    assert (points[:, 2] <= points[:, 1]).all()
    assert (points[:, 1] <= points[:, 3]).all()


def test_an_undefined_score_is_left_out_and_not_drawn_as_0():
    result = evaluation(names=("net",), thresholds=(1e5,), leads=2, num_blocks=1)
    _, axes = panel()
    diagrams.draw_lead(axes, result.rows(), "csi", forecaster_styles(["net"]), label="CSI", threshold=1e5)
    assert np.isnan(lines(axes, "net")[:, 1]).all()


def test_the_performance_diagram_has_pod_over_success_ratio(scored):
    result, rows, how = scored
    axes = diagrams.draw_performance(rows, how).axes[0]
    tally = result.tally("net")
    expected = np.stack([1 - SCORES["far"].pooled(tally)[0], SCORES["pod"].pooled(tally)[0]], axis=-1)
    np.testing.assert_allclose(lines(axes, "net"), expected)
    labels = {text.get_text(): text.xy for text in axes.texts if text.get_color() == how["net"].colour}
    assert set(labels) <= {"0.5", "1", "5", "10"}
    assert {"0.5", "10"} <= set(labels)  # the outermost
    for label, place in labels.items():
        assert place == pytest.approx(expected[["0.5", "1", "5", "10"].index(label)])
    places = list(labels.values())
    assert all(np.abs(np.subtract(a, b)).max() >= diagrams.LABEL_DISTANCE for a, b in itertools.combinations(places, 2))
    by_lead = diagrams.draw_performance(rows, how, threshold=1.0).axes[0]
    np.testing.assert_allclose(lines(by_lead, "net")[:, 1], SCORES["pod"](tally)[:, 1])


def test_the_contours_of_the_performance_diagram_are_those_of_csi(scored):
    """On a contour of CSI c: 1 / (1 / SR + 1 / POD - 1) = c; on a line of bias b: POD = b SR."""
    axes = diagrams.draw_performance(scored[1], scored[2]).axes[0]
    for level, path in zip(axes.collections[0].levels, axes.collections[0].get_paths(), strict=True):
        success, detection = path.vertices.T
        np.testing.assert_allclose(1 / (1 / success + 1 / detection - 1), level, atol=0.01)
    dashed = [line.get_xydata()[1] for line in axes.lines if line.get_label().startswith("_")]
    assert [round(y / x, 3) for x, y in dashed] == [0.25, 0.5, 1, 2, 4]


def test_fss_is_drawn_by_scale_with_the_line_from_which_it_is_useful(scored):
    result, rows, how = scored
    axes = diagrams.draw_fss(rows, how, 1.0).axes[0]
    expected = SCORES["fss"].pooled(result.tally("net"))[0, 1]
    np.testing.assert_allclose(lines(axes, "net"), np.stack([[1.0, 3.0], expected], axis=-1))
    assert axes.lines[-1].get_ydata()[0] == pytest.approx(SCORES["fss_useful"].pooled(result.tally("net"))[0, 1])


@pytest.mark.parametrize(("threshold", "scores"), [(1.0, ("fss",)), (1e5, ("fss", "fss_useful"))])
def test_all_scales_are_on_the_axis_of_fss(threshold, scores):
    """Of one forecaster without the dashed line, and where FSS is undefined at every scale."""
    rows = evaluation(names=("net",), thresholds=(threshold,), leads=1, num_blocks=1).rows()
    axes = diagrams.draw_fss([row for row in rows if row["score"] in scores], forecaster_styles(["net"]), threshold).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "3"]
    assert axes.get_xlim() == pytest.approx((1 / 1.1, 3.3))


def test_the_ratio_of_spectra_is_drawn_by_wavelength(scored):
    result, rows, how = scored
    axes = diagrams.draw_spectrum_ratio(rows, how).axes[0]
    np.testing.assert_allclose(lines(axes, "net")[:, 1], SCORES["spectrum_ratio"].pooled(result.tally("net"))[0])
    assert axes.get_xlim()[0] > axes.get_xlim()[1]  # long waves at the left


def test_the_bias_is_drawn_by_threshold_and_0_is_left_out(scored):
    _, rows, how = scored
    axes = diagrams.draw_bias(rows, how, "mm/h").axes[0]
    np.testing.assert_allclose(lines(axes, "net"), pooled(rows, "frequency_bias")["net"][:, :2])
    nothing = [row | {"value": 0.0} for row in rows if row["forecaster"] == "net"]
    assert np.isnan(lines(diagrams.draw_bias(nothing, how, "mm/h").axes[0], "net")[:, 1]).all()


def test_an_interval_of_the_bias_from_0_on_is_shaded_to_the_lower_edge():
    values = ((1.0, 1.0, 0.5, 1.5), (5.0, 0.5, 0.0, 1.25))
    where = {"forecaster": "net", "against": None, "score": "frequency_bias", "lead_minutes": None}
    rows = [where | dict(zip(("threshold", "value", "low", "high"), each, strict=True)) for each in values]
    axes = diagrams.draw_bias(rows, forecaster_styles(["net"]), "mm/h").axes[0]
    shaded = {tuple(corner) for path in axes.collections[0].get_paths() for corner in path.vertices.tolist()}
    assert shaded == {(1.0, 0.5), (1.0, 1.5), (5.0, diagrams.BIAS_RANGE[0]), (5.0, 1.25)}


def test_panels_of_one_score_share_their_height(scored):
    result, rows, _ = scored
    figure = diagrams.draw_scores(rows, result.thresholds, NAMES, "mm/h")
    assert len({axes.get_ylim() for axes in figure.axes[:4]}) == 1
    top = max(row["value"] for row in rows if row["score"] == "csi" and row["against"] is None)
    assert figure.axes[0].get_ylim()[1] >= top
    assert len(figure.axes[3].get_legend().get_texts()) == len(NAMES)


def row(lead, score="csi", **values):
    where = {"forecaster": "net", "against": None, "score": score, "threshold": 1.0, "lead_minutes": lead, "scale_km": None}
    return where | {"value": np.nan, "low": np.nan, "high": np.nan} | values


def test_the_axis_has_all_lead_times_where_the_score_is_undefined():
    rows = [row(10.0, value=0.25), row(20.0), row(30.0)]
    for shown in (rows, rows[1:]):
        _, axes = panel()
        diagrams.draw_lead(axes, shown, "csi", forecaster_styles(["net"]), label="CSI", threshold=1.0)
        assert axes.get_xlim() == pytest.approx((0, 31.5))


def test_intervals_are_on_the_axes_and_bias_1_is_where_nothing_was_forecast():
    rows = [row(10.0, value=0.25, low=0.1, high=0.75), row(10.0, "frequency_bias", value=0.0), row(20.0, "frequency_bias")]
    assert diagrams.highest(rows, "csi") == pytest.approx(1.05 * 0.75)
    assert diagrams.highest(rows, "frequency_bias") == pytest.approx(1.1)
    assert diagrams.highest(rows[1:], "csi") == 1
    assert diagrams.highest([row(10.0, "frequency_bias", value=2.0, high=40.0)], "frequency_bias") == diagrams.HIGHEST_BIAS
    below = [row(10.0, "correlation", value=0.25, low=-0.5, high=0.75)]
    _, axes = panel()
    diagrams.draw_lead(axes, below, "correlation", forecaster_styles(["net"]), label="correlation", threshold=1.0)
    assert axes.get_ylim()[0] == pytest.approx(-0.525)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a$b$c", "_hidden", "$\\frac{", "雨", "x" * 300, "</text><script>"])
def test_any_name_can_be_drawn_in_a_legend_and_in_svg(name):
    result = evaluation(names=(name, "persistence"), leads=1, num_blocks=1)
    figure = diagrams.draw_scores(result.rows(), result.thresholds, list(result.blocks), "mm/h")
    assert len(figure.axes[3].get_legend().get_texts()) == 2
    assert b"<script>" not in svg(figure)


def test_svg_of_the_same_scores_is_the_same(scored):
    _, rows, how = scored
    assert svg(diagrams.draw_bias(rows, how, "mm/h")) == svg(diagrams.draw_bias(rows, how, "mm/h"))


def test_names_beside_lines_are_apart_and_in_the_order_of_their_lines():
    result = evaluation(names=NAMES, leads=2)
    figure = diagrams.draw_named_lines(result.rows(), "csi", forecaster_styles(NAMES), label="CSI", threshold=1.0)
    (axes,) = figure.axes
    named = {text.get_text(): text.xy[1] for text in axes.texts}
    assert set(named) == set(NAMES)
    assert np.diff(sorted(named.values())).min() >= diagrams.NAME_DISTANCE - 1e-9
    ends = {name: lines(axes, name)[-1, 1] for name in NAMES}
    assert sorted(named, key=named.get) == sorted(NAMES, key=ends.get)
    assert 0 <= min(named.values()) <= max(named.values()) <= 1
