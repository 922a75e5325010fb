"""What a network was trained on is reported beside its scores, and cases within its training period are counted."""

import numpy as np
import pytest
import torch
from makers import command, rain, tiny_run, write_record

from nowcast.evaluation.examples import ScoredCase
from nowcast.evaluation.provenance import describe_forecaster, within
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.seen import read_seen
from nowcast.netcdf.opening import open_records

SPANS = [["a", "2020-06-01T00:00:00Z", "2020-06-01T01:00:00Z"], ["b", "2020-06-02T00:00:00Z", "2020-06-02T01:00:00Z"]]


def case(time, record="a"):
    return ScoredCase(record, np.datetime64(time, "s"), 0.5, 1)


@pytest.mark.parametrize(
    ("scored", "expected"),
    [
        (case("2020-06-01T00:00"), 1),
        (case("2020-06-01T00:55"), 1),
        (case("2020-06-01T01:00"), 0),  # its newest frame was seen, and none that is forecast
        (case("2020-05-31T23:30"), 1),  # its last lead time
        (case("2020-05-31T23:25"), 0),
        (case("2020-06-02T00:30"), 0),  # that time of another record
        (case("2020-06-02T00:30", "b"), 1),
        (case("2020-06-01T00:30", "c"), 0),
    ],
)
def test_a_case_counts_where_its_record_and_time_were_trained_on(scored, expected):
    assert within([scored], SPANS, np.timedelta64(30, "m")).tolist() == [bool(expected)]


def test_a_network_is_described_by_its_checkpoint_and_training_period(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    record = write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28)))
    network = open_forecaster(str(tiny_run(tmp_path / "run", [record])), device=torch.device("cpu"))
    times = ("2020-06-01T00:30", "2020-06-01T02:45", "2021-06-01T00:30")
    cases, horizon = [case(time, "rain") for time in times], np.timedelta64(15, "m")
    records = open_records([record])
    facts = describe_forecaster(network, records, cases, horizon)
    assert (facts["kind"], facts["digest"], facts["num_cases_in_training"]) == ("network", network.digest, 1)
    assert (facts["num_cases_in_validation"], facts["num_cases_at_seen_times"]) == (1, 0)
    renamed = open_records([write_record(tmp_path / "other.nc", rain(frames=40, shape=(24, 28)))])
    facts = describe_forecaster(network, renamed, [case(time, "other") for time in times], horizon)
    assert [facts[f"num_cases_{what}"] for what in ("in_training", "in_validation", "at_seen_times")] == [0, 0, 2]
    assert facts["trained_on"][0][:2] == ["rain", "2020-06-01T00:00:00"]
    assert "2 past frames" in facts["what"]


def test_of_a_split_by_days_only_its_days_are_seen(tmp_path, monkeypatch):
    """A checkpoint without stretches has one span from the first day to the last."""
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    record = write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28)))
    network = open_forecaster(str(tiny_run(tmp_path / "run", [record])), device=torch.device("cpu"))
    assert [span[0] for span in network.seen("training")] == ["rain"]
    network.metadata = {"spans": {"training": [["rain", "2020-05-30T12:00:00Z", "2020-06-03T12:00:00Z"]]}}
    assert network.seen("training") == network.metadata["spans"]["training"]
    splits = network.experiment.data.splits.model_copy(update={"by": "days"})
    data = network.experiment.data.model_copy(update={"splits": splits})
    network.experiment = network.experiment.model_copy(update={"data": data})
    numbers = [int(np.datetime64(start[:10], "D").astype(int)) % 10 for _, start, _ in network.seen("training")]
    first = int(np.datetime64("2020-05-30").astype(int)) % 10
    assert numbers == [day % 10 for day in range(first, first + 5) if day % 10 in splits.training_days]


def test_forecast_files_tell_what_their_network_has_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    record = write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28)))
    run, file = tiny_run(tmp_path / "run", [record]), tmp_path / "forecast.nc"
    assert command("predict", run, record, "--start", "2020-06-01T00:30", "-q", "-o", file)[0] == 0
    cases, horizon = [case(f"2020-06-01T{time}", "rain") for time in ("00:30", "02:45", "03:10")], np.timedelta64(15, "m")
    renamed = write_record(tmp_path / "other.nc", rain(frames=40, shape=(24, 28)))
    told = []
    for name in (run, file):
        forecaster = open_forecaster(str(name), device=torch.device("cpu"))
        for each, scored in ((record, cases), (renamed, [case(str(one.reference), "other") for one in cases])):
            facts = describe_forecaster(forecaster, open_records([each]), scored, horizon)
            told.append([facts[f"num_cases_{what}"] for what in ("in_training", "in_validation", "at_seen_times")])
        assert facts["trained_on"] == [["rain", "2020-06-01T00:00:00", facts["trained_on"][0][2]]]
    assert told[:2] == told[2:]
    assert told[0][0] == 1
    assert told[0][1] > 0
    assert told[1][2] == sum(told[0])


def test_a_baselines_file_tells_of_no_training(tmp_path):
    record, file = write_record(tmp_path / "rain.nc", rain(frames=8, shape=(24, 28))), tmp_path / "f.nc"
    assert command("predict", "persistence", record, "-q", "-o", file)[0] == 0
    forecaster = open_forecaster(str(file), device=torch.device("cpu"))
    facts = describe_forecaster(forecaster, [], [], np.timedelta64(1, "h"))
    assert not {"trained_on", "num_cases_in_training"} & set(facts)


def test_what_tells_no_periods_is_warned_of(caplog):
    own = '{"training": {"a": ["2020-06-01T00:00:00Z/2020-06-01T01:00:00Z"]}, "cells_km": [[1, 2]]}'
    times = ('{"training": {"a": ["now/then"]}}', '{"training": {"a": ["2020"]}}')
    others = ("{", "[]", *times, '{"cells_km": [1]}', "[" * 99_999)
    seen = read_seen([own, *others, own], "f")
    assert seen.spans == {"training": SPANS[:1], "validation": []}
    assert seen.cells_km == [(1, 2)]
    assert len(caplog.messages) == len(others)
