"""Pictures of members: small multiples, fans and probabilities of sums, and the sections of the report that hold them."""

import html
import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from makers import evaluation
from makers.ensembles import ensemble_sums
from PIL import Image

from nowcast.evaluation.examples import ScoredCase, make_example
from nowcast.evaluation.member_examples import Fan
from nowcast.quantity import DIMENSIONLESS, RAIN_RATE
from nowcast.report import page as report_page
from nowcast.report.diagrams import forecaster_styles
from nowcast.report.maps import DPI, MapGrid
from nowcast.report.pictures.members import draw_fan, draw_members, draw_sums
from nowcast.scores.boxes import BoxSums
from nowcast.scores.spectra import WAVELENGTHS_KM, SpectrumSums, add_member_spectra
from nowcast.scores.sums import Tally

pytestmark = pytest.mark.slow  # all of them together take seconds

MINUTES = tuple(10.0 * (n + 1) for n in range(6))


def example(names=("ens",), leads=6, sizes=(4, 4)):
    rng = np.random.default_rng(0)
    observed = rng.gamma(0.5, 4, (leads, 24, 30)).astype(np.float32)
    shapes = {name: (size, leads, 24, 30) for name, size in zip(names, sizes, strict=False)}
    members = {name: rng.gamma(0.5, 4, shape).astype(np.float32) for name, shape in shapes.items()}
    case = ScoredCase("radar", np.datetime64("2020-06-01T12:00:00"), 0.5, 100)
    means = {name: each.mean(axis=0) for name, each in members.items()}
    readers = {name: (lambda lead, each=each: each[:, lead]) for name, each in members.items()}
    return make_example("best", case, MINUTES[:leads], observed, means, spacing_km=(2.0, 2.0), ensembles=readers)


def size(picture):
    return Image.open(io.BytesIO(picture)).size


def test_there_is_a_row_for_each_lead_and_ensemble():
    one, two = (size(draw_members(example(names), RAIN_RATE)) for names in (("ens",), ("ens", "a $b_name that is long")))
    assert one[0] == two[0]
    assert 1.8 < (two[1] - 80) / (one[1] - 80) < 2.2
    assert size(draw_sums(example(), RAIN_RATE))[0] > 400
    assert draw_sums(example(leads=2), RAIN_RATE) is None
    assert draw_sums(example(), DIMENSIONLESS) is None


def test_members_are_named_by_their_order_because_ensembles_number_them_otherwise(monkeypatch):
    named = []
    monkeypatch.setattr(MapGrid, "name_columns", lambda _, names: named.extend(names))
    draw_members(example(leads=1), RAIN_RATE)
    assert named == ["observed", "mean", "first member", "second member", "third member"]


@pytest.mark.parametrize("sizes", [(2, 5), (5, 2)])
def test_ensembles_of_different_sizes_share_a_picture(sizes):
    """The row of two members ends after the second; that of five has three, whichever ensemble is named first."""
    dry = example(("a", "b"), leads=1, sizes=sizes)
    fields = {name: np.zeros_like(each) for name, each in dry.members.fields.items()}
    dry = replace(dry, observed=0 * dry.observed, forecasts={name: 0 * each for name, each in dry.forecasts.items()},
                  members=replace(dry.members, fields=fields))  # fmt: skip
    pixels = np.asarray(Image.open(io.BytesIO(draw_members(dry, RAIN_RATE))).convert("RGB"))
    inside = pixels[:, round(MapGrid.LEFT * DPI) : -round(MapGrid.RIGHT * DPI)]
    sides = (inside == 70).all(axis=-1).sum(axis=1)  # of frames, in each line of pixels
    lines = [count for count, run in itertools.groupby(sides[sides > 0]) if len(list(run)) > 50]
    assert lines == [2 * (2 + min(size, 3)) for size in sizes]


def test_a_fan_holds_the_quantiles_of_the_members_and_the_observation():
    members = np.arange(101.0)[None] * np.array([[1.0], [2.0]])
    fan = Fan("here", np.array([10.0, 5.0]), {"ens": members})
    (axes,) = draw_fan(fan, "ens", (5.0, 10.0), forecaster_styles(["ens"])["ens"], "mm/h").axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [50, 100])
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [10, 5])
    extents = [each.get_datalim(axes.transData) for each in axes.collections]
    np.testing.assert_allclose([(box.y0, box.y1) for box in extents], [(5, 190), (25, 150)])
    assert axes.get_ylim()[1] > 200


def test_the_page_has_sections_of_sums_and_members():
    result = evaluation(names=("persistence",), leads=6, thresholds=(1.0,), num_blocks=1)
    result.lead_minutes = MINUTES
    rng = np.random.default_rng(0)
    members, observed = rng.gamma(0.5, 4, (4, 6, 24, 30)).astype("f4"), rng.gamma(0.5, 4, (6, 24, 30)).astype("f4")
    boxes, spectra = BoxSums(6, 10.0, (2.0, 2.0), most_members=4), SpectrumSums.empty(6, wavelengths_km=WAVELENGTHS_KM)
    for lead in range(6):
        boxes.add(lead, members[:, lead], observed[lead], np.ones((24, 30), bool))
        add_member_spectra(spectra, lead, members[:, lead], observed[lead], np.ones((24, 30), bool), (2.0, 2.0))
    (block,) = result.blocks["persistence"]
    sums = ensemble_sums(members, observed, thresholds=(1.0,))
    result.add("ens", block, Tally({**sums.kinds, "member_spectra": spectra, **boxes.kinds}))
    result.examples = [example()]
    page = html.unescape(report_page.as_html(result, result.rows(), {}))
    for title, count in {
        "Reliability ≥ 5 mm in 60 minutes, in boxes of 10 km": 1,
        "Reliability ≥ 5 mm in 60 minutes, in boxes of 40 km": 1,
        "Ranks of 60 minutes, at cells: ens": 1,
        "The best case: ens, wettest cell observed": 1,
        "The best case: probabilities of 60 minutes' rain": 1,
        "Power of members / observed power": 1,
    }.items():
        assert page.count(f"<figcaption>{title}") == count, title
    assert "Rain of 30 minutes, all leads pooled" in page
    assert "Power of members: 1 is as rough as the observed rain, at every wavelength (axis cut off at 2)" in page
    result.quantity = DIMENSIONLESS
    assert "minutes' rain</figcaption>" not in html.unescape(report_page.as_html(result, result.rows(), {}))
