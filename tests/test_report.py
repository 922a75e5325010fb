"""Pictures and page hold nothing unescaped, and replace nothing unasked."""

import base64
import html
import json
import re

import numpy as np
import pytest
from makers import evaluation
from matplotlib.image import imread

from nowcast import report
from nowcast.errors import OutputError

HOSTILE = "<script>alert('a&b')</script>"


def write(result, folder, **options):
    return report.write(result, result.rows(), folder, **options)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(evaluation, folder) with a name in it that would be a script if it were not escaped."""
    result = evaluation(names=("persistence", HOSTILE), records=(HOSTILE,))
    folder = tmp_path_factory.mktemp("report") / "deep" / "scores"
    assert write(result, folder) == [folder / name for name in report.FILES]
    return result, folder


def test_the_folder_holds_the_files_and_nothing_else(written):
    _, folder = written
    assert sorted(path.name for path in folder.iterdir()) == sorted(report.FILES)
    for picture in (report.LEADS_PNG, report.MAPS_PNG):
        assert all(300 < size < 2500 for size in imread(folder / picture).shape[:2])


@pytest.mark.parametrize("name", report.FILES)
def test_nothing_existing_is_replaced_unasked(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=f"{re.escape(name)} exists already"):
        report.ready(tmp_path, overwrite=False)
    with pytest.raises(OutputError, match="exists already"):
        write(evaluation(), tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]
    report.ready(tmp_path, overwrite=True)


def test_a_folder_that_cannot_be_is_refused_early_and_made_late(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file is a file"):
        report.ready(tmp_path / "file" / "scores", overwrite=False)
    report.ready(tmp_path / "new" / "scores", overwrite=False)
    assert not (tmp_path / "new").exists()


def test_the_page_is_self_contained_and_escaped(written):
    _, folder = written
    page = (folder / report.REPORT_HTML).read_text()
    assert "<script" not in page
    assert page.count(html.escape(HOSTILE)) >= 3
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    pictures = [base64.b64decode(text) for text in re.findall(r"base64,([^\"]+)", page)]
    assert pictures == [(folder / name).read_bytes() for name in (report.LEADS_PNG, report.MAPS_PNG)]
    assert "6 cases of" in page


@pytest.mark.parametrize("name", ["a$b$c", "_hidden", "$\\frac{", "雨", "x" * 300])
def test_any_name_can_be_drawn(name):
    result = evaluation(names=(name, "persistence"), records=(name,), leads=2, num_blocks=1)
    legend = report.draw_scores(result, result.rows()).axes[len(result.thresholds) - 1].get_legend()
    assert len(legend.get_texts()) == 2
    assert report.png(report.draw_maps(result)).startswith(b"\x89PNG")


def test_pictures_have_north_at_the_top_and_show_what_is_missing():
    figure = report.draw_maps(evaluation())
    maps = [axis for axis in figure.axes if axis.images]
    assert len(maps) == 3 * 2  # observed and two forecasters at two leads
    assert all(axis.images[0].origin == "upper" for axis in maps)
    colours, norm = report.colour_scale(evaluation())
    assert colours(norm(np.ma.masked_invalid([np.nan])))[0].tolist() == pytest.approx([217 / 255] * 3 + [1])
    assert colours(norm([0.0]))[0].tolist() == [1, 1, 1, 1]


def test_a_quantity_that_is_not_rain_has_its_own_units_and_colours():
    result = evaluation(quantity="dimensionless", thresholds=(0.5,), leads=2, num_blocks=1)
    images = [axis.images[0] for axis in report.draw_maps(result).axes if axis.images]
    assert {(image.norm.vmin, image.norm.vmax) for image in images} == {(0, 1)}


def test_the_curve_of_a_training_is_drawn_from_its_events(tmp_path):
    events = [
        {"step": 5, "split": "training", "loss": 0.5},
        {"step": 5, "split": "validation", "loss": 0.6, "csi": {"1": None}, "persistence_csi": {"1": 0.2}},
        {"step": 10, "split": "validation", "loss": 0.4, "csi": {"1": 0.3}, "persistence_csi": {"1": 0.2}},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    left, right = report.draw_training(path).axes
    assert [line.get_xydata().tolist() for line in left.lines] == [[[5, 0.5]], [[5, 0.6], [10, 0.4]]]
    assert len(right.lines) == 2
