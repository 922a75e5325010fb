"""Forecasts whose times are not observed, not yet observed, or of sums in place of frames: each is told apart."""

import json

import numpy as np
import pytest
from makers import command, rain, write_record

from nowcast.evaluation.missing import Remarks
from nowcast.evaluation.windows import find_cases
from nowcast.forecasters.baselines import Persistence
from nowcast.forecasters.forecast_files import unlike
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.opening import open_records
from nowcast.prediction.cases import Selection


def test_forecasts_of_another_time_are_not_to_be_tried_again(tmp_path):
    path = write_record(tmp_path / "a.nc", rain(frames=8, shape=(8, 8)))
    assert command("predict", "persistence", path, "--leads", "3", "--output", tmp_path / "f.nc")[0] == 0
    times = np.datetime64("2001-01-01T00:00:00") + 300 * np.arange(8)
    old = write_record(tmp_path / "old.nc", rain(frames=8, shape=(8, 8)), times=times)
    code, _, err = command("evaluate", tmp_path / "f.nc", "--observations", old)
    assert (code, "no overlap in time" in err) == (3, True), err


def test_forecasts_that_are_not_observed_yet_are_told_to_be_tried_again(tmp_path):
    path = write_record(tmp_path / "a.nc", rain(frames=8, shape=(8, 8)))
    assert command("predict", "persistence", path, "--leads", "3", "--output", tmp_path / "f.nc")[0] == 0
    code, _, err = command("evaluate", tmp_path / "f.nc", "--observations", path)
    assert code == 75
    assert (
        "f has forecasts from 2020-06-01T00:35:00Z, which are not observed yet: the record ends at 2020-06-01T00:35:00Z." in err
    )


def test_sums_that_are_compared_with_single_frames_are_told(tmp_path):
    path = write_record(tmp_path / "a.nc", rain(frames=48, shape=(16, 16)))
    given = "--reference-time", "2020-06-01T02:00", "--leads", "12", "--sums", "30", "--output", tmp_path / "f.nc"
    assert command("predict", "persistence", path, *given)[0] == 0
    says = "rain_sum_30_min holds amounts over 30 min, but each is compared with a single frame of a, which has a time step of"
    for of_sums in (True, False):
        variable = "--variable", f"{'rain_sum_30_min' if of_sums else 'precip_intensity'},rainfall_rate"
        code, _, err = command("evaluate", tmp_path / "f.nc", "--observations", path, *variable)
        assert (code, says in err) == (0, of_sums), err
    pictured = "--variable", "rain_sum_30_min", "--observations", path, "--output", tmp_path / "p.png"
    code, _, err = command("plot", tmp_path / "f.nc", *pictured)
    assert (code, says in err) == (0, True), err


def test_forecasts_that_are_not_scored_are_counted(tmp_path):
    frames = rain(frames=40, shape=(16, 16))
    path = write_record(tmp_path / "a.nc", frames)
    given = "--start", "2020-06-01T00:15", "--leads", "2", "--every", "15"
    assert command("predict", "persistence", path, *given, "--output", tmp_path / "f.nc")[0] == 0  # 00:15 to 03:15
    kept = np.delete(np.arange(40), [18, 19, 20])  # 01:30 to 01:40: the cases of 01:30 and 01:45, and of 03:15 at the end
    times = np.datetime64("2020-06-01T00:00:00") + 300 * kept
    gappy = write_record(tmp_path / "gappy.nc", frames[kept], times=times)
    observed = "evaluate", tmp_path / "f.nc", "--observations", gappy, "--format", "csv"
    says = "f: left out {} of {} reference times, since the observations lack frames there, or another file the forecast"
    for options, scored, left_out in (
        ((), 10, (3, 13)),
        (("--end", "2020-06-01T01:20"), 5, None),
        (("--every", "60"), 3, None),
    ):
        code, out, err = command(*observed, *options)
        assert code == 0, err
        assert out.splitlines()[1].split(",")[-2] == str(scored), out[:300]
        assert ("f: left out" in err) == bool(left_out), err
        assert not left_out or says.format(*left_out) in err, err


def test_lead_times_that_another_forecaster_lacks_are_told_once(tmp_path, caplog):
    paths = [write_record(tmp_path / f"{name}.nc", rain(frames=16, shape=(size, 8))) for name, size in (("a", 8), ("b", 9))]
    forecasters = {"long": Persistence(), "short": Persistence(), "any": Persistence()}
    for name, leads in (("long", 4), ("short", 2)):
        forecasters[name].limit_leads(leads)
    records = open_records(paths)
    assert [cases.lead_frames for cases in find_cases(forecasters, records, Selection(), Remarks())] == [2, 2]
    assert caplog.messages == ["long: only 2 of its 4 lead times are scored, since short has no more"]
    forecasters["any"].limit_leads(4)
    forecasters["longest"] = Persistence()
    forecasters["longest"].limit_leads(5)
    caplog.clear()
    find_cases(forecasters, records, Selection(), Remarks())
    assert caplog.messages == [
        "long and any: only 2 of their 4 lead times are scored, since short has no more",
        "longest: only 2 of its 5 lead times are scored, since short has no more",
    ]
    caplog.clear()
    for name in ("long", "any", "longest"):
        forecasters[name].limit_leads(2)
    find_cases(forecasters, records, Selection(), Remarks())
    assert not caplog.messages


@pytest.mark.parametrize(("leads", "minutes"), [(1, [10]), (2, [10, 20]), (3, [10, 20, 30])])
def test_leads_counts_lead_times_that_the_record_has(tmp_path, leads, minutes):
    frames = rain(frames=24, shape=(16, 16))
    path = write_record(tmp_path / "a.nc", frames)
    given = "--reference-time", "2020-06-01T00:40", "--leads", "6", "--output", tmp_path / "f.nc"
    assert command("predict", "persistence", path, *given)[0] == 0  # 5, 10, … 30 min
    times = np.datetime64("2020-06-01T00:00:00") + 600 * np.arange(12)
    every_10_minutes = write_record(tmp_path / "b.nc", frames[::2], times=times)
    options = "--observations", every_10_minutes, "--leads", str(leads), "--format", "json"
    code, out, err = command("evaluate", tmp_path / "f.nc", *options)
    assert (code, "has no more" in err) == (0, False), err
    assert f"f: left out {leads} of {2 * leads} lead times, because b has no frame then (its time step is 10 min)" in err
    assert json.loads(out)["lead_minutes"] == minutes


def summed(path, minutes, *, every):
    """A record of amounts over the last `minutes`, mm, `every` so many minutes for five hours."""
    fields = rain(frames=300 // every + 1, shape=(16, 16)) * np.float32(minutes / 60)
    named = {"units": "mm", "standard_name": "lwe_thickness_of_precipitation_amount"}
    return write_record(path, fields, step_minutes=every, cell_methods=f"time: sum over {minutes} minutes", **named)


@pytest.mark.parametrize(("minutes", "every", "is_told"), [(60, 60, True), (10, 10, False), (10, 60, False)])
def test_rates_that_are_compared_with_longer_sums_are_told(tmp_path, minutes, every, is_told):
    path = write_record(tmp_path / "a.nc", rain(frames=8, shape=(16, 16)), step_minutes=10)
    options = "--leads", "18", "--output", tmp_path / "f.nc"
    assert command("predict", "persistence", path, *options)[0] == 0  # from 01:10, every 10 min until 04:10
    found = open_records([summed(tmp_path / "b.nc", minutes, every=every)])[0]
    told = unlike(read_forecast(tmp_path / "f.nc"), found)
    says = "b holds amounts over 60 min, but each is compared with a single field of precip_intensity, which has "
    assert told == (f"{says}rates every 10 min." if is_told else None)


def test_hourly_sums_are_compared_with_hourly_sums_every_10_minutes(tmp_path):
    path = write_record(tmp_path / "a.nc", rain(frames=8, shape=(16, 16)), step_minutes=10)
    options = "--leads", "18", "--sums", "60", "--output", tmp_path / "f.nc"
    assert command("predict", "persistence", path, *options)[0] == 0
    forecasts = read_forecast(tmp_path / "f.nc", variable="rain_sum_60_min")
    told = [unlike(forecasts, open_records([summed(tmp_path / f"{n}.nc", n, every=10)])[0]) for n in (60, 10)]
    assert told[0] is None
    assert told[1].startswith("rain_sum_60_min holds amounts over 60 min, but each is compared with a single frame of 10, ")
