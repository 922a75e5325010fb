"""Table, files, pictures and page say the same, hold nothing unescaped, and replace nothing unasked."""

import base64
import csv
import html
import io
import json
import re

import numpy as np
import pytest
import xarray as xr
from makers import write_record
from matplotlib.image import imread

from nowcast import report
from nowcast.baselines import Extrapolation, Persistence
from nowcast.cases import Selection
from nowcast.errors import OutputError
from nowcast.evaluation import Evaluation, Example, evaluate
from nowcast.metrics import SCORES, THRESHOLDS, Sums, sums
from nowcast.netcdf import open_records

HOSTILE = "<script>alert('a&b')</script>"


def evaluation(*, names=("persistence", "net"), records=("a",), leads=3, thresholds=THRESHOLDS, **facts):
    quantity, num_blocks = facts.get("quantity", "rain_rate"), facts.get("num_blocks", 6)
    rng = np.random.default_rng(0)
    minutes = tuple(5.0 * n for n in range(1, leads + 1))
    result = Evaluation(minutes, thresholds, quantity, list(records), num_cases=num_blocks)
    for name in names:
        for block in range(num_blocks):
            forecast, observed = rng.gamma(0.3, 4, (2, leads, 10, 12)).astype(np.float32)
            result.add(name, (records[0], f"day {block}"), sums(forecast, observed, None, thresholds))
    shown = rng.gamma(0.3, 4, (len(names) + 1, 2, 10, 12)).astype(np.float32)
    shown[:, :, :2] = np.nan
    forecasts = dict(zip(names, shown[1:], strict=True))
    result.example = Example(records[0], np.datetime64("2020-06-01T00:00:00"), (minutes[0], minutes[-1]), shown[0], forecasts)
    return result


def write(result, folder, **options):
    return report.write(result, result.rows(), folder, **options)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(evaluation, folder) with a name in it that would be a script if it were not escaped."""
    result = evaluation(names=("persistence", HOSTILE), records=(HOSTILE,))
    folder = tmp_path_factory.mktemp("report") / "deep" / "scores"
    assert write(result, folder) == [folder / name for name in report.FILES]
    return result, folder


def test_the_table_of_a_hand_made_record(tmp_path):
    fields = np.zeros((16, 4, 4), np.float32)
    fields[:4, :2] = 2  # the past: rain in the upper half; then in the left half
    fields[4:, :, :2] = 2
    record = open_records([write_record(tmp_path / "a.nc", fields)])
    sources = {"persistence": Persistence(), "extrapolation": Extrapolation()}
    result = evaluate(sources, record, selection=Selection(), thresholds=(1.0, 5.0))
    assert report.table(result).splitlines() == [
        "pooled over leads  CSI≥1  CSI≥5  bias≥1  bias≥5    MAE   RMSE   corr  cases  pairs",
        "persistence        0.333      –   1.000       –  1.000  1.414  0.000      1    192",
        "extrapolation      0.333      –   1.000       –  1.000  1.414  0.000      1    192",
        "",
        "CSI≥1 at minute      5     10     15     20     25     30     35     40     45     50     55     60",
        "persistence      0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333",
        "extrapolation    0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333  0.333",
        "",
        "No interval can be given: 1 block (a record's day), at least 5 are needed.",
    ]


def test_the_table_of_many_leads_stays_readable():
    lines = report.table(evaluation(leads=60)).splitlines()
    assert max(map(len, lines)) < 130
    assert lines[4].split()[3:6] == ["5", "30", "55"]


def test_the_csv_is_tidy():
    result = evaluation()
    text = report.as_csv(result.rows())
    rows = list(csv.DictReader(io.StringIO(text)))
    assert text.splitlines()[0] == "forecaster,lead_minutes,threshold,scale_km,score,value,low,high,num_cases,num_pairs"
    by_lead, of_all = 9 * 4 + 6, 2 * (9 * 4 + 6)
    assert len(rows) == 2 * (3 * by_lead + of_all)
    assert {row["lead_minutes"] for row in rows} == {"", *(f"{m:.1f}" for m in result.lead_minutes)}
    for column in ("lead_minutes", "threshold", "value", "low", "high", "num_cases", "num_pairs"):
        assert all(np.isfinite(float(row[column])) for row in rows if row[column])
    assert "nan" not in text.lower()


def test_json_csv_and_netcdf_agree(written):
    _, folder = written
    told = json.loads((folder / report.SCORES_JSON).read_text())
    assert told["records"] == [HOSTILE]
    assert (told["num_cases"], told["num_blocks"], told["quantity"]) == (6, 6, "rain_rate")
    with (folder / report.SCORES_CSV).open() as file:
        table = list(csv.DictReader(file))
    assert len(told["scores"]) == len(table)
    with xr.open_dataset(folder / report.SCORES_NC, engine="netcdf4") as scores:
        assert {f"{name}{end}" for name in SCORES for end in ("", "_low", "_high", "_pooled")} <= set(scores)
        values = {name: scores[name].to_series() for name in scores if not name.startswith("block_") and scores[name].dims}
        for row, line in zip(told["scores"], table, strict=True):
            assert all(str("" if value is None else value) == line[key] for key, value in row.items())
            at = tuple(row[key] for key in ("forecaster", "lead_minutes", "threshold") if row[key] is not None)
            pooled = "_pooled" if row["lead_minutes"] is None and row["score"] in SCORES else ""
            for column, end in (("value", ""), ("low", "_low"), ("high", "_high")):
                found = values[f"{row['score']}{pooled}{end}"].loc[at if len(at) > 1 else at[0]]
                assert found == row[column] or (np.isnan(found) and row[column] is None)


def test_sums_by_block_can_be_added_up_again(written):
    result, folder = written
    with xr.open_dataset(folder / report.SCORES_NC, engine="netcdf4") as scores:
        chosen = scores.sel(forecaster=HOSTILE).sum("block")
        arrays = {name: chosen[f"block_{name}"].values for name in Sums.zeros(1).arrays()}
        again = Sums(tuple(scores["threshold"].values.tolist()), **arrays)
        np.testing.assert_array_equal(SCORES["csi"](again), SCORES["csi"](result.total(HOSTILE)))
        assert scores["lead_minutes"].attrs["units"] == "min"
        assert scores["lead_minutes"].dtype == np.float64


def test_undefined_is_a_dash_empty_null_and_nan(tmp_path):
    result = evaluation(thresholds=(1.0, 1e5))
    rows = result.rows()
    undefined = [row for row in rows if row["threshold"] == 1e5 and row["score"] == "csi"]
    assert report.number(undefined[0]["value"]) == "–"
    assert ",csi,,,," in report.as_csv(undefined)
    assert '"value": null' in report.as_json(result, undefined)
    assert np.isnan(report.as_dataset(result, rows)["csi"].sel(threshold=1e5)).all()


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
    assert report.as_dataset(result, result.rows())["threshold"].attrs["units"] == "1"
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
