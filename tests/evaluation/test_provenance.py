"""What a network was trained on is reported beside its scores, and cases within its training period are counted."""

import numpy as np
import pytest
import torch
from makers import rain, tiny_run, write_record

from nowcast.evaluation.examples import ScoredCase
from nowcast.evaluation.provenance import describe_forecaster, num_within
from nowcast.forecasters import open_forecaster

SPANS = [["a", "2020-06-01T00:00:00Z", "2020-06-01T01:00:00Z"], ["b", "2020-06-02T00:00:00Z", "2020-06-02T01:00:00Z"]]


def case(time, record="a"):
    return ScoredCase(record, np.datetime64(time, "s"), 0.5, 1)


@pytest.mark.parametrize(
    ("scored", "expected"),
    [
        (case("2020-06-01T00:00"), 1),
        (case("2020-06-01T01:00"), 1),
        (case("2020-06-01T01:05"), 0),
        (case("2020-06-02T00:30"), 0),  # that time of another record
        (case("2020-06-02T00:30", "b"), 1),
        (case("2020-06-01T00:30", "c"), 0),
    ],
)
def test_a_case_counts_where_its_record_and_time_were_trained_on(scored, expected):
    assert num_within([scored], SPANS) == expected


def test_a_network_is_described_by_its_checkpoint_and_training_period(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    record = write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28)))
    network = open_forecaster(str(tiny_run(tmp_path / "run", [record])), device=torch.device("cpu"))
    facts = describe_forecaster(network, [case("2020-06-01T00:30", "rain"), case("2021-06-01T00:30", "rain")])
    assert (facts["kind"], facts["digest"], facts["num_cases_in_training"]) == ("network", network.digest, 1)
    assert facts["trained_on"][0][:2] == ["rain", "2020-06-01T00:00:00"]
    assert "2 past frames" in facts["what"]
