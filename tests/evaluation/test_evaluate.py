"""All forecasters are scored on the same cases under one mask; numbers follow by hand; what cannot be scored says why."""

import json
import math

import numpy as np
import pytest
from makers import rain, write_record
from makers.intervals import interval

from nowcast.errors import DataError, UsageError
from nowcast.evaluation.evaluate import evaluate
from nowcast.evaluation.result import Evaluation
from nowcast.evaluation.score_files import COLUMNS
from nowcast.forecasters.baselines import BASELINES, Extrapolation, Persistence
from nowcast.forecasters.forecast_files import ForecastFiles
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.record import Record
from nowcast.prediction.cases import Selection
from nowcast.quantity import RAIN_RATE
from nowcast.report.table import table
from nowcast.scores import FIELD_KINDS, SCORES
from nowcast.scores.bootstrap import difference_interval
from nowcast.scores.pixels import THRESHOLDS, sums

pytestmark = pytest.mark.slow  # all of them together take seconds

FIELD_SCORES = {name: score for name, score in SCORES.items() if score.kind in FIELD_KINDS}
START = np.datetime64("2020-06-01T00:00:00")
MINUTES = np.timedelta64(60, "s")
EVERYTHING = Selection()


class Constant(Forecaster):
    """A forecaster that says the same everywhere, and nothing in the first `hidden` rows."""

    def __init__(self, value, *, input_frames=1, lead_frames=2, hidden=0, seconds=None):
        self.value, self.hidden = value, hidden
        self.name, self.input_frames, self.lead_frames = f"constant {value}", input_frames, lead_frames
        if seconds:
            self.own_time_step = lambda record: np.timedelta64(seconds, "s")

    def forecast(self, past, num_leads):
        assert past.shape[1] >= self.input_frames
        out = np.full((len(past), num_leads, *past.shape[2:]), self.value, np.float32)
        out[:, :, : self.hidden] = np.nan
        return out


def record(folder, fields, *, name="a", **options):
    return open_records([write_record(folder / f"{name}.nc", fields, **options)])[0]


def score(sources, records, *, selection=EVERYTHING, thresholds=THRESHOLDS):
    if not isinstance(sources, dict):
        sources = {source.name: source for source in sources}
    records = [records] if isinstance(records, Record) else records
    return evaluate(sources, records, selection=selection, thresholds=thresholds)


def half_and_half(frames=16, past=4):
    """4 × 4 cells: 2 mm/h in the upper half for `past` frames, then in the left half."""
    fields = np.zeros((frames, 4, 4), np.float32)
    fields[:past, :2] = 2
    fields[past:, :, :2] = 2
    return fields


def find(rows, **wanted):
    wanted = {"against": None} | wanted
    (row,) = (row for row in rows if all(row[key] == value for key, value in wanted.items()))
    return row


def test_scores_of_a_case_follow_by_hand(tmp_path):
    result = score([Persistence(), Extrapolation()], record(tmp_path, half_and_half()))
    assert (result.num_cases, result.num_blocks, len(result.lead_minutes)) == (1, 1, 12)
    total = result.total("persistence")
    # a quarter of the 16 cells each: hits, misses, false alarms, correct negatives
    for counts in (total.hits, total.misses, total.false_alarms, total.correct_negatives):
        np.testing.assert_array_equal(counts[:, :2], 4)
    rows = result.rows()
    first = {"forecaster": "persistence", "lead_minutes": 5.0}
    assert find(rows, **first, score="csi", threshold=1.0)["value"] == pytest.approx(1 / 3)
    assert find(rows, **first, score="far", threshold=1.0)["value"] == 0.5
    assert find(rows, **first, score="frequency_bias", threshold=1.0)["value"] == 1
    assert math.isnan(find(rows, **first, score="csi", threshold=5.0)["value"])
    assert find(rows, **first, score="mae")["value"] == 1
    assert find(rows, **first, score="rmse")["value"] == pytest.approx(2**0.5)
    assert find(rows, **first, score="correlation")["value"] == 0
    whole = find(rows, forecaster="persistence", lead_minutes=None, score="csi", threshold=1.0)
    assert (whole["value"], whole["num_cases"], whole["num_pairs"]) == (pytest.approx(1 / 3), 1, 12 * 16)


def test_baselines_alone_use_four_frames_and_twelve_leads(tmp_path):
    short = score([Persistence(), Extrapolation()], record(tmp_path, rain(frames=15, shape=(8, 8))))
    assert (short.num_cases, len(short.lead_minutes)) == (1, 11)  # fewer lead times where a record has no more
    assert score([Persistence(), Extrapolation()], record(tmp_path, rain(frames=17, shape=(8, 8)), name="b")).num_cases == 2


def test_every_forecaster_is_scored_on_the_same_pairs(tmp_path):
    a = record(tmp_path, rain(frames=12, shape=(20, 24), missing=0.1))
    result = score([Constant(1), Constant(2, hidden=7), Persistence(), Extrapolation()], a)
    pairs = [result.total(name).num_pairs.tolist() for name in result.blocks]
    assert all(found == pairs[0] for found in pairs)
    assert set(result.blocks) == {"constant 1", "constant 2", "persistence", "extrapolation"}
    keys = [list(blocks) for blocks in result.blocks.values()]
    assert all(found == keys[0] for found in keys)


def test_the_common_mask_is_where_all_sides_are_known(tmp_path):
    fields = rain(frames=4, shape=(6, 5))
    fields[1, 3, 2] = np.nan  # the observation at the first lead of the first case
    result = score([Constant(1, hidden=1), Constant(2, hidden=4)], record(tmp_path, fields), selection=Selection(end=START))
    assert result.total("constant 1").num_pairs.tolist() == [2 * 5, 2 * 5]
    result = score([Constant(1, hidden=1)], record(tmp_path, fields, name="b"), selection=Selection(end=START))
    assert result.total("constant 1").num_pairs.tolist() == [5 * 5 - 1, 5 * 5]


def test_cases_are_those_that_all_can_forecast(tmp_path):
    a = record(tmp_path, rain(frames=12, shape=(8, 8)))
    assert score([Constant(1, input_frames=1)], a).num_cases == 12 - 2
    assert score([Constant(1, input_frames=1), Constant(2, input_frames=5, lead_frames=3)], a).num_cases == 12 - 5 - 2 + 1
    result = score([Constant(1, lead_frames=2), Constant(2, lead_frames=5), Persistence()], a)
    assert result.lead_minutes == (5.0, 10.0)


def test_no_case_crosses_a_gap(tmp_path):
    times = START + np.array([0, 5, 10, 15, 40, 45, 50, 55]) * MINUTES
    a = record(tmp_path, rain(frames=8, shape=(8, 8)), times=times)
    assert score([Constant(1, input_frames=2, lead_frames=2)], a).num_cases == 2


def test_the_selection_chooses_reference_times(tmp_path):
    a = record(tmp_path, rain(frames=24, shape=(8, 8)))
    selection = Selection(start=START + 20 * MINUTES, end=START + 60 * MINUTES, every=20)
    assert score([Constant(1)], a, selection=selection).num_cases == 3
    nothing = r"none of the 22 complete cases of .* is in the range of times asked for\.\n{} goes from {}Z to {}Z\.$"
    with pytest.raises(DataError, match=nothing.format(a.name, START, START + 115 * MINUTES)):
        score([Constant(1)], a, selection=Selection(start=START + 600 * MINUTES))


def test_another_forecaster_does_not_shift_the_cases(tmp_path):
    a = record(tmp_path, rain(frames=24, shape=(8, 8)))
    every = Selection(every=20)
    seen = []

    class Spy(Constant):
        def forecast(self, past, num_leads):
            seen.append(past[0, -1])
            return super().forecast(past, num_leads)

    score([Spy(1)], a, selection=every)
    alone = list(seen)
    seen.clear()
    score([Spy(1), Constant(2, input_frames=4)], a, selection=every)
    np.testing.assert_array_equal(alone[1:], seen)  # but the first, which has too short a past for both


def test_a_case_with_an_empty_past_frame_is_left_out_and_reported(tmp_path, caplog):
    fields = rain(frames=10, shape=(8, 8))
    fields[4] = np.nan
    result = score([Constant(1, input_frames=2)], record(tmp_path, fields))
    assert result.num_cases == 7 - 2
    assert "a: left out 2 of 7 cases" in caplog.text


def test_a_record_without_a_known_pair_is_refused_by_name(tmp_path):
    fields = rain(frames=10, shape=(8, 8))
    fields[:, 4:] = np.nan
    with pytest.raises(DataError, match=r"no case of .* to score: each has a past frame without any observation, or no pixel"):
        score([Constant(1, hidden=4)], record(tmp_path, fields))


def test_a_forecaster_that_says_nothing_is_named(tmp_path, caplog):
    a = record(tmp_path, rain(frames=10, shape=(8, 8)))
    with pytest.raises(DataError) as caught:
        score([Constant(2), Constant(1, hidden=8)], a)
    assert caught.value.exit_code == 3
    assert str(caught.value) == "constant 1 forecasts nothing but missing values in all 8 cases: nothing can be scored."

    class Sometimes(Constant):
        def forecast(self, past, num_leads):
            self.hidden = 8 - self.hidden  # every other time
            return super().forecast(past, num_leads)

    result = score({"x": Sometimes(1), "y": Constant(2)}, a)
    assert result.num_cases == 4
    assert "x: forecasts nothing but missing values in 4 cases, left out for all forecasters" in caplog.text
    assert "left out" in caplog.text


def test_no_complete_case_gives_the_account_on_two_lines(tmp_path):
    with pytest.raises(DataError) as caught:
        score([Constant(1, input_frames=9, lead_frames=9)], [record(tmp_path, rain(frames=8, shape=(8, 8)))])
    assert caught.value.exit_code == 75
    assert str(caught.value) == (
        "no complete case of 9 past and 9 future frames 5 min apart to score.\n"
        "0 windows in 8 frames; 8 start times dropped: gap or end of file. 10 frames in a row are enough for a case."
    )


def test_a_forecast_file_is_scored_by_valid_time(tmp_path):
    fields = rain(frames=12, shape=(8, 8))
    a = record(tmp_path, fields)
    references = a.times[[2, 5]]
    cases = [(time, fields[n + 1 : n + 4]) for n, time in zip((2, 5), references, strict=True)]
    leads = np.arange(1, 4) * 5 * MINUTES
    path = tmp_path / "perfect.nc"
    write_forecast(path, cases, grid=a.grid, lead_times=leads, quantity=RAIN_RATE, attributes={}, single=False)
    result = score([ForecastFiles(read_forecast(path), "perfect"), Persistence()], a)
    assert result.num_cases == 2
    assert result.total("perfect").sum_sq_error.tolist() == [0, 0, 0]
    assert result.total("persistence").sum_sq_error.min() > 0
    other = record(tmp_path, fields, name="b", times=a.times + np.timedelta64(1, "D"))
    expected = (
        r"perfect has forecasts from 2020-06-01T00:10:00Z to 2020-06-01T00:25:00Z: no overlap in time\.\n"
        r"b goes from 2020-06-02T00:00:00Z to 2020-06-02T00:55:00Z\.$"
    )
    with pytest.raises(DataError, match=expected):
        score([ForecastFiles(read_forecast(path), "perfect")], other)
    late = record(tmp_path, fields, name="c", times=a.times + np.timedelta64(150, "s"))
    with pytest.raises(DataError, match="no frame at any of these times"):
        score([ForecastFiles(read_forecast(path), "perfect")], late)


@pytest.mark.parametrize("step", [300, 277])
def test_forecasts_that_have_the_frames_own_times_are_scored(tmp_path, step):
    """A forecast's reference and valid times as they stand in the files of the record, each some seconds late or early."""
    fields, late = rain(frames=16, shape=(12, 14)), np.random.default_rng(1).integers(-4, 5, 16)
    times = START + (step * np.arange(16) + late + 6) * np.timedelta64(1, "s")
    a = record(tmp_path, fields, times=times)
    assert len(np.unique(np.diff(a.times))) == 1
    path, whole = tmp_path / "f.nc", tmp_path / "g.nc"
    for each, leads in ((path, times[4:10] - times[3]), (whole, (1 + np.arange(6)) * a.time_step)):
        options = {"lead_times": leads, "quantity": RAIN_RATE, "attributes": {}, "single": True}
        write_forecast(each, [(times[3], fields[4:10])], grid=a.grid, **options)
    result = score([ForecastFiles(read_forecast(each), each.stem) for each in (path, whole)], a)
    assert result.num_cases == 1
    for name in ("f", "g"):
        assert find(result.rows(), forecaster=name, score="csi", threshold=1.0, lead_minutes=None)["value"] == 1


def test_different_time_steps_are_refused_by_name(tmp_path):
    a = record(tmp_path, rain(frames=24, shape=(8, 8)))
    with pytest.raises(UsageError, match=r"different time steps on a \(x 5 min, y 10 min\): evaluate them one by one"):
        score({"x": Constant(1, seconds=300), "y": Constant(2, seconds=600)}, a)
    slow = record(tmp_path, rain(frames=24, shape=(8, 8)), name="b", step_minutes=10)
    with pytest.raises(UsageError, match=r"different time steps \(a 5 min, b 10 min\)"):
        score([Constant(1)], [a, slow])


def test_baselines_take_the_time_step_of_the_network(tmp_path):
    a = record(tmp_path, rain(frames=24, shape=(8, 8)))
    assert score([Constant(1, seconds=600), Persistence()], a).lead_minutes == (10.0, 20.0)


def test_different_quantities_are_refused(tmp_path):
    a = record(tmp_path, rain(frames=24, shape=(8, 8)))
    share = write_record(tmp_path / "b.nc", np.zeros((24, 8, 8)), standard_name="cloud_area_fraction", units="1")
    with pytest.raises(DataError, match="b holds dimensionless but a holds rain_rate"):
        score([Constant(1)], [a, *open_records([share], variable="rainfall_rate")])


def test_several_records_pool_and_make_blocks_by_day(tmp_path):
    first, second = rain(frames=8, shape=(8, 8)), rain(frames=8, shape=(6, 9), seed=1)
    midnight = np.datetime64("2020-06-01T23:40:00") + np.arange(8) * 5 * MINUTES
    records = [record(tmp_path, first), record(tmp_path, second, name="b", times=midnight)]
    both = score([Constant(1)], records)
    alone = [score([Constant(1)], one) for one in records]
    assert both.num_cases == sum(one.num_cases for one in alone) == 12
    assert both.records == ["a", "b"]
    assert list(both.blocks["constant 1"]) == [("a", "2020-06-01"), ("b", "2020-06-01"), ("b", "2020-06-02")]
    expected = sum(one.total("constant 1") for one in alone)
    np.testing.assert_array_equal(both.total("constant 1").hits, expected.hits)


def rising(folder, **options):
    """Frame n has 3 mm/h in its first n rows of 20: who says 3 everywhere has a CSI of n / 20 there."""
    fields = np.zeros((20, 20, 8), np.float32)
    for n in range(20):
        fields[n, :n] = 3.0
    return record(folder, fields, **options)


@pytest.mark.parametrize("y_ascending", [False, True])
def test_the_examples_are_the_best_median_and_worst_case_and_show_their_fields(tmp_path, y_ascending):
    one = rising(tmp_path, y_ascending=y_ascending)
    sources = {"three": Constant(3, lead_frames=1)}
    result = evaluate(sources, [one], selection=EVERYTHING, thresholds=(1.0,), examples=True)
    told = {e.rank: (e.case.csi, int((e.case.reference - START) / (5 * MINUTES)) + 1) for e in result.examples}
    assert told == {"best": (0.95, 19), "median": (0.7, 14), "worst": (0.5, 10)}  # of frames 1 to 19 the wetter half
    for example in result.examples:
        frame = told[example.rank][1]
        np.testing.assert_array_equal(example.observed, one.read([frame]))  # north first, whichever way the file runs
        np.testing.assert_array_equal(example.forecasts["three"], np.full((1, 20, 8), 3, np.float32))
        assert example.extent_km == (20, 8)


def test_no_case_is_forecast_again_unless_it_is_asked_for(tmp_path):
    result = score([Constant(3, lead_frames=1)], rising(tmp_path))
    assert (len(result.cases), result.examples) == (19, [])


def test_records_of_one_name_are_scored_and_shown_each_as_itself(tmp_path):
    fields = {
        "calm": np.full((3, 4, 4), 2, np.float32),
        "gone": np.array([3, 3, 0], np.float32)[:, None, None] + np.zeros((6, 5)),
    }
    for name in fields:
        (tmp_path / name).mkdir()
    records = [record(tmp_path / name, frames, name="rain") for name, frames in fields.items()]
    sources = {"one": Constant(2, lead_frames=1)}
    result = evaluate(sources, records, selection=EVERYTHING, thresholds=(1.0,), examples=True)
    assert result.records == ["rain-calm", "rain-gone"]
    days = [tally["pairs"].num_cases.tolist() for tally in result.blocks["one"].values()]
    assert (result.num_cases, list(result.blocks["one"]), days) == (
        4, [("rain-calm", "2020-06-01"), ("rain-gone", "2020-06-01")], [[2], [2]],
    )  # fmt: skip
    shown = {example.case.record: example.observed for example in result.examples}
    for name, observed in shown.items():
        start = next(example.case.reference for example in result.examples if example.case.record == name)
        at = int((start - START) / (5 * MINUTES)) + 1
        np.testing.assert_array_equal(observed[0], fields[name.removeprefix("rain-")][at])
    assert set(shown) == set(result.records)


def test_the_result_describes_records_and_forecasters(tmp_path):
    records = [rising(tmp_path), record(tmp_path, rain(frames=12, shape=(8, 8)), name="b")]
    result = score([Constant(3, lead_frames=1), Persistence()], records, selection=Selection(start=START + 30 * MINUTES))
    first, second = result.about["records"]
    assert (first["name"], first["num_cases"], first["num_frames"], first["grid"]) == ("a", 13, 20, "20 × 8, 1 × 1 km")
    assert (first["first_case"], first["last_case"]) == ("2020-06-01T00:30:00", "2020-06-01T01:30:00")
    assert second["num_cases"] == 5
    assert result.about["forecasters"]["persistence"]["kind"] == "baseline"
    json.dumps(result.about)


def test_rows_have_exactly_the_columns_and_no_row_twice(tmp_path):
    rows = score([Constant(1), Persistence()], record(tmp_path, rain(frames=12, shape=(8, 8)))).rows()
    assert all(tuple(row) == COLUMNS for row in rows)
    columns = ("forecaster", "against", "lead_minutes", "threshold", "scale_km", "score")
    keys = [tuple(row[column] for column in columns) for row in rows]
    assert len(set(keys)) == len(keys)
    assert {row["score"] for row in rows} == {name + view for name in FIELD_SCORES for view in ("", "_mean_over_leads")}


def blocks(num_blocks, *, names=("x",), leads=3):
    rng = np.random.default_rng(0)
    result = Evaluation(tuple(5.0 * n for n in range(1, leads + 1)), THRESHOLDS, RAIN_RATE, ["a"])
    for name in names:
        for block in range(num_blocks):
            forecast, observed = rng.gamma(0.3, 4, (2, leads, 12, 12)).astype(np.float32)
            result.add(name, ("a", str(block)), sums(forecast, observed, None, THRESHOLDS))
    result.num_cases = num_blocks
    return result


def test_intervals_are_those_of_the_score_itself():
    result = blocks(8)
    parts, rows = list(result.blocks["x"].values()), result.rows()
    low, high = interval(parts, "csi")
    row = find(rows, score="csi", lead_minutes=10.0, threshold=1.0)
    assert (row["low"], row["high"]) == (low[1, 1], high[1, 1])
    assert row["low"] < row["value"] < row["high"]
    low, high = interval([part.pooled() for part in parts], "rmse")
    row = find(rows, score="rmse", lead_minutes=None)
    assert (row["low"], row["high"]) == pytest.approx((low[0], high[0]))
    low, high = interval(parts, SCORES["csi"].mean_over_leads)
    row = find(rows, score="csi_mean_over_leads", threshold=1.0)
    assert (row["low"], row["high"]) == (low[1], high[1])
    assert row["value"] == SCORES["csi"].mean_over_leads(result.total("x"))[1]


def test_differences_to_each_baseline_are_paired():
    result = blocks(8, names=("x", "extrapolation", "persistence"))
    rows, parts = result.rows(), {name: [tally["pairs"] for tally in found.values()] for name, found in result.blocks.items()}
    for against in ("persistence", "extrapolation"):
        at = {"lead_minutes": 10.0, "threshold": 1.0, "score": "csi"}
        row = find(rows, forecaster="x", against=against, **at)
        values = [find(rows, forecaster=name, **at)["value"] for name in ("x", against)]
        assert row["value"] == values[0] - values[1]
        low, high = difference_interval(parts["x"], parts[against], SCORES["csi"])
        assert (row["low"], row["high"]) == (low[1, 1], high[1, 1])
        mean = find(rows, forecaster="x", against=against, score="csi_mean_over_leads", threshold=1.0)
        low, high = difference_interval(parts["x"], parts[against], SCORES["csi"].mean_over_leads)
        assert (mean["low"], mean["high"]) == (low[1], high[1])
        pooled = find(rows, forecaster="x", against=against, score="rmse", lead_minutes=None)
        low, high = difference_interval(parts["x"], parts[against], SCORES["rmse"].pooled)
        assert (pooled["low"], pooled["high"]) == (low[0], high[0])
    compared = {(row["forecaster"], row["against"]) for row in rows if row["against"]}
    assert compared == {("x", "persistence"), ("x", "extrapolation"), ("extrapolation", "persistence")}


def test_windows_and_spectra_have_their_own_numbers_of_cases_and_pairs(tmp_path):
    fields = rain(frames=4, shape=(30, 34))
    fields[3, :, 10:20] = np.nan
    result = score([Constant(1), Persistence()], record(tmp_path, fields))
    rows = result.rows()
    at = {"forecaster": "persistence", "threshold": 1.0}
    first = find(rows, **at, lead_minutes=10.0, score="fss", scale_km=5.0)
    assert (first["num_cases"], first["num_pairs"]) == (2, 26 * 30 + 26 * (6 + 10))
    wide = find(rows, **at, lead_minutes=10.0, score="fss", scale_km=20.0)  # 21 cells: none beside the hole
    assert (wide["num_cases"], wide["num_pairs"]) == (1, 10 * 14)
    huge = find(rows, **at, lead_minutes=10.0, score="fss", scale_km=40.0)
    assert (huge["num_cases"], huge["num_pairs"], math.isnan(huge["value"])) == (0, 0, True)
    assert find(rows, **at, lead_minutes=None, score="fss", scale_km=20.0)["num_cases"] == 2
    assert find(rows, **at, lead_minutes=None, score="fss", scale_km=40.0)["num_cases"] == 0
    assert find(rows, **at, lead_minutes=None, score="csi")["num_cases"] == 2
    spectrum = find(rows, forecaster="persistence", lead_minutes=10.0, score="spectrum_ratio", scale_km=4.0)
    assert (spectrum["num_cases"], spectrum["num_pairs"]) == (2, 30 * 34 + 30 * 24)


def test_a_dry_record_has_no_scores_of_events_and_no_error(tmp_path):
    result = score([Persistence(), Extrapolation()], record(tmp_path, np.zeros((20, 30, 30))))
    assert result.num_cases == 5
    values = {row["score"]: row["value"] for row in result.rows() if row["lead_minutes"] is None and not row["against"]}
    undefined = {name for name, value in values.items() if math.isnan(value)}
    assert {"csi", "fss", "correlation", "spectrum_ratio", "effective_resolution"} <= undefined
    assert (values["mae"], values["accuracy"], values["ssim"]) == (0, 1, 1)
    assert "0.5, 1, 5 or 10 mm/h or more was never observed: " in table(result)


def test_too_few_blocks_give_no_interval():
    assert all(math.isnan(row["low"]) and math.isnan(row["high"]) for row in blocks(4).rows())


def test_at_most_one_case_is_read_at_once(tmp_path, monkeypatch):
    a = record(tmp_path, rain(frames=80, shape=(8, 8)))
    read, sizes = Record.read, []

    def counted(self, positions):
        sizes.append(len(positions))
        return read(self, positions)

    monkeypatch.setattr(Record, "read", counted)
    assert score([Constant(1, lead_frames=3), Extrapolation()], a).num_cases == 74
    assert max(sizes) == 4


@pytest.mark.parametrize("name", ["persistence", "extrapolation"])
def test_a_perfect_extrapolation_is_seen_as_such(tmp_path, name):
    a = record(tmp_path, rain(frames=16, shape=(64, 64), motion=(0, 1)))
    result = score([BASELINES[name]()], a)
    csi = SCORES["csi"](result.total(name).pooled())[0, 1]
    assert csi > 0.85 if name == "extrapolation" else csi < 0.6
