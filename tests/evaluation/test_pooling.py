"""Pooled scores.nc files equal one evaluation; files that overlap or do not fit together are refused by name."""

import json
import re

import netCDF4
import numpy as np
import pytest
from makers import command, rain, write_record

from nowcast.errors import DataError, UsageError
from nowcast.evaluation import evaluate as evaluation_evaluate
from nowcast.evaluation.pooling import is_scores_file, pool, read_scores
from nowcast.evaluation.score_files import as_dataset, as_json, write_dataset
from nowcast.forecasters.baselines import Extrapolation, Persistence
from nowcast.netcdf.opening import open_records
from nowcast.prediction.cases import Selection
from nowcast.scores.pixels import THRESHOLDS

pytestmark = pytest.mark.slow  # they share an evaluation that takes seconds

BOTH = (Persistence(), Extrapolation())
DAYS = ("2020-06-01", "2020-06-02", "2020-06-03")


def times(day, step_minutes):
    return np.datetime64(f"{day}T12:00:00") + np.arange(18) * np.timedelta64(step_minutes, "m")


def days_record(path, days, *, step_minutes=5):
    """Rain of 18 frames on each day, its own on each."""
    fields = [rain(frames=18, shape=(32, 36), seed=int(day[-2:])) for day in days]
    for n, day in enumerate(days):
        fields[n][:, :4, : int(day[-2:])] = np.nan
    return write_record(path, np.concatenate(fields), times=np.concatenate([times(day, step_minutes) for day in days]))


def evaluate(output, record, *, thresholds=THRESHOLDS, sources=BOTH):
    """The scores.nc of these forecasters on a record, without the pictures that a command would make."""
    named = {source.name: source for source in sources}
    result = evaluation_evaluate.evaluate(named, open_records([record]), selection=Selection(), thresholds=thresholds)
    output.mkdir()
    rows = result.rows()
    write_dataset(as_dataset(result, rows), output / "scores.nc")
    (output / "scores.json").write_text(as_json(result, rows))
    return output / "scores.nc"


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The folder with records of several days, and their scores one by one and at once."""
    folder = tmp_path_factory.mktemp("pooling")
    for name, days in {"first": DAYS[:1], "rest": DAYS[1:], "all": DAYS}.items():
        (folder / name).mkdir()
        evaluate(folder / f"scores_{name}", days_record(folder / name / "radar.nc", days))
    return folder


def assert_same(row, other):
    """Every number to 1e-9, everything else exactly."""
    for key, value in row.items():
        number = isinstance(value, float) and isinstance(other[key], float)
        assert value == (pytest.approx(other[key], rel=1e-9, abs=1e-9, nan_ok=True) if number else other[key]), (key, row)


def test_pooled_scores_are_those_of_one_evaluation(scored):
    first, rest, whole = (scored / f"scores_{name}" / "scores.nc" for name in ("first", "rest", "all"))
    pooled, at_once = pool([rest, first]), read_scores(whole)
    assert (pooled.num_cases, pooled.num_blocks, pooled.records) == (at_once.num_cases, 3, ["radar"]) == (9, 3, ["radar"])
    rows, others = pooled.rows(), at_once.rows()
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert_same(row, other)


def test_the_command_pools_without_observations(scored, tmp_path, undrawn):
    files = [scored / f"scores_{name}" / "scores.nc" for name in ("first", "rest")]
    code, out, err = command("evaluate", *files, "--output", tmp_path / "both", "--format", "json")
    assert code == 0, err
    assert not re.search(r"\d it/s", err)
    told = json.loads(out)
    whole = json.loads((scored / "scores_all" / "scores.json").read_text())
    assert told["num_cases"] == whole["num_cases"] == 9
    for row, other in zip(told["scores"], whole["scores"], strict=True):
        assert_same(row, other)
    assert {"report.html", "scores.csv", "scores.json", "scores.nc"} <= {path.name for path in (tmp_path / "both").iterdir()}
    assert not (tmp_path / "both" / "forecasts.png").exists()
    again = pool([tmp_path / "both" / "scores.nc"])
    assert again.num_cases == 9


def test_the_same_day_twice_is_refused(scored):
    whole, rest = (scored / f"scores_{name}" / "scores.nc" for name in ("all", "rest"))
    with pytest.raises(UsageError, match=r"both hold radar on 2020-06-02: its cases would count twice\.\nPool evaluations of"):
        pool([whole, rest])
    code, _, err = command("evaluate", rest, rest)
    assert code == 2
    assert err.startswith(f"error: {rest} is named twice: its cases would count twice")


def test_the_same_day_in_a_third_file_is_refused_with_the_names_of_both(scored):
    first, rest, whole = (scored / f"scores_{name}" / "scores.nc" for name in ("first", "rest", "all"))
    for paths, day in (((first, rest, rest), "2020-06-02"), ((rest, first, whole), "2020-06-01")):
        with pytest.raises(UsageError, match=f"{paths[1]} and {paths[2]} both hold radar on {day}"):
            pool(paths)


def changed(path, source, **attributes):
    """A copy of a scores.nc with other attributes, and with other forecasters in what it tells about them."""
    path.write_bytes(source.read_bytes())
    with netCDF4.Dataset(path, "a") as file:
        about = json.loads(file.about)
        about["forecasters"] = attributes.pop("forecasters", about["forecasters"])
        file.setncatts(attributes | {"about": json.dumps(about)})
    return path


def test_numbers_of_cases_add_and_what_is_known_of_a_forecaster_stays(scored, tmp_path):
    told = [{"digest": "a", "num_cases_in_training": 2, "what": "first"}, {"digest": "a", "num_cases_in_training": 1, "new": 4}]
    paths = [
        changed(tmp_path / f"{name}.nc", scored / f"scores_{name}" / "scores.nc", forecasters={"persistence": each})
        for name, each in zip(("first", "rest"), told, strict=True)
    ]
    pooled = {"digest": "a", "num_cases_in_training": 3, "what": "first", "new": 4}
    assert pool(paths).about["forecasters"] == {"persistence": pooled}


def test_another_quantity_is_refused(scored, tmp_path):
    first, rest = (scored / f"scores_{name}" / "scores.nc" for name in ("first", "rest"))
    with pytest.raises(UsageError, match="because their quantities differ"):
        pool([first, changed(tmp_path / "rest.nc", rest, quantity="intensity")])


def test_other_kinds_of_sums_are_refused(scored, tmp_path):
    first, rest = (scored / f"scores_{name}" / "scores.nc" for name in ("first", "rest"))
    fewer = changed(tmp_path / "rest.nc", rest)
    with netCDF4.Dataset(fewer, "a") as file:
        file["has_windows"][list(file["forecaster"][:]).index("extrapolation")] = 0
    told = r"because their kinds of sums of extrapolation differ: only the {} file has windows\.\nAn older version .* again"
    for paths, which in (([first, fewer], "first"), ([fewer, first], "second")):
        with pytest.raises(UsageError, match=told.format(which)):
            pool(paths)
    with netCDF4.Dataset(fewer, "a") as file:  # no forecaster: the scales of windows are no difference of their own
        file["has_windows"][:] = 0
    with pytest.raises(UsageError, match=told.format("first")):
        pool([first, fewer])


@pytest.mark.parametrize("factor", [0, 1])
def test_dry_days_and_days_of_as_many_pixels_are_pooled(tmp_path, factor):
    paths = []
    for seed, name in enumerate(("one", "two")):
        fields = factor * rain(frames=18, shape=(32, 36), seed=seed)
        record = write_record(tmp_path / f"{name}.nc", fields, times=times(DAYS[0], 5))
        paths.append(evaluate(tmp_path / name, record, sources=[Persistence()]))
    pooled = pool(paths)
    assert (pooled.num_cases, pooled.num_blocks, pooled.records) == (12, 2, ["one", "two"])


def test_the_same_rain_under_another_name_is_refused(scored, tmp_path):
    renamed = evaluate(tmp_path / "scores", days_record(tmp_path / "other.nc", DAYS[:1]))
    with pytest.raises(UsageError, match=r"radar on 2020-06-01 .* and other on 2020-06-01 .* are the same observations under"):
        pool([scored / "scores_first" / "scores.nc", renamed])


def test_what_differs_is_named(scored, tmp_path):
    first, record = scored / "scores_first" / "scores.nc", days_record(tmp_path / "radar.nc", ["2020-06-09"])
    other = evaluate(tmp_path / "one", record, thresholds=(1.0, 5.0))
    with pytest.raises(UsageError, match=r"scores\.nc cannot be pooled, because their thresholds differ:\n0\.5 1 5 10 \| 1 5"):
        pool([first, other])
    other = evaluate(tmp_path / "two", record, sources=[Persistence()])
    with pytest.raises(UsageError, match=r"their forecasters differ:\nextrapolation persistence \| persistence$"):
        pool([first, other])
    slow = days_record(tmp_path / "slow.nc", ["2020-06-09"], step_minutes=10)
    other = evaluate(tmp_path / "three", slow)
    with pytest.raises(UsageError, match=r"their lead times differ:\n5 10 .* 60 \| 10 20 .* 120"):
        pool([first, other])


def test_a_pooled_result_describes_records_and_forecasters_of_both_files(scored):
    about = pool([scored / "scores_first" / "scores.nc", scored / "scores_rest" / "scores.nc"]).about
    assert [(record["name"], record["num_cases"]) for record in about["records"]] == [("radar", 3), ("radar", 6)]
    assert set(about["forecasters"]) == {"persistence", "extrapolation"}


def test_what_each_evaluation_left_out_is_told_with_its_file(scored, tmp_path, caplog):
    paths = [scored / "scores_first" / "scores.nc", tmp_path / "rest.nc"]
    paths[1].write_bytes((scored / "scores_rest" / "scores.nc").read_bytes())
    with netCDF4.Dataset(paths[1], "a") as file:
        file.about = json.dumps(json.loads(file.about) | {"left_out": ["net: left out 2 of 3 cases"]})
    says = [f"{paths[1]}: net: left out 2 of 3 cases"]
    for order in (paths, paths[::-1]):
        caplog.clear()
        assert pool(order).about["left_out"] == says == caplog.messages


def test_another_checkpoint_under_the_same_name_is_refused(scored, tmp_path):
    paths = []
    for n, name in enumerate(("first", "rest")):
        paths.append(tmp_path / f"{name}.nc")
        paths[n].write_bytes((scored / f"scores_{name}" / "scores.nc").read_bytes())
        with netCDF4.Dataset(paths[n], "a") as file:
            about = json.loads(file.about)
            about["forecasters"]["extrapolation"] |= {"digest": str(n), "num_cases_in_training": 0}
            file.about = json.dumps(about)
    with pytest.raises(UsageError, match="because extrapolation is a different checkpoint in each"):
        pool(paths)
    assert pool(paths[:1]).about["forecasters"]["extrapolation"]["digest"] == "0"


def test_scores_and_forecasters_do_not_mix(scored):
    scores = scored / "scores_first" / "scores.nc"
    code, _, err = command("evaluate", scores, "persistence", "--observations", scored / "first" / "radar.nc")
    assert code == 2
    assert err == f"error: {scores} holds scores and persistence does not: pool scores.nc files alone\n"
    for option in (("--observations", scored / "first" / "radar.nc"), ("--thresholds", "1"), ("--every", "30")):
        code, _, err = command("evaluate", scores, *option)
        assert code == 2
        assert err == f"error: {option[0]} cannot be given with scores.nc files, in which it is fixed\n"


def test_without_scores_files_observations_are_asked_for():
    code, out, err = command("evaluate", "persistence")
    assert (code, out, err) == (2, "", "error: Missing option '--observations'.\nSee nowcast evaluate -h\n")


def test_a_file_that_is_no_scores_file_is_recognised(scored, tmp_path):
    assert is_scores_file(str(scored / "scores_first" / "scores.nc"))
    (tmp_path / "bad.nc").write_text("no NetCDF")
    for name in (scored / "first" / "radar.nc", tmp_path / "bad.nc", tmp_path / "absent.nc", scored, "persistence"):
        assert not is_scores_file(str(name))


def damaged(scored, tmp_path):
    copy = tmp_path / "scores.nc"
    copy.write_bytes((scored / "scores_first" / "scores.nc").read_bytes())
    return copy


def test_scores_of_another_format_or_without_their_sums_are_refused(scored, tmp_path):
    copy = damaged(scored, tmp_path)
    with netCDF4.Dataset(copy, "a") as file:
        file.renameVariable("block_hits", "block_bits")
    with pytest.raises(DataError, match=r"scores\.nc cannot be read as scores: .*block_hits.*\nEvaluate again"):
        read_scores(copy)
    with netCDF4.Dataset(copy, "a") as file:
        file.nowcast_scores_format = 99
    with pytest.raises(DataError, match="is of format 99; this nowcast reads format 1"):
        read_scores(copy)
