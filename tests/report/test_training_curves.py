"""training.png shows the course of a training and what the network is measured by, also from old events."""

import numpy as np
import pytest

from nowcast.report.maps import drawn
from nowcast.report.training_curves import draw_training

OLD = [
    {"step": 5, "split": "training", "loss": 0.5},
    {"step": 5, "split": "validation", "loss": 0.6, "csi": {"1": None}, "persistence_csi": {"1": 0.2}},
    {"step": 10, "split": "validation", "loss": 0.4, "csi": {"1": 0.3}, "persistence_csi": {"1": 0.2}},
]


def validation(step, loss, csi, mae, **more):
    """An event with the scores of the network at 1 and 5 mm/h."""
    beside = {"extrapolation_csi": {"1": 0.4, "5": 0.2}, "extrapolation_mae": 0.5,
              "persistence_csi": {"1": 0.3, "5": None}, "persistence_mae": 0.7}  # fmt: skip
    scores = {"loss": loss, "csi": dict(zip("15", csi, strict=True)), "mae": mae, **beside}
    return {"step": step, "split": "validation", **scores, "unit": "mm/h", **more}


NEW = [
    validation(0, 0.9, (0.1, None), 1.0, weights="untrained"),
    {"step": 5, "split": "training", "loss": 0.8},
    validation(5, 0.6, (0.5, 0.1), 0.6),
    {"step": 10, "split": "training", "loss": 0.5},
    validation(10, 0.7, (0.4, 0.2), 0.4),
]


def lines(axes):
    """{label: [[x, y], …]} of the lines of a panel; [y] of a line across it, which reaches from 0 to 1 of the panel."""
    across = {line: list(line.get_xdata()) == [0, 1] for line in axes.lines}
    return {line.get_label(): [line.get_ydata()[0]] if across[line] else line.get_xydata().tolist() for line in axes.lines}


def test_the_panels_show_loss_mae_and_csi_beside_what_they_are_measured_by():
    loss, mae, low, high = draw_training(NEW).axes
    assert [axes.get_title() for axes in (loss, mae, low, high)] == [
        "loss",
        "MAE, mm/h",
        "CSI at 1 mm/h or more",
        "CSI at 5 mm/h or more",
    ]
    assert lines(loss) == {
        "network, training": [[5, 0.8], [10, 0.5]],
        "network, validation": [[0, 0.9], [5, 0.6], [10, 0.7]],
        "best: step 5": [[5, 0.6]],
        "untrained": [0.9],
    }
    beside = {"extrapolation": [0.5], "persistence": [0.7]}
    assert lines(mae) == {
        "network, validation": [[0, 1.0], [5, 0.6], [10, 0.4]],
        "best: step 5": [[5, 0.6]],
        "untrained": [1.0],
        **beside,
    }
    beside = {"extrapolation": [0.4], "persistence": [0.3]}
    assert lines(low) == {
        "network, validation": [[0, 0.1], [5, 0.5], [10, 0.4]],
        "best: step 5": [[5, 0.5]],
        "untrained": [0.1],
        **beside,
    }
    assert set(lines(high)) == {"network, validation", "best: step 5", "extrapolation"}, "what is undefined is left out"


@pytest.mark.parametrize(("csi", "extrapolation", "number"), [(0.0, 0.0, 2), (None, None, 2), (0.1, 0.0, 3), (0.0, 0.2, 3)])
def test_a_threshold_that_nothing_hits_has_no_panel(csi, extrapolation, number):
    event = validation(5, 0.6, (0.5, csi), 0.6)
    del event["mae"]
    event["extrapolation_csi"]["5"] = extrapolation
    assert len(draw_training([event]).axes) == number


def test_old_events_are_drawn_without_what_they_lack():
    loss, csi = draw_training(OLD).axes
    assert lines(loss) == {
        "network, training": [[5, 0.5]],
        "network, validation": [[5, 0.6], [10, 0.4]],
        "best: step 10": [[10, 0.4]],
    }
    assert csi.get_title() == "CSI at 1 or more"
    assert lines(csi)["persistence"] == [0.2]
    assert set(lines(csi)) == {"network, validation", "best: step 10", "persistence"}


@pytest.mark.parametrize(("events", "num_panels"), [([], 1), (NEW[:1], 4), ([NEW[1], NEW[3]], 1)])
def test_the_beginning_of_a_run_and_one_without_validation_are_drawn(events, num_panels):
    figure = draw_training(events)
    assert len(figure.axes) == num_panels
    assert drawn(figure).shape[2] == 3


def test_a_run_that_began_with_other_weights_names_them():
    events = [NEW[0] | {"weights": "runs/$a"}, *NEW[1:]]
    loss, *_ = draw_training(events).axes
    assert lines(loss)[r"runs/\$a"] == [0.9]


def test_the_legend_is_beside_the_panels_and_complete():
    figure = draw_training(NEW)
    drawn(figure)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["network, training", "network, validation", "best: step 5", "untrained", "extrapolation", "persistence"]
    left = legend.get_window_extent().x0
    assert all(axes.get_window_extent().x1 < left for axes in figure.axes)
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    assert len({tuple(line.get_color()) for line in legend.get_lines()}) >= 4
    assert not np.isnan(left)
