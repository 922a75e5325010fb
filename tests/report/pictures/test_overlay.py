"""Coast, borders, graticule and arrows are drawn where they belong on a map, and nothing where its place is unknown."""

import numpy as np
import pytest

from nowcast.netcdf.places.locating import Locator
from nowcast.report.pictures.overlay import COLOURS, Stroke, Window, arrows, drawn_over, earth


def degree_map(north, west, *, shape=(100, 100), step=0.1):
    """The locator of a grid in even degrees whose cell (0, 0) has its upper left corner at `north`, `west`."""
    return Locator(
        shape,
        lambda latitude, longitude: ((north - latitude) / step - 0.5, ((longitude - west + 180) % 360 - 180) / step - 0.5),
        lambda row, column: (north - step * (row + 0.5), (west + step * (column + 0.5) + 180) % 360 - 180),
    )


def of_kind(drawn, kind):
    return [stroke.points for stroke in drawn.strokes if stroke.colour == COLOURS[kind]]


def test_nothing_is_drawn_where_the_place_is_unknown():
    assert earth(None, Window(0, 0, 10, 10)) is None


def test_a_border_lies_at_its_share_of_the_map():
    """The 49th parallel, between Canada and the United States, is 4 of 10 degrees from the north."""
    borders = np.concatenate(of_kind(earth(degree_map(53, -112), Window(0, 0, 100, 100)), "borders"))
    assert borders[:, 1] == pytest.approx(0.4, abs=2e-3)
    assert borders[:, 0].min() < 0
    assert borders[:, 0].max() > 1


def test_a_part_of_a_grid_shows_its_own_part_of_the_lines():
    """Of rows 30 to 50 the same parallel is in the middle."""
    borders = np.concatenate(of_kind(earth(degree_map(53, -112), Window(30, 0, 20, 100)), "borders"))
    assert borders[:, 1] == pytest.approx(0.5, abs=0.01)


def test_parallels_and_meridians_are_labelled_at_the_edges():
    drawn = earth(degree_map(3, 175), Window(0, 0, 60, 100))  # 3° N to 3° S, 175° E to 175° W
    labels = {text: (x, y) for x, y, text in drawn.labels}
    assert set(labels) == {"2°N", "0°", "2°S", "180°W"}
    assert labels["2°S"] == pytest.approx((1, 5 / 6))
    assert labels["180°W"] == pytest.approx((0.5, 0))


def test_the_open_sea_has_a_graticule_and_nothing_else():
    drawn = earth(degree_map(-30, -120), Window(0, 0, 100, 100))
    assert {stroke.colour for stroke in drawn.strokes} == {COLOURS["graticule"]}
    assert len(drawn.strokes) >= 6


def test_arrows_point_along_the_motion_where_something_moves():
    motion = np.zeros((2, 40, 40), np.float32)
    motion[0], motion[1] = 1.0, 2.0  # to the south and, twice as fast, to the east
    known = np.zeros((40, 40), bool)
    known[:, 20:] = True
    strokes = arrows(motion, known, Window(0, 0, 40, 40), frames=3.0)
    starts, tips = (np.array([stroke.points[n] for stroke in strokes]) for n in (0, 1))
    assert len(strokes) > 10
    assert starts[:, 0].min() >= 0.5
    np.testing.assert_allclose(tips - starts, np.broadcast_to([6 / 40, 3 / 40], tips.shape), atol=1e-6)
    assert arrows(motion, ~known & known, Window(0, 0, 40, 40), frames=3.0) == []
    assert arrows(np.zeros_like(motion), known, Window(0, 0, 40, 40), frames=3.0) == []


def test_arrows_without_a_length_reach_almost_to_the_next():
    motion = np.stack([np.zeros((48, 48)), np.full((48, 48), 0.01)]).astype(np.float32)
    strokes = arrows(motion, np.ones((48, 48), bool), Window(0, 0, 48, 48), frames=np.nan)
    assert (strokes[0].points[1] - strokes[0].points[0])[0] == pytest.approx(0.9 * 4 / 48)


def test_strokes_are_drawn_at_their_place_and_only_there():
    pixels = drawn_over([Stroke(np.array([[0, 0.5], [1, 0.5]]), "#ff0000", 1.0)], (41, 60), dpi=72)
    assert pixels.shape == (41, 60, 4)
    assert (pixels[20] == (255, 0, 0, 255)).all()
    assert not pixels[:18, :, 3].any()
    assert not pixels[23:, :, 3].any()
