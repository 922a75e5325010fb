"""Maps are the right way up, in the colours of their values, grey where missing; large grids are averaged, never cut."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from nowcast.evaluation.coarsen import DISPLAY_CELLS, block_means, block_size, evenly_spaced, in_equal_steps
from nowcast.evaluation.examples import ScoredCase, choose, make_example
from nowcast.quantity import DIMENSIONLESS, RAIN_RATE, Quantity
from nowcast.report import case_maps, maps
from nowcast.report.case_maps import draw_animation, draw_maps, draw_probability_maps
from nowcast.report.maps import PROBABILITY, MapGrid, colour_scale, difference_scale
from nowcast.report.pictures.animation import gif

START = np.datetime64("2020-06-01T00:00:00")
GREY = tuple(int(f"{maps.MISSING_COLOUR[n : n + 2]}", 16) for n in (1, 3, 5))
WHITE = (255, 255, 255)


def rgb(colour):
    return tuple(round(255 * part) for part in to_rgb(colour))


def corners(pixels, grid, row=0, column=0):
    """The colours a tenth inside the four corners of a map: upper left, upper right, lower left, lower right."""
    (top, left), (height, width) = grid.corner(row, column), grid.map_pixels
    inset = [(top + round(y * height), left + round(x * width)) for y in (0.1, 0.9) for x in (0.1, 0.9)]
    return [tuple(int(part) for part in pixels[at]) for at in inset]


def test_row_0_is_drawn_at_the_top_and_missing_is_grey():
    field = np.zeros((10, 20), np.float32)
    field[:5, :10], field[:5, 10:], field[5:, :10] = 0.15, 150, np.nan
    grid = MapGrid(1, 1, 0.5, width=2, title="")
    grid.paste(0, 0, field, colour_scale(RAIN_RATE))
    expected = [rgb(maps.RAIN_COLOURS[0]), rgb(maps.HIGHEST_COLOUR), GREY, WHITE]
    assert corners(grid.pixels(), grid) == expected


def test_a_value_at_a_level_has_the_colour_above_it():
    colours, norm = colour_scale(RAIN_RATE)
    for n, level in enumerate(maps.RAIN_LEVELS[:-1]):
        assert tuple(colours(norm([np.float32(level)]))[0][:3]) == pytest.approx(to_rgb(maps.RAIN_COLOURS[n]))
    assert tuple(colours(norm([0.09]))[0][:3]) == (1, 1, 1)
    assert tuple(colours(norm([100]))[0][:3]) == pytest.approx(to_rgb(maps.HIGHEST_COLOUR))


def test_differences_are_brown_where_too_little_and_green_where_too_much():
    colours, norm = difference_scale(RAIN_RATE)
    none, little, much = (colours(norm([value]))[0][:3] for value in (0.2, -8, 8))
    assert none.tolist() == [1, 1, 1]
    assert little[0] > little[1] > little[2]
    assert much[1] > much[0]


def test_a_quantity_that_is_not_rain_has_its_own_units_and_colours():
    _, norm = colour_scale(DIMENSIONLESS)
    assert (norm.vmin, norm.vmax, DIMENSIONLESS.unit) == (0, 1, "")


# how each of the three kinds of cones sees a colour without the green or the red ones: Machado et al. (2009), severity 1
WITHOUT_GREEN = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
WITHOUT_RED = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))


def lightness(colours):
    """CIE L* of linear RGB (colour, 3)."""
    y = np.clip(colours @ [0.2126, 0.7152, 0.0722], 0, 1)
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


def opponents(colours):
    """CIE L*, a*, b* of linear RGB (colour, 3)."""
    xyz = np.clip(colours, 0, 1) @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    f = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1)


@pytest.mark.parametrize("seen", [np.eye(3), np.array(WITHOUT_GREEN), np.array(WITHOUT_RED)], ids=["all", "no green", "no red"])
def test_the_colours_of_rain_differ_visibly(seen):
    """A difference of 10 in L*, a*, b* is seen at a glance; 2 can just be seen."""
    named = np.array([to_rgb(colour) for colour in ("white", *maps.RAIN_COLOURS, maps.HIGHEST_COLOUR)])
    linear = np.where(named > 0.04045, ((named + 0.055) / 1.055) ** 2.4, named / 12.92)
    found = opponents(linear @ seen.T)
    apart = np.linalg.norm(found[:, None] - found, axis=-1)[np.triu_indices(len(found), 1)]
    assert apart.min() > 10


# Thinning


def test_blocks_are_means_of_what_is_known():
    field = np.array([[1, 3, 5], [np.nan, 2, np.nan], [8, 8, 1]], np.float32)
    np.testing.assert_array_equal(block_means(field, 2), np.array([[2, 5], [8, 1]], np.float32))
    np.testing.assert_array_equal(block_means(field, 1), field)
    assert block_means(np.full((4, 4), np.nan), 2).tolist() == [[pytest.approx(np.nan, nan_ok=True)] * 2] * 2


def test_a_block_of_which_more_than_half_is_missing_is_missing():
    field = np.ones((2, 4), np.float32)
    field[0, :2] = field[1, 0] = np.nan
    assert np.isnan(block_means(field, 2)).tolist() == [[True, False]]


@pytest.mark.parametrize("shape", [(1, 1), (DISPLAY_CELLS, 10), (DISPLAY_CELLS + 1, 700), (2200, 1900)])
def test_no_side_of_a_map_has_more_cells_than_asked(shape):
    assert max(block_means(np.zeros(shape, np.float32), block_size(shape)).shape) <= DISPLAY_CELLS


def test_of_many_frames_some_are_chosen_with_the_first_and_the_last():
    assert evenly_spaced(3, 5) == [0, 1, 2]
    assert evenly_spaced(24, 3) == [0, 12, 23]
    assert evenly_spaced(1, 3) == [0]


@pytest.mark.parametrize(
    ("number", "most", "chosen"),
    [(13, 12, range(0, 13, 2)), (14, 12, range(1, 14, 2)), (12, 4, [2, 5, 8, 11]), (12, 12, range(12)), (1, 4, [0])],
)
def test_frames_in_equal_steps_end_with_the_last(number, most, chosen):
    assert in_equal_steps(number, most) == list(chosen)


# Cases to look at


def case(csi, num_events=100, day=1, record="a"):
    return ScoredCase(record, START + day * np.timedelta64(86400, "s"), csi, num_events)


def test_the_best_median_and_worst_case_are_chosen_by_their_score():
    cases = [case(0.3, day=n) for n in (1, 2)] + [case(0.9, day=3), case(0.1, day=4), case(0.5, day=5)]
    assert {rank: chosen.csi for rank, chosen in choose(cases).items()} == {"best": 0.9, "median": 0.3, "worst": 0.1}
    assert choose(cases) == choose(cases[::-1])


def test_no_sentence_is_written_about_a_case_with_hardly_any_rain():
    cases = [case(0.0, num_events=1), case(1.0, num_events=2, day=2), *(case(n / 10, day=n) for n in (3, 4, 5))]
    assert [chosen.csi for chosen in choose(cases).values()] == [0.5, 0.4, 0.3]


def test_few_cases_and_cases_without_a_score():
    assert choose([]) == {}
    assert {kind: one.reference for kind, one in choose([case(np.nan, day=2), case(np.nan, day=1)]).items()} == {
        "first": case(np.nan, day=1).reference
    }
    assert list(choose([case(0.5), case(np.nan, day=2)])) == ["wettest"]
    assert list(choose([case(0.5), case(0.4, day=2)])) == ["best", "worst"]


def example(*, names=("net",), leads=4, shape=(20, 40)):
    """Observed: rain at the upper left; forecast: rain at the lower right; the lower left is missing."""
    observed, forecast = np.zeros((2, leads, *shape), np.float32)
    y, x = shape[0] // 2, shape[1] // 2
    observed[:, :y, :x], forecast[:, y:, x:] = 30, 30
    observed[:, y:, :x] = np.nan
    minutes = [5.0 * n for n in range(1, leads + 1)]
    nowhere = (np.nan, np.nan)  # no bar of kilometres in a corner
    return make_example("best", case(0.5), minutes, observed, dict.fromkeys(names, forecast), spacing_km=nowhere)


def opened(content):
    return Image.open(io.BytesIO(content))


def share(pixels, colour):
    return np.mean((np.asarray(pixels.convert("RGB")) == rgb(colour)).all(axis=-1))


@pytest.mark.slow
def test_the_maps_of_a_case_show_observed_forecast_and_difference(monkeypatch):
    kept = []
    make = MapGrid
    monkeypatch.setattr(case_maps, "MapGrid", lambda *a, **options: kept.append(make(*a, **options)) or kept[0])
    content = draw_maps(example(), RAIN_RATE)
    (grid,) = kept
    pixels = grid.pixels()
    rain, (colours, norm) = rgb(maps.RAIN_COLOURS[7]), difference_scale(RAIN_RATE)
    little, much = (rgb(colours(norm([value]))[0]) for value in (-30, 30))
    assert (grid.rows, grid.columns) == (6, 2)
    assert corners(pixels, grid, 0, 0) == [rain, WHITE, GREY, WHITE]
    assert corners(pixels, grid, 0, 1) == [WHITE, WHITE, WHITE, rain]
    assert corners(pixels, grid, 1, 1) == [little, WHITE, GREY, much]
    assert opened(content).size == pixels.shape[1::-1]
    assert share(opened(content), maps.RAIN_COLOURS[7]) == pytest.approx(np.mean((pixels == rain).all(axis=-1)), abs=1e-3)


def test_the_column_of_an_ensemble_says_that_it_is_the_mean(monkeypatch):
    named = []
    monkeypatch.setattr(MapGrid, "name_columns", lambda grid, names: named.append(list(names)))
    fields = np.zeros((1, 20, 40), np.float32)
    of_members = {"ens": lambda lead: np.zeros((2, 20, 40), np.float32)}
    options = {"spacing_km": (np.nan, np.nan), "ensembles": of_members}
    draw_maps(make_example("best", case(0.5), [5.0], fields, {"net": fields, "ens": fields}, **options), RAIN_RATE)
    assert named == [["observed", "net", "ens, mean"]]


def test_a_png_keeps_the_colours_of_the_scales_and_the_rarest_rain():
    """Ten pixels of the heaviest rain among thousands of shades, which 256 colours cannot all hold."""
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    pixels[:100] = rgb(maps.RAIN_COLOURS[3])
    pixels[150, :10] = rgb(maps.HIGHEST_COLOUR)
    kept = np.asarray(opened(maps.png(pixels)).convert("RGB")).astype(int)
    assert (kept[:100] == rgb(maps.RAIN_COLOURS[3])).all()
    assert np.abs(kept[150, :10] - rgb(maps.HIGHEST_COLOUR)).max() < 30
    np.testing.assert_array_equal(np.asarray(opened(maps.png(pixels, exact=True))), pixels)


@pytest.mark.slow
def test_the_probabilities_of_a_case_are_drawn_beside_the_event(monkeypatch):
    kept, make = [], MapGrid
    monkeypatch.setattr(case_maps, "MapGrid", lambda *a, **options: kept.append(make(*a, **options)) or kept[0])
    observed = np.zeros((4, 20, 40), np.float32)
    observed[:, :10, :20], observed[:, 10:, :20] = 30, np.nan
    chances = np.full((4, 20, 40), 0.45, np.float32)
    options = {"spacing_km": (np.nan, np.nan), "threshold": 5.0, "probabilities": {"net": chances}}
    shown = make_example("best", case(0.5), [5.0, 10.0, 15.0, 20.0], observed, {"net": observed}, **options)
    assert draw_probability_maps(shown, RAIN_RATE).startswith(b"\x89PNG")
    (grid,) = kept
    colours, norm = colour_scale(Quantity.named(maps.PROBABILITY))
    certain, likely = (tuple(map(int, colours(norm([value]), bytes=True)[0][:3])) for value in (1, 0.45))
    assert (grid.rows, grid.columns) == (3, 2)
    assert corners(grid.pixels(), grid, 0, 0) == [certain, WHITE, GREY, WHITE]
    assert set(corners(grid.pixels(), grid, 2, 1)) == {likely}
    assert draw_probability_maps(example(), RAIN_RATE) is None


def test_an_example_is_cut_to_where_something_is_known():
    fields = np.full((2, 40, 60), np.nan, np.float32)
    fields[:, 10:20, 30:50] = 1
    shown = make_example("best", case(0.5), [5.0, 10.0], fields, {"net": fields}, spacing_km=(1.0, 2.0))
    assert (shown.corner, shown.observed.shape, shown.extent_km) == ((9, 29), (2, 12, 22), (12.0, 44.0))
    np.testing.assert_array_equal(shown.observed, fields[:, 9:21, 29:51])


@pytest.mark.slow
def test_an_animation_has_a_frame_for_each_lead_and_keeps_its_colours():
    animation = opened(draw_animation(example(leads=30), RAIN_RATE))
    assert animation.n_frames == 12
    frames = []
    for n in range(animation.n_frames):
        animation.seek(n)
        frames.append(np.asarray(animation.convert("RGB")))
        assert share(animation, maps.RAIN_COLOURS[7]) > 0.05
    assert (frames[0] != frames[1]).any()  # the time above it


@pytest.mark.parametrize("name", ["a$b$c", "_hidden", "$\\frac{", "雨", "x" * 300])
@pytest.mark.parametrize("draw", [draw_maps, draw_animation])
def test_any_name_can_be_drawn(name, draw):
    assert opened(draw(example(names=(name,), leads=1), RAIN_RATE)).size[0] > 300


@pytest.mark.slow
def test_many_forecasters_and_odd_grids_still_fit():
    for shape in ((4, 400), (400, 4), (1, 1)):
        sizes = opened(draw_maps(example(names=[f"net {n}" for n in range(9)], shape=shape), RAIN_RATE)).size
        assert max(sizes) < 2500


def test_a_distance_is_drawn_only_where_it_is_known():
    grids = [MapGrid(1, 1, 1, width=2, title="") for _ in range(2)]
    grids[0].draw_distance(700)
    grids[1].draw_distance(np.nan)
    assert [text.get_text() for text in grids[0].figure.texts] == ["", "200 km"]
    assert [text.get_text() for text in grids[1].figure.texts] == [""]


def test_a_title_of_two_lines_lies_above_the_names_of_the_columns():
    grid = MapGrid(1, 2, 1, width=2, title="Probability of 1 mm/h or more\na forecast")
    grid.name_columns(["observed ≥ 1 mm/h", "extrapolation"])
    grid.pixels()
    title, *names = (text.get_window_extent() for text in grid.figure.texts if text.get_text())
    assert title.y0 > max(name.y1 for name in names), "the axis of a figure points up"
    assert title.y1 <= grid.size[1] * grid.dpi


def test_a_gif_of_probabilities_has_the_colour_of_each_class():
    quantity = Quantity.named(PROBABILITY)
    classes = np.linspace(0.05, 0.95, 10, dtype=np.float32)[None]  # the last one is beyond the scale
    grid = MapGrid(1, 1, 0.1, width=5, title="")
    picture = gif(grid, lambda _: grid.paste(0, 0, classes, colour_scale(quantity)), 1, quantity)
    (height, width), (top, left) = grid.map_pixels, grid.corner(0, 0)
    drawn = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))[top + height // 2, left + width // 20 :: width // 10][
        :10
    ]
    colours, norm = colour_scale(quantity)
    np.testing.assert_allclose(drawn, colours(norm(classes[0]), bytes=True)[:, :3], atol=1)
