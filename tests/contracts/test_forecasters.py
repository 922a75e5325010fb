"""The contract of forecasters.forecaster, kept by every baseline, every model as a network, and forecast files."""

import numpy as np
import pytest
import torch
from makers import rain, write_record
from makers.models import FIXED_GRID, OF_DISTRIBUTIONS, SMALL, untrained_network

from nowcast.errors import NotEnoughFrames, UsageError
from nowcast.evaluation.provenance import describe_forecaster
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.baselines import BASELINES, available
from nowcast.forecasters.forecaster import DEFAULT_LEADS, Forecaster
from nowcast.models import MODELS
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.opening import open_records
from nowcast.quantity import RAIN_RATE

CPU = torch.device("cpu")
FILES = "forecast files"
GRID = (12, 12)
LEADS = np.array([5, 10, 15]) * np.timedelta64(60, "s")
MAKERS = [*available(), *MODELS]


def frames(number, *, seed=0):
    return rain(frames=number, shape=GRID, seed=seed)


@pytest.fixture
def record(tmp_path):
    return open_records([write_record(tmp_path / "observed.nc", frames(8))])[0]


def made(name, record, folder):
    if name in BASELINES:
        return BASELINES[name]()
    if name in MODELS:
        return untrained_network(name)
    path = folder / "forecasts.nc"
    cases = [(record.times[3], frames(3, seed=1))]
    write_forecast(path, cases, grid=record.grid, lead_times=LEADS, quantity=RAIN_RATE, attributes={}, single=True)
    return open_forecaster(str(path), device=CPU)


@pytest.fixture(params=[*MAKERS, FILES])
def forecaster(request, record, tmp_path):
    return made(request.param, record, tmp_path)


@pytest.fixture(params=MAKERS)
def maker(request, record, tmp_path):
    return made(request.param, record, tmp_path)


def test_every_member_has_a_value(forecaster, record):
    assert isinstance(forecaster, Forecaster)
    for text in (forecaster.name, forecaster.source, forecaster.citation):
        assert isinstance(text, str)
        assert text
    assert 1 <= forecaster.input_frames <= forecaster.most_past_frames
    assert forecaster.num_leads == (forecaster.lead_frames or DEFAULT_LEADS) == (forecaster.leads_on(record) or DEFAULT_LEADS)
    assert forecaster.time_step(record) == np.timedelta64(300, "s")
    assert forecaster.own_time_step(record) in (None, np.timedelta64(300, "s"))
    assert forecaster.num_members >= 1
    assert forecaster.cases_at_once(GRID) >= 1
    assert forecaster.reading is None or set(forecaster.reading) <= {"variable", "units", "zr_a", "zr_b"}
    assert forecaster.is_probabilistic <= bool(forecaster.thresholds) or forecaster.num_members > 1
    assert isinstance(forecaster.on_record(record, record.time_step), type(forecaster))
    assert forecaster.makes_forecasts == (forecaster.reference_times is None)
    assert {"kind", "what"} <= set(describe_forecaster(forecaster, [record], [], np.timedelta64(0, "s")))


def test_every_forecaster_answers_for_one_case(forecaster, record):
    past = record.read(range(4))
    field, exceedance = forecaster.forecast_one(past, record.times[3], LEADS)
    assert field.shape == (3, *GRID)
    assert exceedance is None
    if forecaster.thresholds:
        field, exceedance = forecaster.forecast_one(past, record.times[3], LEADS, (0.5, 2.0))
        assert exceedance.shape == (2, 3, *GRID)
        np.testing.assert_array_equal(np.isnan(exceedance), np.isnan(field)[None].repeat(2, axis=0))


def test_shapes_and_types_follow_the_past(maker):
    past = np.stack([frames(4), frames(4, seed=2)])
    for leads in (1, 3):
        forecast = maker.forecast(past, leads)
        assert (forecast.shape, forecast.dtype) == ((2, leads, *GRID), np.float32)


def test_what_is_missing_in_every_past_frame_stays_missing(maker):
    past = np.nan_to_num(frames(4)[None])
    past[:, :, :3, :3] = np.nan
    forecast = maker.forecast(past, 1)
    assert np.isnan(forecast[:, :, 0, 0]).all()
    assert np.isfinite(forecast).any()


def test_too_few_past_frames_are_refused(maker):
    past = frames(4)[None, : maker.input_frames - 1]
    with pytest.raises(UsageError, match=f"{maker.name} needs {maker.input_frames} past frames? but got"):
        maker.forecast(past, 2)


def test_probabilities_are_given_by_those_that_have_thresholds_alone(maker):
    past = frames(4)[None]
    if not maker.thresholds:
        with pytest.raises(UsageError, match=f"{maker.name} gives no probabilities"):
            maker.forecast_and_exceedance(past, 2, (1.0,))
        return
    forecast, exceedance = maker.forecast_and_exceedance(past, 2, (1.0, 5.0))
    assert exceedance.shape == (1, 2, 2, *GRID)
    known = np.isfinite(forecast)[:, :, None].repeat(2, axis=2)
    assert ((exceedance[known] >= 0) & (exceedance[known] <= 1)).all()


def test_a_record_without_a_time_step_is_refused_by_those_that_have_none(tmp_path):
    single = open_records([write_record(tmp_path / "single.nc", frames(1))])[0]
    for name in available():
        with pytest.raises(NotEnoughFrames, match="has a single frame"):
            BASELINES[name]().time_step(single)


def test_forecast_files_make_no_forecasts(record, tmp_path):
    opened = made(FILES, record, tmp_path)
    assert opened.files == (tmp_path / "forecasts.nc",)
    assert opened.reference_times.tolist() == [record.times[3].item()]
    with pytest.raises(UsageError, match="which cannot make new forecasts"):
        opened.forecast(frames(4)[None], 3)


def test_a_forecast_file_names_the_paper_of_its_own_model():
    papers = {name: untrained_network(name).citation for name in SMALL}
    assert set(papers) == set(MODELS)
    assert papers["convgru"] == papers["trajgru"] == papers["multiscale"] == "Shi et al. (2017), arXiv 1706.03458"
    assert "Keras" in papers["next_frame"]
    assert all("1502.04681" in papers[name] for name in FIXED_GRID)
    assert all("Seed (2003)" in papers[name] for name in OF_DISTRIBUTIONS)
    assert papers["encoder_forecaster"].startswith("Shi et al. (2015), arXiv 1506.04214")
