"""The program of a network that needs the motion of the rain gives what the network gives, step by step and as a file."""

import json
import re

import cv2
import numpy as np
import pytest
import torch
from makers import rain
from makers.models import untrained_network

import nowcast.motion
from nowcast.commands.export import OLDEST_FOR_PT2
from nowcast.errors import DataError, UsageError
from nowcast.forecasters import export, export_formats, moving
from nowcast.models.probabilistic.matching import MATCHING, match_areas
from nowcast.motion import motion, read_at, trace

pytestmark = pytest.mark.slow
GRID = (40, 44)


def network(name, **keys):
    """A network whose weights, cuts and place all matter."""
    made, generator = untrained_network(name, **keys), torch.Generator().manual_seed(2)
    with torch.no_grad():
        made.model.head.weight.normal_(std=0.3, generator=generator)
        for buffer in ("cuts", "place_shift", "place_weight", "reliability"):
            if buffer in dict(made.model.named_buffers()):
                made.model.get_buffer(buffer).normal_(1.0, 0.3, generator=generator)
    return made


def frames():
    past = rain(frames=2, shape=GRID, missing=0.01, seed=3)
    past[:, :6, :9] = np.nan
    return past[None]


NETWORKS = {
    "probabilistic along the motion": ("probabilistic", {"coordinates": "lagrangian"}),
    "probabilistic on the grid": ("probabilistic", {}),
    "guided by cuts": ("guided", {}),
    "guided by areas": ("guided", {"rule": "areas"}),
    "guided of one radar": ("guided", {"grid": GRID}),
    "values along the motion": ("encoder_forecaster", {"coordinates": "lagrangian"}),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_the_program_forecasts_what_the_network_does(case):
    name, keys = NETWORKS[case]
    made, past = network(name, **keys), frames()
    program = moving.Moving(made, made.thresholds)
    for given in (past, np.where(np.isnan(past), np.nan, 0.0).astype(np.float32)):
        with torch.no_grad():
            found = program(torch.from_numpy(given), torch.from_numpy(motion(given[0])[None]))
        expected = (made.forecast(given, 3),)
        if made.thresholds:
            expected = made.forecast_and_exceedance(given, 3, made.thresholds)
        assert len(found) == len(expected)
        for own, other in zip(found, expected, strict=True):
            assert 0 < np.isnan(other).mean() < 0.9
            same = np.isclose(own.numpy(), other, rtol=1e-4, atol=1e-4, equal_nan=True)
            assert same.mean() >= 1 - export.UNEQUAL
    assert np.nanmax(made.forecast(past, 3)) > 0.3


def test_places_and_reading_are_those_of_opencv():
    past = frames()[0]
    flow = motion(past)
    found = list(moving.trace(torch.from_numpy(flow), 3))
    for own, other in zip(found, trace(flow, 3), strict=True):
        np.testing.assert_allclose(torch.stack(own), np.stack(other), atol=1e-4)
        np.testing.assert_allclose(moving.read_known(torch.from_numpy(past), own)[0], read_at(past[0], other), atol=1e-3)
    for channels in (1, 2, 3, 4):  # OpenCV rounds the places for some
        fields = np.random.default_rng(0).normal(size=(channels, *GRID)).astype(np.float32)
        stacked = np.ascontiguousarray(np.moveaxis(fields, 0, -1))
        expected = cv2.remap(stacked, *map(np.asarray, found[1]), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        read = moving.read_linear(torch.from_numpy(fields), found[1], zero_outside=False, channels=channels)
        np.testing.assert_allclose(np.moveaxis(read.numpy(), 0, -1), expected.reshape(*GRID, channels), atol=1e-5)


def test_areas_are_matched_without_loops_that_depend_on_values():
    generator = torch.Generator().manual_seed(0)
    odds = torch.randn(1, 1, len(MATCHING.anchors), 500, generator=generator)
    newest = 0.8 * torch.rand(1, 500, generator=generator) ** 3
    validity = (torch.rand(1, 500, generator=generator) > 0.2).float()
    for lead, known in ((1, validity), (12, validity), (3, torch.zeros_like(validity))):
        expected = match_areas(odds, newest, known, lead, MATCHING)[0, 0]
        assert torch.equal(moving.matched_cuts(odds[0, 0], newest[0], known[0], lead, MATCHING), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "keys", "in_onnx"),
    [
        ("probabilistic", {"coordinates": "lagrangian"}, False),  # as ONNX it takes half a minute
        ("guided", {"grid": GRID, "rule": "areas"}, True),  # has the cascade and the matching of areas as well
    ],
)
def test_a_network_with_probabilities_is_a_graph_of_torch_and_of_onnx(name, keys, in_onnx):
    made = network(name, hidden_channels=[2], kernel_sizes=[1], **keys)
    made.lead_frames, past = 1, frames()
    graph, about = export.moving_program(made, GRID), export.description(made, GRID)
    inputs, program = (past, motion(past[0])[None]), graph.module()
    expected = made.forecast_and_exceedance(past, 1, made.thresholds)
    given = [[each.detach() for each in program(*map(torch.from_numpy, inputs))]]
    if in_onnx:
        given.append(export_formats.from_onnx(export_formats.to_onnx(graph, about))(*inputs))
    for found in given:
        for own, other in zip(found, expected, strict=True):
            assert np.isclose(own, other, rtol=1e-4, atol=1e-4, equal_nan=True).mean() >= 1 - export.UNEQUAL
    assert (about["grid"], about["thresholds"], about["lead_frames"]) == ([40, 44], list(made.thresholds), 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(torch.__version__ < OLDEST_FOR_PT2, reason="an older torch cannot save such programs")
def test_a_file_runs_with_the_motion_of_the_rain(tmp_path, caplog):
    made = network("encoder_forecaster", coordinates="lagrangian", hidden_channels=[2], kernel_sizes=[1])
    made.lead_frames = 1
    caplog.set_level("INFO", logger="nowcast")
    call = export.export(made, tmp_path / "m.pt2", GRID)
    assert re.search(r"a forecast of 40 × 44 cells takes \d+\.\d\d s, with the motion; that of nowcast itself \d", caplog.text)
    told = {export_formats.PT2_DESCRIPTION: ""}
    torch.export.load(tmp_path / "m.pt2", extra_files=told)
    assert json.loads(told[export_formats.PT2_DESCRIPTION])["grid"] == [40, 44]
    (field,) = eval(call, {"torch": torch, "nowcast": nowcast, "past": frames()})
    assert np.isclose(field.detach(), made.forecast(frames(), 1), rtol=1e-4, atol=1e-4, equal_nan=True).mean() > 0.999


@pytest.mark.parametrize(("apart", "refused"), [(0.005, False), (0.03, True)])
def test_a_forecast_that_differs_by_more_than_rounding_is_not_written(apart, refused, caplog):
    caplog.set_level("INFO", logger="nowcast")
    made = network("guided")

    def other(past, flow):
        return tuple(output + apart for output in made.forecast_and_exceedance(past, 3, made.thresholds))

    if refused:
        with pytest.raises(ValueError, match="% of its forecast differ from the network's"):
            export.check_moving(other, made, GRID)
    else:
        export.check_moving(other, made, GRID)
        what = ["forecast", "probabilities"]
        assert [line.split(":")[0] for line in caplog.messages if "of the values differ by more than 0.01" in line] == what


@pytest.mark.parametrize("name", ["guided", "encoder_forecaster"])
def test_the_seconds_of_a_forecast_are_without_what_the_first_call_compiles(name, monkeypatch, caplog):
    made, calls, now = network(name, coordinates="grid" if name == "guided" else "lagrangian"), [], [0.0]
    forecast = made.forecast_and_exceedance if made.thresholds else made.forecast

    def own(*arguments):
        now[0] += 7.0 if "own" not in calls else 2.0
        calls.append("own")
        return forecast(*arguments)

    def of_file(past, flow):
        now[0] += 5.0 if "file" not in calls else 3.0
        calls.append("file")
        return forecast(past, made.lead_frames, *([made.thresholds] if made.thresholds else []))

    monkeypatch.setattr(made, forecast.__name__, own)
    monkeypatch.setattr(export.time, "perf_counter", lambda: now[0])
    with caplog.at_level("INFO", logger="nowcast"):
        export.check_moving(of_file, made, GRID)
    assert "a forecast of 40 × 44 cells takes 3.00 s, with the motion; that of nowcast itself 2.00 s" in caplog.text


def test_the_grid_is_asked_for_where_it_matters(tmp_path):
    with pytest.raises(UsageError, match="encoder_forecaster is exported for any grid: leave out --grid"):
        export.export(network("encoder_forecaster"), tmp_path / "m.pt2", GRID)
    with pytest.raises(DataError, match="--grid has a grid of 40 × 40 cells; 'guided' is made for 40 × 44 alone"):
        export.export(network("guided", grid=GRID), tmp_path / "m.pt2", (40, 40))
