"""What an evaluation leaves out stands in its warnings, its score files and its report, and costs no other scores."""

import json

import numpy as np
import pytest
from makers import rain, write_record

from nowcast.errors import DataError
from nowcast.evaluation.evaluate import evaluate
from nowcast.evaluation.score_files import as_json
from nowcast.forecasters.baselines import Extrapolation, Persistence
from nowcast.netcdf.opening import open_records
from nowcast.prediction.cases import Selection
from nowcast.report.page import as_html


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return open_records([write_record(tmp_path_factory.mktemp("left_out") / "a.nc", rain(frames=10, shape=(8, 8)))])


def score(records, *forecasters, every=10):
    forecasters = {forecaster.name: forecaster for forecaster in forecasters}
    return evaluate(forecasters, records, selection=Selection(every=every), thresholds=(1.0,))


def silent(frames):
    """An extrapolation that forecasts nothing from so many lead times on, as on a few cells that the rain leaves."""
    forecaster = Extrapolation()

    def forecast_case(past, num_leads):
        out = np.ones((num_leads, *past.shape[1:]), np.float32)
        out[frames:] = np.nan
        return out

    forecaster.forecast_case = forecast_case
    return forecaster


def test_a_baseline_that_says_nothing_is_left_out_and_others_are_scored(records, caplog):
    persistence = Persistence()
    persistence.limit_leads(4)
    result = score(records, persistence, silent(0))
    assert list(result.blocks) == ["persistence"]
    says = (
        "extrapolation: left out, since it forecasts nothing but missing values in all 2 cases.\nThe others are scored without"
    )
    assert caplog.messages == result.about["left_out"] == json.loads(as_json(result, []))["about"]["left_out"]
    assert caplog.messages[0].startswith(says)
    alone = score(records, persistence)
    assert "left_out" not in alone.about
    assert [row["value"] for row in alone.rows()] == pytest.approx([row["value"] for row in result.rows()], nan_ok=True)
    with pytest.raises(DataError, match=r"^extrapolation forecasts nothing but missing values in all 2 cases: nothing can"):
        score(records, silent(0), persistence)  # the first is the one that was asked for


def test_lead_times_without_a_pixel_are_told_and_not_drawn(records, caplog):
    persistence = Persistence()
    persistence.limit_leads(3)
    result = score(records, persistence, silent(1), every=30)
    says = "nothing is scored at 2 of 3 lead times (10, 15 min): no pixel is known there in the observation and all forecasts"
    assert result.about["left_out"] == [says] == caplog.messages
    page = as_html(result, result.rows(), {})
    assert f'<p class="warning">{says}</p>' in page
    assert "Power at +5 min" in page
    assert "Power at +15 min" not in page


@pytest.mark.parametrize("names", ["b", "b and c"])
def test_records_too_short_for_a_case_are_told(records, tmp_path, caplog, names):
    paths = [write_record(tmp_path / f"{name}.nc", rain(frames=6, shape=(8, 8))) for name in names.split(" and ")]
    persistence = Persistence()
    persistence.limit_leads(6)
    result = score([*records, *(open_records([path])[0] for path in paths)], persistence)
    says = f"{names}: not scored, since nowhere are 1 past and 6 future frames without a gap"
    assert caplog.messages == result.about["left_out"] == [says]
    assert says in as_html(result, result.rows(), {})
    assert "left_out" not in score(records, persistence).about
