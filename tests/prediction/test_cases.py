"""Which reference times are forecast: `every` counts from a full hour, a date is the whole day, leads may be fewer."""

import numpy as np
import pytest
from makers import command, rain, write_record

from nowcast.commands.arguments import parse_time
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.opening import open_records
from nowcast.prediction.cases import Selection, spans

DAY = np.datetime64("2020-06-01T00:00:00")
MINUTE = np.timedelta64(60, "s")


def clock(times):
    return [str(time)[11:16] for time in times]


@pytest.fixture
def record(tmp_path):
    """Open a record of frames every 5 minutes from 14:45 on."""
    times = DAY + (14 * 60 + 45 + 5 * np.arange(40)) * MINUTE
    return open_records([write_record(tmp_path / "a.nc", rain(frames=40, shape=(8, 9)), times=times)])[0]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(every=30), ["15:00", "15:30", "16:00", "16:30", "17:00", "17:30", "18:00"]),
        (Selection(every=60), ["15:00", "16:00", "17:00", "18:00"]),
        (Selection(every=90), ["15:00", "16:30", "18:00"]),
        (Selection(every=60, end=DAY + (15 * 60 + 55) * MINUTE), ["15:00"]),
        (Selection(every=60, start=DAY + (15 * 60 + 10) * MINUTE), ["15:10", "16:10", "17:10"]),
        (Selection(every=60, start=DAY), ["15:00", "16:00", "17:00", "18:00"]),
        (Selection(every=30, start=DAY + (15 * 60 + 2) * MINUTE), ["15:30", "16:00", "16:30", "17:00", "17:30", "18:00"]),
    ],
)
def test_every_counts_from_a_full_hour_or_from_the_start(record, selection, expected):
    complete = np.arange(3, 40)
    assert clock(record.times[complete[selection.select(record, complete)]]) == expected


def test_every_counts_from_the_first_complete_case_where_no_frame_is_on_the_hour(tmp_path):
    times = DAY + (2 + 6 * np.arange(30)) * MINUTE
    record = open_records([write_record(tmp_path / "a.nc", rain(frames=30, shape=(8, 9)), times=times)])[0]
    complete = np.arange(3, 30)
    assert clock(record.times[complete[Selection(every=60).select(record, complete)]]) == ["00:20", "01:20", "02:20"]


@pytest.mark.parametrize("text", ["2010-08-26", "20100826", "2010-W34-4"])
def test_a_date_as_the_end_means_the_whole_day(text):
    assert parse_time(text, "--end", whole_day=True) == np.datetime64("2010-08-26T23:59:59")
    assert parse_time(text, "--start") == np.datetime64("2010-08-26T00:00:00")


def test_a_time_as_the_end_means_itself():
    assert parse_time("2010-08-26T00:00", "--end", whole_day=True) == np.datetime64("2010-08-26T00:00:00")


def test_predict_makes_as_many_leads_as_asked_for_from_full_hours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_record("a.nc", rain(frames=40, shape=(8, 9)))
    (tmp_path / "out").mkdir()
    argv = ("predict", "persistence", "a.nc", "--start", "2020-06-01", "--end", "2020-06-01", "--every", "60", "--leads", "2")
    code, out, err = command(*argv, "-o", "out")
    assert (code, out.split()) == (0, [f"out/20200601T0{hour}0000Z.nc" for hour in range(4)]), err
    assert "4 forecasts from 2020-06-01T00:00:00Z to 2020-06-01T03:00:00Z, 2 lead times, 5 to 10 min (until " in err
    assert err.endswith("next: nowcast plot out/20200601T030000Z.nc --output out/forecasts.gif\n")
    assert read_forecast(out.split()[0]).lead_times.tolist() == [n * 5 * MINUTE for n in (1, 2)]


def test_a_forecast_into_this_folder_names_a_picture_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_record("a.nc", rain(frames=9, shape=(8, 9)))
    code, out, err = command("predict", "persistence", "a.nc", "--leads", "2", "-o", ".")
    assert (code, out) == (0, "20200601T004000Z.nc\n"), err
    assert err.endswith("next: nowcast plot 20200601T004000Z.nc --output 20200601T004000Z.png\n")


def test_a_short_record_is_scored_with_the_leads_that_it_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_record("short.nc", rain(frames=9, shape=(16, 20)))
    argv = ("evaluate", "persistence", "extrapolation", "--observations", "short.nc", "--format", "csv")
    code, out, err = command(*argv)
    assert code == 0, err
    assert "no record has 4 past and 12 future frames without a gap: only 5 lead times are scored\n" in err
    assert {line.split(",")[2] for line in out.splitlines()[1:]} == {"", "5.0", "10.0", "15.0", "20.0", "25.0"}
    code, out, err = command(*argv, "--leads", "2")
    assert "no record has" not in err
    assert {line.split(",")[2] for line in out.splitlines()[1:]} == {"", "5.0", "10.0"}


def test_more_leads_than_a_forecast_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_record("a.nc", rain(frames=20, shape=(8, 9)))
    assert command("predict", "persistence", "a.nc", "-o", "f.nc", "--reference-time", "2020-06-01T00:20", "-q")[0] == 0
    code, _, err = command("evaluate", "f.nc", "--observations", "a.nc", "--leads", "13")
    assert (code, err) == (2, "error: --leads 13: 'f' forecasts 12 lead times at most\n")
    code, out, _ = command("evaluate", "f.nc", "--observations", "a.nc", "--leads", "3", "--format", "csv", "-q")
    assert {line.split(",")[2] for line in out.splitlines()[1:]} == {"", "5.0", "10.0", "15.0"}


@pytest.mark.parametrize(("every", "told"), [("7", 35), ("2", 10), ("2.5", 5), ("15", None)])
def test_reference_times_further_apart_than_asked_for_are_told(tmp_path, monkeypatch, every, told):
    monkeypatch.chdir(tmp_path)
    says = f"a.nc: --every {every}: frames are 5 min apart, reference times {told} min\n"
    for folder, name, *others in (("one", "predict", "-o", "f.nc"), ("two", "evaluate", "--observations", "two/a.nc")):
        (tmp_path / folder).mkdir()  # a warning comes once in a folder
        path = write_record(f"{folder}/a.nc", rain(frames=40, shape=(8, 9)))
        argv = name, "persistence", *([path] if name == "predict" else []), "--every", every, "--leads", "2", *others
        code, _, err = command(*argv)
        assert (code, err.count(says), err.count(f"--every {every}:")) == (0, bool(told), bool(told)), err
    apart = np.diff(read_forecast("f.nc").reference_times)
    assert (apart == (told or 15) * MINUTE).all()


def test_of_many_records_a_few_are_named_and_the_times_of_all(tmp_path):
    start, day, last = np.datetime64("2020-06-01T00:00:00"), np.timedelta64(1, "D"), np.timedelta64(15, "m")
    # the fifth is the first in time, and the sixth the last
    days = [start + n * day for n in (1, 2, 3, 4, 0, 9)]
    records = [
        open_records(
            [write_record(tmp_path / f"r{n}.nc", rain(frames=4), times=first + np.arange(4) * 5 * np.timedelta64(1, "m"))]
        )[0]
        for n, first in enumerate(days)
    ]
    each = [f"r{n} goes from {days[n]}Z to {days[n] + last}Z" for n in range(4)]
    assert spans(records[:4]) == "; ".join(each)
    assert spans(records[:4] + records[5:]) == "; ".join(
        [*each, f"1 further record; all together from {days[0]}Z to {days[5] + last}Z"]
    )
    assert spans(records).endswith(f"2 further records; all together from {days[4]}Z to {days[5] + last}Z")
