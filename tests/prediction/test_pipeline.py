"""`nowcast predict`: which cases are forecast, from which frames, into which files; what is impossible is refused by name."""

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import netCDF4
import numpy as np
import pytest
import torch
from makers import rain, tiny_run, write_record

from nowcast import motion
from nowcast.errors import DataError, NotEnoughFrames, OutputError, UsageError
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.baselines import Extrapolation, Persistence
from nowcast.netcdf import forecast_writer
from nowcast.netcdf.files import OPEN_FILES
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.record import Record
from nowcast.prediction import pipeline
from nowcast.prediction.cases import KeptFrames, Selection, read_past, references_of
from nowcast.prediction.pipeline import predict

pytestmark = pytest.mark.slow  # all of them together take seconds

START = np.datetime64("2020-06-01T00:00:00")
MINUTES = np.timedelta64(60, "s")
STEP = 5 * MINUTES


class Spy(Persistence):
    """Persistence that needs two frames and remembers what it was given."""

    name = "spy"
    input_frames = 2
    most_past_frames = 4
    lead_frames = 3

    def __init__(self):
        self.pasts = []

    def forecast_case(self, past, num_leads):
        self.pasts.append(past)
        return super().forecast_case(past, num_leads)


def at(*minutes):
    return np.array([START + minute * MINUTES for minute in minutes])


def make(folder, *, name="a", minutes=range(0, 60, 5), fields=None, institution=None, **options):
    times = at(*minutes)
    fields = rain(frames=len(times), shape=(20, 24)) if fields is None else fields
    path = write_record(folder / f"{name}.nc", fields, times=times, **options)
    if institution:
        with netCDF4.Dataset(path, "a") as file:
            file.institution = institution
    return open_records([path])[0]


def run(records, output, *, forecaster=None, folder=False, overwrite=False, **selection):
    records = [records] if isinstance(records, Record) else records
    selection = Selection(**selection)
    return predict(forecaster or Spy(), records, output, selection=selection, folder=folder, overwrite=overwrite)


def test_the_default_is_the_newest_frame(tmp_path):
    record = make(tmp_path)
    assert run(record, tmp_path / "f.nc") == [tmp_path / "f.nc"]
    forecast = read_forecast(tmp_path / "f.nc")
    assert forecast.reference_times.tolist() == at(55).tolist()
    assert forecast.lead_times.tolist() == [n * STEP for n in (1, 2, 3)]
    np.testing.assert_allclose(forecast.read(0), np.repeat(record.read([11]), 3, axis=0))


def test_one_time_and_many_have_their_own_layouts(tmp_path):
    record = make(tmp_path)
    run(record, tmp_path / "one.nc", listed=tuple(at(30)))
    run(record, tmp_path / "many.nc", listed=tuple(at(30, 40, 30)))
    with netCDF4.Dataset(tmp_path / "one.nc") as one, netCDF4.Dataset(tmp_path / "many.nc") as many:
        assert one["precip_intensity"].dimensions == ("time", "y", "x")
        assert many["precip_intensity"].dimensions == ("forecast_reference_time", "forecast_period", "y", "x")
        assert many["precip_intensity"].shape == (2, 3, 20, 24)


def test_a_folder_gets_one_file_for_each_time(tmp_path):
    written = run(make(tmp_path), tmp_path / "deep" / "out", folder=True, start=at(30)[0], every=10)
    assert [path.name for path in written] == ["20200601T003000Z.nc", "20200601T004000Z.nc", "20200601T005000Z.nc"]
    assert sorted((tmp_path / "deep" / "out").iterdir()) == written


def test_several_series_go_into_a_folder_only(tmp_path):
    records = [make(tmp_path), make(tmp_path, name="b", fields=rain(frames=12, shape=(16, 24)))]
    with pytest.raises(UsageError, match=r"2 series on different grids do not fit in one file: a, b\.\nGive a folder"):
        run(records, tmp_path / "f.nc")
    written = run(records, tmp_path / "out", folder=True)
    assert [path.name for path in written] == ["a_20200601T005500Z.nc", "b_20200601T005500Z.nc"]


def test_a_time_asked_for_needs_to_be_in_one_of_several_series(tmp_path):
    records = [make(tmp_path), make(tmp_path, name="b", minutes=range(600, 660, 5), fields=rain(frames=12, shape=(16, 24)))]
    written = run(records, tmp_path / "out", folder=True, listed=tuple(at(30, 630)))
    assert [path.name for path in written] == ["a_20200601T003000Z.nc", "b_20200601T103000Z.nc"]
    with pytest.raises(NotEnoughFrames, match=r"no frame to forecast from at 2020-06-01T05:00:00Z\.\na goes from .*; b goes"):
        run(records, tmp_path / "more", folder=True, listed=tuple(at(30, 300)))
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize("minutes", [[0, 5, 10, 20, 25, 30, 35], [20, 25, 30, 35]])
def test_a_baseline_gets_as_many_past_frames_as_are_complete(tmp_path, minutes):
    spy = Spy()
    record = make(tmp_path, minutes=minutes)
    run(record, tmp_path / "f.nc", forecaster=spy, listed=tuple(at(30, 35)))
    assert [len(past) for past in spy.pasts] == [3, 4]
    newest = [minutes.index(minute) for minute in (20, 25, 30, 35)]
    np.testing.assert_array_equal(spy.pasts[1], record.read(newest))


def test_an_empty_frame_ends_the_past_that_a_baseline_gets(tmp_path):
    fields = rain(frames=12, shape=(20, 24))
    fields[8] = np.nan
    spy = Spy()
    run(make(tmp_path, fields=fields), tmp_path / "f.nc", forecaster=spy)
    assert [len(past) for past in spy.pasts] == [3]


def test_persistence_reads_one_frame_and_extrapolation_four(tmp_path):
    record = make(tmp_path)
    reference = record.times[-1]
    assert len(read_past(record, reference, Persistence(), STEP)) == 1
    np.testing.assert_array_equal(read_past(record, reference, Extrapolation(), STEP), record.read([8, 9, 10, 11]))


def test_absent_frames_are_named(tmp_path):
    record = make(tmp_path, minutes=[0, 5, 10, 20])
    says = r"needs 2 frames 5 min apart\.\nAbsent: 2020-06-01T00:15:00Z; a forecast from 2020-06-01T00:10:00Z has .*time\)\.$"
    with pytest.raises(NotEnoughFrames, match=says) as caught:
        run(record, tmp_path / "f.nc")
    assert caught.value.exit_code == 75
    assert not (tmp_path / "f.nc").exists()


def test_frames_that_are_missing_as_a_whole_are_named(tmp_path):
    fields = rain(frames=12, shape=(20, 24))
    fields[[8, 10]] = np.nan  # minutes 40 and 50; so no forecast from minute 45 either
    with pytest.raises(NotEnoughFrames, match=r"\nMissing as a whole: 2020-06-01T00:50:00Z; .* from 2020-06-01T00:35:00Z"):
        run(make(tmp_path, fields=fields), tmp_path / "f.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nc"]


def test_a_single_frame_has_no_time_step(tmp_path):
    with pytest.raises(NotEnoughFrames, match=r"a has a single frame: .*\nGive the frames before it"):
        run(make(tmp_path, minutes=[0]), tmp_path / "f.nc")


def test_a_range_leaves_out_incomplete_cases_and_logs_it(tmp_path, caplog):
    fields = rain(frames=11, shape=(20, 24))
    fields[1] = np.nan
    record = make(tmp_path, minutes=[*range(0, 30, 5), *range(35, 60, 5)], fields=fields)
    run(record, tmp_path / "f.nc", start=START)
    # 0 has no past, 5 is empty, 10 follows it, 35 follows the gap
    assert read_forecast(tmp_path / "f.nc").reference_times.tolist() == at(15, 20, 25, 40, 45, 50, 55).tolist()
    assert "a: left out 4 of 11 reference times" in caplog.text


def test_a_range_without_a_complete_past_says_what_the_record_spans(tmp_path):
    record = make(tmp_path)
    with pytest.raises(NotEnoughFrames, match=r"in the range has the 2 past frames that spy needs\.\na goes from"):
        run(record, tmp_path / "f.nc", start=at(600)[0])


def test_a_range_without_a_full_hour_begins_at_its_first_frame(tmp_path):
    record = make(tmp_path, minutes=range(1, 60, 5))

    def selected(**options):
        return record.times[Selection(**options).select(record, np.arange(len(record)))].tolist()

    assert selected(every=15) == at(1, 16, 31, 46).tolist()
    assert selected(start=START + 10 * MINUTES, every=20) == at(11, 31, 51).tolist()
    assert selected(start=at(6)[0], end=at(16)[0]) == at(6, 11, 16).tolist()
    assert selected(start=at(90)[0], every=5) == []


@pytest.mark.parametrize("asked", [7, 0, -40, 70])
def test_a_frame_some_seconds_late_is_found_by_its_own_time_or_one_as_near(tmp_path, asked):
    """Frames some seconds past; the record has them at the full minute."""
    late = np.array([7, 6, 9, 7, 8, 10, 11, 7, 7, 5, 10, 12], "timedelta64[s]")
    times = at(*range(0, 60, 5)) + late
    path = write_record(tmp_path / "late.nc", rain(frames=12, shape=(20, 24)), times=times)
    (record,) = open_records([path])
    assert record.times.tolist() == at(*range(0, 60, 5)).tolist()
    reference = START + 55 * MINUTES + np.timedelta64(asked, "s")
    run(record, tmp_path / "f.nc", listed=(reference,))
    assert read_forecast(tmp_path / "f.nc").reference_times.tolist() == at(55).tolist()
    span = Selection(start=times[2], end=times[4])  # as the file has them, and the record has not
    assert record.times[span.select(record, np.arange(len(record)))].tolist() == at(10, 15, 20).tolist()
    with pytest.raises(NotEnoughFrames, match="no frame to forecast from at 2020-06-01T00:57:00Z"):
        run(record, tmp_path / "g.nc", listed=(START + 57 * MINUTES,))


@pytest.mark.parametrize("every", [0, -5, float("nan"), float("inf"), 0.001])
def test_an_impossible_raster_is_a_usage_error(every):
    with pytest.raises(UsageError, match="--every"):
        Selection(every=every)


def test_times_and_ranges_exclude_each_other():
    with pytest.raises(UsageError, match="not both"):
        Selection(listed=(START,), every=10)
    with pytest.raises(UsageError, match="is after --end"):
        Selection(start=at(10)[0], end=START)


def test_references_come_sorted_and_once(tmp_path):
    record = make(tmp_path)
    assert references_of(record, Selection(listed=tuple(at(40, 30, 40))), 1, STEP) == at(30, 40).tolist()


def test_nothing_existing_is_overwritten_unasked(tmp_path):
    record = make(tmp_path)
    (tmp_path / "f.nc").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        run(record, tmp_path / "f.nc")
    assert (tmp_path / "f.nc").read_text() == "mine"
    run(record, tmp_path / "f.nc", overwrite=True)
    assert len(read_forecast(tmp_path / "f.nc").lead_times) == 3


def test_a_folder_is_looked_through_before_the_first_forecast(tmp_path):
    spy = Spy()
    (tmp_path / "out").mkdir()
    for name in ("20200601T004000Z.nc", "20200601T005000Z.nc"):
        (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(OutputError, match=r"20200601T004000Z\.nc exists already, and so do 1 others"):
        run(make(tmp_path), tmp_path / "out", forecaster=spy, folder=True, start=at(30)[0])
    assert not spy.pasts
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_failure_leaves_no_folder_behind(tmp_path):
    class Failing(Spy):
        def forecast_case(self, past, num_leads):
            raise DataError("no")

    with pytest.raises(DataError):
        run(make(tmp_path), tmp_path / "new" / "out", forecaster=Failing(), folder=True)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        run(make(tmp_path), tmp_path / "file" / "out", folder=True)
    with pytest.raises(OutputError, match="there is no folder"):
        run(make(tmp_path, name="b"), tmp_path / "absent" / "f.nc")


def test_the_file_says_where_it_comes_from(tmp_path):
    record = make(tmp_path, institution="A weather service")
    run(record, tmp_path / "f.nc", forecaster=Extrapolation())
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        assert file.institution == "A weather service"
        assert file.title == "Nowcast of rain rate from a"
        assert file.source.startswith("extrapolation, nowcast ")
        assert "nowcast predict extrapolation a" in file.history
        assert "arXiv 1603.03590" in file.references
        assert file["precip_intensity"].shape == (12, 20, 24)
    assert pipeline.attributes(Spy(), make(tmp_path, name="b"))["institution"] == "not stated in the observations"


# Several cases at once, and reading, forecasting and writing at the same time


@pytest.fixture
def network(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    folder = tiny_run(tmp_path / "run", [write_record(tmp_path / "training.nc", rain(frames=40, shape=(20, 24)))])
    return open_forecaster(str(folder), device=torch.device("cpu"))


def written(path):
    with netCDF4.Dataset(path) as file:
        return file["precip_intensity"][:].filled(np.nan)


def test_cases_forecast_together_are_as_one_by_one(tmp_path, network, monkeypatch):
    record = make(tmp_path, minutes=range(0, 100, 5), fields=rain(frames=20, shape=(20, 24), missing=0.05))
    sizes = []
    forecast = network.forecast
    monkeypatch.setattr(network, "forecast", lambda past, leads: sizes.append(len(past)) or forecast(past, leads))
    run(record, tmp_path / "together.nc", forecaster=network, start=START)
    assert sizes == [19]
    monkeypatch.setattr(network, "cases_at_once", lambda grid: 1)
    run(record, tmp_path / "alone.nc", forecaster=network, start=START)
    assert sizes[1:] == [1] * 19
    np.testing.assert_allclose(written(tmp_path / "together.nc"), written(tmp_path / "alone.nc"), rtol=1e-5, atol=1e-6)
    files = run(record, tmp_path / "out", forecaster=network, folder=True, start=START)
    assert len(files) == 19
    np.testing.assert_array_equal(written(files[7]), written(tmp_path / "alone.nc")[7])


def test_cases_with_fewer_past_frames_are_not_put_together_with_others(tmp_path):
    spy = Spy()
    record = make(tmp_path)
    pasts = list(pipeline.pasts_of(spy, pipeline.Job(record, STEP, tuple(at(5, 10, 15, 20, 25))), 2))
    assert [(len(times), past.shape[1]) for times, past in pasts] == [(1, 2), (1, 3), (2, 4), (1, 4)]


def test_a_frame_is_decoded_once_for_all_cases_and_few_are_kept(tmp_path, monkeypatch):
    read_positions = []
    read = Record.read

    def counted(record, positions):
        read_positions.extend(positions)
        assert len(positions) <= motion.MOTION_FRAMES
        return read(record, positions)

    monkeypatch.setattr(Record, "read", counted)
    record = make(tmp_path, minutes=range(0, 300, 5))
    run(record, tmp_path / "f.nc", start=START)
    assert sorted(read_positions) == sorted([*range(60), *range(60)])  # once more, to find the empty ones


@pytest.mark.parametrize("every", [1, 2, 3])
def test_kept_frames_are_the_records(tmp_path, every):
    record = make(tmp_path, minutes=range(0, 100, 5), fields=rain(frames=20, shape=(20, 24)))
    kept = KeptFrames(record)
    for newest in range(6, 20):
        positions = newest - every * np.arange(3)
        np.testing.assert_array_equal(kept.read(positions), record.read(positions))


def test_no_more_frames_are_kept_than_a_case_spans(tmp_path):
    record = make(tmp_path, minutes=range(0, 500, 5), fields=rain(frames=100, shape=(60, 80)))
    kept = KeptFrames(record)
    kept.read(range(4))
    tracemalloc.start()
    for newest in range(4, 100):
        kept.read(range(newest - 3, newest + 1))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 10 * 60 * 80 * 4  # bytes of ten frames


def is_free(lock, *, patience=0.0):
    """Whether another thread gets the lock within so many seconds."""

    def take():
        taken = lock.acquire(timeout=patience)
        if taken:
            lock.release()
        return taken

    with ThreadPoolExecutor(1) as other:
        return other.submit(take).result()


class Watched(netCDF4.Dataset):
    """Tells at each call whether the lock is free; a type of the module, as netCDF4's end needs its type alive."""

    seen: ClassVar = []

    def createVariable(self, *arguments, **options):
        self.seen.append(is_free(OPEN_FILES.lock))
        return super().createVariable(*arguments, **options)

    def __getitem__(self, name):
        self.seen.append(is_free(OPEN_FILES.lock))
        return super().__getitem__(name)

    def close(self):
        self.seen.append(is_free(OPEN_FILES.lock))
        return super().close()


def test_nothing_is_read_while_the_library_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(Watched, "seen", seen := [])
    record = make(tmp_path)
    monkeypatch.setattr(netCDF4, "Dataset", Watched)
    run(record, tmp_path / "f.nc", start=START)
    run(record, tmp_path / "out", folder=True, start=START)
    assert len(seen) > 20
    assert not any(seen)
    assert is_free(OPEN_FILES.lock)


def test_frames_can_be_read_while_the_next_case_is_awaited(tmp_path, monkeypatch):
    seen = []
    write = forecast_writer.write_forecast

    def watched(path, cases, **options):
        def watching():
            for case in cases:
                seen.append(is_free(OPEN_FILES.lock, patience=60))
                yield case

        write(path, watching(), **options)

    monkeypatch.setattr(pipeline, "write_forecast", watched)
    record = make(tmp_path)
    run(record, tmp_path / "f.nc", start=START)
    run(record, tmp_path / "out", folder=True, start=START)
    assert len(seen) > 10
    assert all(seen)


def test_forecasts_before_an_absent_frame_are_written_to_their_folder(tmp_path, network):
    record = make(tmp_path, minutes=[0, 5, 10, 15, 30, 35])
    with pytest.raises(NotEnoughFrames, match=r"Absent: 2020-06-01T00:25:00Z"):
        run(record, tmp_path / "out", forecaster=network, folder=True, listed=tuple(at(10, 15, 30, 35)))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["20200601T001000Z.nc", "20200601T001500Z.nc"]


def test_a_file_that_cannot_be_written_ends_it_at_once(tmp_path, monkeypatch):
    def failing(path, items, **_):
        next(iter(items))
        raise OutputError("the disk is full")

    monkeypatch.setattr(pipeline, "write_forecast", failing)
    record, before = make(tmp_path), threading.active_count()
    for folder in (False, True):
        with pytest.raises(OutputError, match="the disk is full"):
            run(record, tmp_path / "out", folder=folder, start=START)
    assert threading.active_count() == before
    assert OPEN_FILES.lock.acquire(blocking=False)
    OPEN_FILES.lock.release()


def test_large_cases_are_not_made_ahead(tmp_path, monkeypatch):
    threads = set()

    class Watched(Spy):
        def forecast_case(self, past, num_leads):
            threads.add(threading.current_thread())
            return super().forecast_case(past, num_leads)

    record = make(tmp_path)
    run(record, tmp_path / "f.nc", forecaster=Watched(), start=START)
    assert threading.main_thread() not in threads
    threads.clear()
    monkeypatch.setattr(pipeline, "BYTES_AHEAD", 3 * 20 * 24 * 4 - 1)
    run(record, tmp_path / "g.nc", forecaster=Watched(), start=START)
    assert threads == {threading.main_thread()}
    np.testing.assert_array_equal(written(tmp_path / "f.nc"), written(tmp_path / "g.nc"))
