"""The report page: every word escaped, nothing replaced without --overwrite, and no figure kept in memory."""

import base64
import gc
import html
import re
import weakref
from dataclasses import replace

import numpy as np
import pytest
from makers import evaluation
from matplotlib.figure import Figure
from matplotlib.image import imread

from nowcast.errors import OutputError
from nowcast.evaluation.examples import ScoredCase, make_example
from nowcast.evaluation.result import Evaluation
from nowcast.evaluation.score_files import as_dataset
from nowcast.forecasters.baselines import BASELINES
from nowcast.quantity import DIMENSIONLESS, RAIN_RATE
from nowcast.report import folder as report_folder
from nowcast.report import page as report_page
from nowcast.report.case_maps import CASE_PICTURES, draw_animation, draw_maps
from nowcast.report.page_tables import Table, fitted
from nowcast.report.sentences import headline, number
from nowcast.scores import SCORES
from nowcast.scores.ensemble import EnsembleSums, add_members
from nowcast.scores.exceedance import ExceedanceSums
from nowcast.scores.sums import Tally

pytestmark = pytest.mark.slow  # all of them together take seconds

HOSTILE = "<script>alert('a&b')</script>"
MOST_BYTES = 5_000_000


def write(result, folder, **options):
    return report_folder.write(result, result.rows(), folder, **options)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(evaluation, folder) with a name in it that would be a script if it were not escaped."""
    result = evaluation(names=("persistence", HOSTILE), records=(HOSTILE,))
    folder = tmp_path_factory.mktemp("report") / "deep" / "scores"
    assert write(result, folder, command=f"nowcast evaluate {HOSTILE}") == [folder / name for name in report_folder.FILES]
    return result, folder


@pytest.fixture(scope="module")
def page(written):
    return (written[1] / report_folder.REPORT_HTML).read_text()


def test_the_folder_holds_the_files_and_nothing_else(written):
    _, folder = written
    assert sorted(path.name for path in folder.iterdir()) == sorted(report_folder.FILES)
    for picture in (report_folder.LEADS_PNG, report_folder.MAPS_PNG):
        assert all(300 < size < 2500 for size in imread(folder / picture).shape[:2])


@pytest.mark.parametrize("name", report_folder.FILES)
def test_nothing_existing_is_replaced_unasked(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=f"{re.escape(name)} exists already"):
        report_folder.ready(tmp_path, overwrite=False)
    with pytest.raises(OutputError, match="exists already"):
        report_folder.write(Evaluation((5.0,), (1.0,), RAIN_RATE), [], tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]
    report_folder.ready(tmp_path, overwrite=True)


def test_a_folder_that_cannot_be_is_refused_early_and_made_late(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file is a file"):
        report_folder.ready(tmp_path / "file" / "scores", overwrite=False)
    report_folder.ready(tmp_path / "new" / "scores", overwrite=False)
    assert not (tmp_path / "new").exists()


def test_the_page_is_self_contained_and_escaped(page):
    assert "<script" not in page
    for place in ("<h1>Scores of persistence, {}</h1>", '<th scope="row">{}</th>', '">{}</td>', "</b>{}</li>", "evaluate {}"):
        assert place.format(html.escape(HOSTILE).replace("&#x27;", "&#39;")) in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "default-src 'none'" in page


def test_the_pictures_of_the_page_are_those_of_the_folder(written, page):
    _, folder = written
    pictures = [base64.b64decode(text) for text in re.findall(r"base64,([^\"]+)", page)]
    assert all((folder / name).read_bytes() in pictures for name in (report_folder.MAPS_PNG, report_folder.ANIMATION_GIF))
    for picture in pictures:
        assert HOSTILE.encode() not in picture
        assert picture.startswith((b"\x89PNG", b"GIF89a", b"<?xml"))


def test_the_page_says_what_was_scored_on_what(page):
    text = html.unescape(re.sub(r"<[^>]+>", "\n", page.replace("<wbr>", "")))
    said = ["6 cases of 1 record, on 6 days", "for 5 to 15 minutes ahead", "0.5, 1, 5, 10 mm/h", "10 × 12", 64 * "0"]
    said += ["Intervals: 95 % block bootstrap over 6 blocks", "Written by nowcast"]
    assert [part for part in said if part not in text] == []
    assert "Forecast / observed power is pooled over lead times (axis cut off at 2)." in page
    for heading in ("Performance", "Spectra", "Fractions skill score", "Scores against lead time", "Cases to look at"):
        assert heading in text


def test_a_day_of_two_records_is_one_day_and_one_lead_time_no_span():
    result = evaluation(num_blocks=2, leads=1, thresholds=(1.0,))
    result.examples, result.records = [], ["a", "b"]
    for name, blocks in result.blocks.items():
        result.blocks[name] = dict(zip([("a", "2020-06-01"), ("b", "2020-06-01")], blocks.values(), strict=True))
    page = report_page.as_html(result, result.rows(), {})
    assert "<p>2 cases of 2 records, on 1 day, were forecast for 5 minutes ahead.</p>" in page


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ((1, 1), ""),
        ((2, 2), "each pixel is the mean of 2 × 2 grid cells."),
        ((1, 3), "each pixel is the mean of several grid cells: 3 × 3 in the worst case."),
        ((2, 3), "each pixel is the mean of several grid cells: 2 × 2 in the best case, 3 × 3 in the worst case."),
    ],
)
def test_the_page_says_which_cases_are_averaged_for_display(blocks, said):
    result = evaluation(num_blocks=1, leads=1, thresholds=(1.0,))
    (example,) = result.examples
    ranked = zip(("best", "worst"), blocks, strict=True)
    result.examples = [replace(example, rank=rank, block=block) for rank, block in ranked]
    page = report_page.as_html(result, result.rows(), {})
    assert re.findall("each pixel is .*?\\.", page) == [said][: bool(said)]


def cells(page, caption):
    """The rows of the table with that caption, as lists of text."""
    table = next(t for t in re.findall(r"<table.*?</table>", page, re.DOTALL) if f"<caption>{caption}" in t)
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    return [[html.unescape(re.sub(r"</?(small|wbr)>", "", cell)) for cell in row] for row in cells]


def test_the_page_begins_with_a_sentence_a_picture_and_contents(written, page):
    result, _ = written
    order = [page.index(part) for part in ("<h1>", 'class="lead"', "<img", "<nav", '<h2 id="findings">')]
    assert order == sorted(order)
    assert headline(result, result.rows()) in html.unescape(page)
    linked = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', page)
    assert linked == re.findall(r'<h2 id="([^"]+)">([^<]+)</h2>', page)
    assert len(linked) > 6


def test_wide_tables_are_turned_or_cut_and_columns_of_zeros_left_out():
    names = [f"t{n}" for n in range(12)]
    (turned,) = fitted([Table("many", ["forecaster", *names], [["a", *["1"] * 12], ["b", *["2"] * 12]])])
    assert (turned.header, turned.rows[0], len(turned.rows)) == (["", "a", "b"], ["t0", "1", "2"], 12)
    square = fitted([Table("square", ["forecaster", *names], [[f"f{n}", *["1"] * 12] for n in range(12)], note="said")])
    assert [len(part.header) for part in square] == [7, 7]
    assert [name for part in square for name in part.header[1:]] == names
    assert [(part.title, part.note) for part in square] == [("square", ""), ("square (continued)", "said")]
    rows = [["a", "0.1", "0.000", "–", "0.000 [0.000, 0.000]"], ["b", "0.0", "0", "−0.00", "–"]]
    (shown,) = fitted([Table("zeros", ["forecaster", "x", "y", "z", "w"], rows)])
    assert (shown.header, shown.rows) == (["forecaster", "x"], [["a", "0.1"], ["b", "0.0"]])
    assert shown.note == "Left out, because 0 or undefined for all: y; z; w."
    for width in (1, 12):  # turned round, a wide table would have rows without numbers
        (gone,) = fitted([Table("nothing", ["forecaster", *names[:width]], [["a", *["0.000"] * width], ["b", *["–"] * width]])])
        assert (gone.rows, gone.note) == ([], "left out, because every score is 0 or undefined for all forecasters.")


def test_a_small_score_is_not_left_out_as_0():
    cells = [number(0.00002, ".4f"), f"{number(-0.0001)} [{number(-0.0003)}, {number(0.0)}]", number(-0.0)]
    (shown,) = fitted([Table("small", ["forecaster", "Brier", "bias", "none"], [["a", *cells]])])
    assert shown.rows == [["a", "2e-05", "-0.0001 [-0.0003, 0.000]"]]
    assert (shown.header, shown.note) == (["forecaster", "Brier", "bias"], "Left out, because 0 or undefined for all: none.")


def test_a_difference_of_0_with_an_interval_is_shown():
    rows = [["a − b", "+0.000 [−0.013, +0.012]", "+0.000 [+0.000, +0.000]", "+0.001"]]
    (shown,) = fitted([Table("difference", ["", "CSI", "MAE", "RMSE"], rows)])
    assert (shown.header, shown.rows) == (["", "CSI", "RMSE"], [["a − b", "+0.000 [−0.013, +0.012]", "+0.001"]])


def test_thresholds_without_diagrams_are_named(monkeypatch):
    monkeypatch.setattr(report_page, "svg", lambda _: b"<svg/>")  # drawing takes most of the time
    thresholds = tuple(float(n) for n in range(1, 11))
    result = evaluation(thresholds=thresholds, num_blocks=1, leads=1)
    result.examples = []
    page = report_page.as_html(result, result.rows(), {})
    drawn = [float(text) for text in re.findall(r"<figcaption>CSI ≥ (\d+) mm/h</figcaption>", page)]
    left_out = [f"{threshold:g}" for threshold in thresholds if threshold not in drawn]
    assert (len(drawn), len(left_out)) == (8, 2)
    assert f"Diagrams for {', '.join(left_out)} mm/h are left out" in page


def test_the_tables_hold_the_scores_with_their_intervals(written, page):
    result, _ = written
    overall = [row for row in result.rows() if row["lead_minutes"] is None]
    rows = {(row["forecaster"], row["score"], row["threshold"], row["against"]): row for row in overall}
    header, persistence, net = cells(page, "CSI, all leads pooled")
    assert header == ["forecaster", "≥ 0.5 mm/h", "≥ 1 mm/h", "≥ 5 mm/h", "≥ 10 mm/h"]
    row = rows["persistence", "csi", 5.0, None]
    assert persistence[3] == f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    assert net[0] == HOSTILE
    difference = rows[HOSTILE, "csi", 5.0, "persistence"]["value"]
    assert cells(page, "Difference")[1][3].startswith(f"{difference:+.3f} [".replace("-", "−"))
    assert float(persistence[3].split()[0]) == round(SCORES["csi"].pooled(result.tally("persistence"))[0, 2], 3)


def test_undefined_is_a_dash_in_the_page():
    result = evaluation(thresholds=(1.0, 1e5), num_blocks=1, leads=1)
    result.examples = []
    page = report_page.as_html(result, result.rows(), {})
    assert cells(page, "CSI, all leads pooled")[0] == ["forecaster", "≥ 1 mm/h"]
    assert "Left out, because 0 or undefined for all: ≥ 100000 mm/h." in page
    assert "nan" not in re.sub(r"base64,[^\"]+", "", page).lower()
    assert "No confidence intervals" in page


def test_a_quantity_without_a_unit_has_none_in_the_page_and_the_files():
    rng, shape = np.random.default_rng(0), (10, 12)
    result = evaluation(names=("persistence", "net"), leads=1, thresholds=(0.5,), num_blocks=1)
    result.quantity = DIMENSIONLESS
    shares, ensemble = ExceedanceSums.zeros(1, (0.5,)), EnsembleSums.zeros(1, most_members=3)
    members, observed = rng.random((3, *shape)).astype(np.float32), rng.random(shape).astype(np.float32)
    add_members(shares, ensemble, 0, members, observed, np.ones(shape, bool))
    (block,) = result.blocks["net"]
    result.add("ens", block, Tally({"probabilities": shares, "members": ensemble}))
    page = report_page.as_html(result, result.rows(), {})
    drawn = [base64.b64decode(text).decode() for text in re.findall(r"svg\+xml;base64,([^\"]+)", page)]
    assert "power</text>" in "".join(drawn)
    assert not any(re.search(r"\bmm\b", re.sub("<[^>]*>", "", text)) for text in [re.sub(r"base64,[^\"]+", "", page), *drawn])
    assert [row[0] for row in cells(page, "Scores without a threshold")[1:3]] == ["MAE", "MSE"]
    assert cells(page, "Distributions and ensembles")[0][2] == "fair CRPS"
    assert "at 0.5, all leads pooled" in page
    units = {name: variable.attrs.get("units") for name, variable in as_dataset(result, result.rows()).data_vars.items()}
    assert {units[name] for name in ("mae", "mse_pooled", "crps_fair", "rmse_difference", "csi")} == {"1"}
    assert units["effective_resolution"] == "km"
    result.quantity = RAIN_RATE
    assert as_dataset(result, result.rows())["mse_pooled"].attrs["units"] == "mm2 h-2"


def test_cases_that_a_network_was_trained_on_are_pointed_out():
    result = evaluation(num_blocks=1, leads=1, thresholds=(1.0,))
    result.examples = []
    result.about["forecasters"]["net"]["num_cases_in_training"] = 1
    page = report_page.as_html(result, result.rows(), {})
    assert "Beware: &#39;net&#39; was trained on the one case: these scores are too good." in page
    assert page.count('class="warning"') == 1


def test_scores_without_fields_or_kilometres_make_a_page_without_their_pictures(tmp_path):
    result = evaluation(num_blocks=1, leads=1, thresholds=(1.0,))
    result.examples, result.about = [], {}
    for name, blocks in result.blocks.items():
        for block, tally in blocks.items():
            result.blocks[name][block] = type(tally)({"pairs": tally["pairs"]})
    written = write(result, tmp_path / "scores")
    page = (tmp_path / "scores" / report_folder.REPORT_HTML).read_text()
    assert {path.name for path in written} == set(report_folder.FILES) - {report_folder.MAPS_PNG, report_folder.ANIMATION_GIF}
    assert "Cases to look at" not in page
    assert "Spectra" not in page
    assert "Fractions skill" not in page
    assert "Scores against lead time" in page


def test_probabilities_have_a_section_and_who_gives_them_alone_has_dashes_elsewhere():
    rng, shape = np.random.default_rng(0), (10, 12)
    result = evaluation(names=("persistence",), leads=1, thresholds=(1.0,), num_blocks=1)
    observed, everywhere = rng.gamma(0.5, 4, shape).astype(np.float32), np.ones(shape, bool)
    alone, ensemble = ExceedanceSums.zeros(1, (1.0,)), EnsembleSums.zeros(1, most_members=3)
    add_members(alone, ensemble, 0, rng.gamma(0.5, 4, (3, *shape)).astype(np.float32), observed, everywhere)
    (block,) = result.blocks["persistence"]
    result.add("chance", block, Tally({"probabilities": alone}))
    result.add("ens", block, Tally({"probabilities": alone, "members": ensemble}))
    result.examples = []
    page = report_page.as_html(result, result.rows(), {})
    assert cells(page, "CSI, all leads pooled")[2] == ["chance", "–"]
    brier = SCORES["brier"].pooled(alone)[0, 0]
    assert [row[:2] for row in cells(page, "Probabilities of ≥ 1 mm/h")[1:]] == [[n, f"{brier:.4f}"] for n in ("chance", "ens")]
    assert [row[0] for row in cells(page, "Distributions and ensembles")[1:]] == ["ens"]
    assert [page.count(f"<figcaption>{what}") for what in ("Reliability", "ROC", "Ranks: ens", "Ranks: chance")] == [1, 1, 1, 0]


def test_the_pictures_of_noise_on_a_large_grid_stay_small():
    """Noise is the rain whose pictures are largest. There are three cases in a page, and text takes 4/3 of the bytes."""
    rng, minutes = np.random.default_rng(0), [5.0 * n for n in range(1, 25)]
    observed = rng.gamma(0.3, 4, (24, 400, 500)).astype(np.float32)
    case = ScoredCase("noise", np.datetime64("2020-06-01"), 0.5, 100)
    names = ("network", *BASELINES)
    example = make_example("best", case, minutes, observed, dict.fromkeys(names, observed), spacing_km=(1.0, 1.0))
    sizes = [len(draw(example, RAIN_RATE)) for draw in (draw_maps, draw_animation)]
    assert 3 * 4 / 3 * sum(sizes) < 0.8 * MOST_BYTES


def test_no_figure_is_kept(monkeypatch):
    made = weakref.WeakSet()
    build = Figure.__init__
    monkeypatch.setattr(Figure, "__init__", lambda self, *args, **options: (made.add(self), build(self, *args, **options))[1])
    result = evaluation(num_blocks=1, leads=1, thresholds=(1.0,))
    examples = result.examples
    pictures = {what: [draw(example, RAIN_RATE) for example in examples] for what, draw in CASE_PICTURES.items()}
    report_page.as_html(result, result.rows(), pictures)
    gc.collect()
    assert len(made) == 0
