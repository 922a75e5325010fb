"""`nowcast predict --watch`: one forecast from each frame as it arrives, for days, whatever else arrives."""

import ctypes
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import torch
from makers import command, rain, tiny_run, write_record
from makers.processes import run_beside
from makers.stored import write
from makers.watching import FIELDS, READING, START, STEP, Radar, arrivals, name, names, put, watched

from nowcast.errors import OutputError, UsageError
from nowcast.forecasters.baselines import BASELINES, Persistence
from nowcast.netcdf.files import OPEN_FILES
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.prediction import watch as prediction_watch
from nowcast.prediction.watch import NEWEST, TRIES, watch
from nowcast.runtime.memory import resident_memory

pytestmark = pytest.mark.slow  # all of them together take seconds

MARK = 1_234_567_891  # a time that is found again among the bytes of a file


class Writer:
    """Frame n as the bytes of a classic file: those of a template but for its time and values, which takes no time to make."""

    def __init__(self, folder):
        path = folder / "template.nc"
        write(path, FIELDS[:1], times=[MARK], format="NETCDF3_CLASSIC")
        self.content = bytearray(path.read_bytes())
        path.unlink()
        self.time, self.values = (self._place(value) for value in (np.array([MARK], ">i4"), FIELDS[:1].astype(">f4")))

    def _place(self, stored):
        assert self.content.count(stored.tobytes()) == 1
        return self.content.index(stored.tobytes())

    def frame(self, n):
        values = FIELDS[n % len(FIELDS)].astype(">f4").tobytes()
        self.content[self.time : self.time + 4] = int((START + n * STEP).astype(int)).to_bytes(4, "big")
        self.content[self.values : self.values + len(values)] = values
        return self.content


# the second frame tells the time step: only then can persistence, which needs no more than one, forecast from the first
@pytest.mark.parametrize(("forecaster", "expected"), [("persistence", (1, 0, 2, 3, 4, 5)), ("extrapolation", (1, 2, 3, 4, 5))])
def test_each_frame_gives_a_forecast_as_it_comes(inbox, forecaster, expected):
    made = watched(inbox, *arrivals(inbox, range(6)), forecaster=forecaster)
    assert made == names(*expected)
    newest = read_forecast(inbox.parent / "out" / made[-1])
    assert newest.reference_times == START + 5 * STEP
    if forecaster == "persistence":
        np.testing.assert_allclose(newest.read(0)[0], FIELDS[5], rtol=1e-6)


@pytest.mark.parametrize(("step", "off"), [(300, 20), (277, 4)])
def test_frames_some_seconds_off_are_each_forecast_once(inbox, step, off):
    """Also where the raster of the first frames is another, by seconds, than that of all."""
    random = np.random.default_rng(2)
    times = START + (7 + step * np.arange(20) + random.integers(-off, off + 1, 20)) * np.timedelta64(1, "s")

    def arrive(n):
        write_record(inbox.parent / "being_written.nc", FIELDS[[n]], times=times[[n]])
        os.replace(inbox.parent / "being_written.nc", inbox / f"frame{n:05}.nc")

    acts = [act for n in range(20) for act in (lambda n=n: arrive(n), lambda: None)]
    made = watched(inbox, *acts, forecaster="extrapolation")
    references = np.sort([read_forecast(inbox.parent / "out" / name).reference_times[0] for name in made])
    assert len(references) >= 18  # all but the first, as soon as the time step is known
    assert np.diff(references).min() > np.timedelta64(step * 3 // 4, "s")
    assert np.abs(references - times[-len(references) :]).max() <= np.timedelta64(60, "s")


def test_what_lies_there_already_is_forecast_from_its_newest_frames_first(inbox):
    for n in range(40):
        put(inbox, n)
    assert watched(inbox) == names(*range(39, 39 - NEWEST, -1))


def test_names_that_are_used_again_are_new_files(inbox):
    """A ring of names: a file that was too old to be read gives a forecast when another takes its name."""
    for n in range(40):
        put(inbox, n, called=f"slot_{n:02}.nc")
    wait, turns = [lambda: None] * 2, [act for n in range(40, 43) for act in (lambda n=n: again(n), lambda: None)]

    def again(n):
        put(inbox, n, called=f"slot_{n - 40:02}.nc")

    assert watched(inbox, *wait, *turns) == [*names(*range(39, 39 - NEWEST, -1)), *names(40, 41, 42)]


def test_forecasts_that_exist_are_left_as_they_are(inbox):
    first = watched(inbox, *arrivals(inbox, range(6)))
    before = {path: path.stat().st_mtime_ns for path in (inbox.parent / "out").iterdir()}
    assert watched(inbox, *arrivals(inbox, [6])) == [name(6)]
    assert len(first) == len(before) == 6
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_file_is_read_when_it_has_looked_the_same_twice(inbox):
    for n in range(3):
        put(inbox, n)
    put(inbox, 3, called="whole")
    content = (inbox / "whole").read_bytes()
    (inbox / "whole").unlink()
    growing, seen = inbox / "growing.nc", []

    def grow(size):
        seen.append(sorted(path.name for path in (inbox.parent / "out").glob("*.nc")))
        growing.write_bytes(content[:size])

    parts = [len(content) * part // 5 for part in range(1, 6)]
    made = watched(inbox, *[lambda size=size: grow(size) for size in parts])
    assert made == names(2, 1, 0, 3)
    assert not any(name(3) in found for found in seen)


def test_a_writer_that_pauses_is_waited_for(inbox, caplog):
    for n in range(3):
        put(inbox, n)
    put(inbox, 3, called="whole")
    content = (inbox / "whole").read_bytes()
    (inbox / "whole").unlink()
    pause = [lambda: None] * 2
    half, rest = (lambda size=size: (inbox / "slow.nc").write_bytes(content[:size]) for size in (len(content) // 2, None))
    assert watched(inbox, half, *pause, rest, *pause)[-1] == name(3)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("called", [".frame.nc", "frame.nc.tmp", "frame.nc.part", "frame.txt"])
def test_temporary_names_are_not_looked_at(inbox, called):
    for n in range(3):
        put(inbox, n)
    put(inbox, 3, called=called)
    assert name(3) not in watched(inbox)


def test_bad_files_are_reported_once_and_left_out(inbox, caplog):
    bad = {"cut.nc": b"\x89HDF\r\n\x1a\n" + b"x" * 50, "page.nc": b"<html>", "empty.nc": b""}
    for called, content in bad.items():
        (inbox / called).write_bytes(content)
    (inbox / "folder.nc").mkdir()
    put(inbox, 0, field=np.full((1, 8, 9), 1.0), called="winds.nc")
    looks = [lambda: None] * (2 * TRIES)
    assert watched(inbox, *arrivals(inbox, range(5)), *looks) == names(1, 0, 2, 3, 4)
    told = [message for message in caplog.messages if message.startswith("left out")]
    assert len(told) == len(bad)
    assert all(any(called in message for message in told) for called in bad)


def test_a_bad_file_that_is_put_right_is_taken(inbox):
    (inbox / "frame00002.nc").write_bytes(b"<html>")
    acts = [*arrivals(inbox, [0, 1]), *[lambda: None] * (2 * TRIES), *arrivals(inbox, [2])]
    assert watched(inbox, *acts) == names(1, 0, 2)


def test_after_a_gap_forecasts_begin_again_when_their_past_is_there(inbox, tmp_path):
    network = tiny_network(tmp_path)
    made = watched(inbox, *arrivals(inbox, [0, 1, 2, 5, 6, 7]), forecaster=network)
    assert made == names(1, 2, 6, 7)


def test_why_there_is_no_forecast_yet_advises_no_option_that_watching_refuses(inbox, caplog):
    caplog.set_level(logging.INFO)
    assert watched(inbox, *arrivals(inbox, [0, 1, 3]), forecaster=BASELINES["extrapolation"]()) == names(1)
    (told,) = (message for message in caplog.messages if f"from {START + 3 * STEP}Z needs" in message)
    absent, last = START + 2 * STEP, START + 3 * STEP
    assert told.endswith(f"\nAbsent: {absent}Z; the record goes from {START}Z to {last}Z.")


def test_a_frame_that_comes_late_completes_what_waited_for_it(inbox, tmp_path):
    network = tiny_network(tmp_path)
    made = watched(inbox, *arrivals(inbox, [0, 1, 3, 2, 4]), forecaster=network)
    assert made == names(1, 3, 2, 4)


def test_a_frame_on_another_grid_disturbs_nothing(inbox):
    def stray():
        put(inbox, 4, field=np.ones((1, 5, 5)), called="stray.nc")

    assert watched(inbox, *arrivals(inbox, range(4)), stray, *arrivals(inbox, [4, 5])) == names(1, 0, 2, 3, 4, 5)


def test_a_frame_without_any_value_gives_no_forecast_of_its_own(inbox, tmp_path, caplog):
    network = tiny_network(tmp_path)
    acts = [*arrivals(inbox, [0, 1]), lambda: put(inbox, 2, field=np.full((1, 8, 9), np.nan)), lambda: None]
    # one past frame may be absent (data.max_absent), but not the newest
    assert watched(inbox, *acts, *arrivals(inbox, [3, 4]), forecaster=network) == names(1, 3, 4)


def test_a_folder_that_goes_away_is_waited_for(inbox, caplog):
    away = inbox.parent / "away"
    acts = [*arrivals(inbox, [0, 1]), lambda: os.rename(inbox, away), lambda: None, lambda: os.rename(away, inbox)]
    assert watched(inbox, *acts, *arrivals(inbox, [2])) == names(1, 0, 2)
    assert [message for message in caplog.messages if "cannot be listed" in message] == [
        f"{inbox} cannot be listed: No such file or directory; trying again"
    ]


def test_days_in_subfolders_are_watched_as_well(inbox):
    (inbox / "day1").mkdir()
    acts = arrivals(inbox / "day1", range(3))
    assert watched(inbox, *acts, output=inbox / "out") == names(1, 0, 2)


def test_a_file_that_grows_by_frames_gives_a_forecast_for_each(inbox):
    def grown(frames):
        write_record(inbox.parent / "being_written.nc", FIELDS[:frames])
        os.replace(inbox.parent / "being_written.nc", inbox / "day.nc")

    acts = [act for n in (3, 4, 5) for act in (lambda n=n: grown(n), lambda: None)]
    assert watched(inbox, *acts) == names(2, 1, 0, 3, 4)


def test_a_file_can_be_added_to_where_it_lies(inbox):
    """HDF5 refuses to write to a file that is open: none may be while the watch waits."""
    write_record(inbox / "day.nc", FIELDS[:3])

    def add():
        with netCDF4.Dataset(inbox / "day.nc", "a") as file:
            file["time"][2] += 300

    nothing = [lambda: None] * 2
    assert watched(inbox, *nothing, add, *nothing) == names(2, 1, 0, 3)


def test_forecasts_of_a_folder_can_hold_probabilities(inbox):
    output, radar = inbox.parent / "out", Radar(*arrivals(inbox, range(3)), lambda: None, lambda: None)
    opened = BASELINES["extrapolation"]()
    (first, *_) = watch(opened, inbox, output, reading=READING, stop=radar, thresholds=(0.5, 2.0))
    found = read_forecast(first, variable="probability_of_rainfall_above_threshold")
    assert found.thresholds == (0.5, 2.0)
    assert np.nanmax(found.probabilities(0, 0, [0])) > 0


def test_an_output_that_cannot_be_written_ends_it(inbox, monkeypatch):
    def fails(*_):
        raise OutputError("No space left on device")

    monkeypatch.setattr(prediction_watch, "predict_one", fails)
    with pytest.raises(OutputError, match="No space left on device"):
        watched(inbox, *arrivals(inbox, [0, 1]))
    assert not (inbox.parent / "out").exists()


def test_folders_that_will_not_do_are_usage_errors(inbox):
    with pytest.raises(UsageError, match="is not a folder"):
        watched(inbox / "absent")
    with pytest.raises(UsageError, match="would be read as new frames"):
        watched(inbox, output=inbox)


_NETWORK = {}


def tiny_network(tmp_path):
    """A network for 2 frames in, 3 out; trained once."""
    from nowcast.forecasters import open_forecaster

    if "network" not in _NETWORK:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
            run = tiny_run(tmp_path / "run", [write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28)))])
        _NETWORK["network"] = open_forecaster(str(run), device=torch.device("cpu"))
    return _NETWORK["network"]


class OneLead(Persistence):
    lead_frames = 1


class HeapSizes(ctypes.Structure):
    """`struct mallinfo2` of the GNU C library; `uordblks` are the bytes in use in all its heaps."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks",
                                                     "uordblks", "fordblks", "keepcost")]  # fmt: skip


def heap_bytes():
    """The bytes that the C library has given out: all that NetCDF, HDF5 and NumPy hold. They tell a leak sooner than pages."""
    if not hasattr(library := ctypes.CDLL(None), "mallinfo2"):  # before glibc 2.33, or another C library
        return 0
    library.mallinfo2.restype = HeapSizes
    sizes = library.mallinfo2()
    return sizes.uordblks + sizes.hblkhd


def measured_watch(folder):
    """Watch `folder`, of which 200 frames come and the newest 40 stay; return what the process held after each 40, as JSON."""
    os.fsync = lambda _: None  # the disk's time is not ours
    held, inbox, writer = [], Path(folder), Writer(Path(folder).parent)

    def frame(n):
        (inbox / f"frame{n:05}.nc").write_bytes(writer.frame(n))
        (inbox / f"frame{n - 40:05}.nc").unlink(missing_ok=True)
        if n % 40 == 39:
            gc.collect()
            handles = len(os.listdir("/proc/self/fd"))
            held.append((sys.getallocatedblocks(), heap_bytes(), resident_memory(), handles, time.process_time()))

    made = watched(inbox, *[lambda n=n: frame(n) for n in range(200)], forecaster=OneLead())
    return json.dumps({"made": made, "held": held, "open": len(OPEN_FILES)})


def test_it_keeps_its_pace_without_growing(inbox):
    """However many frames come: memory, open files and the time of a look stay, in a process that does nothing else."""
    program = "import sys; from test_watch import measured_watch; print(measured_watch(sys.argv[1]))"
    process = run_beside(__file__, program, inbox)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert found["made"] == names(1, 0, *range(2, 200))
    assert found["open"] == 0
    blocks, heap, memory, handles, seconds = zip(*found["held"], strict=True)
    # of 120 frames, after 80 in which caches fill; the names that are collected here are 2 blocks a frame
    assert blocks[-1] - blocks[1] < 120 * 5
    assert heap[-1] - heap[1] < 120 * 500
    assert memory[-1] - memory[1] < 120 * 2500
    assert handles[-1] <= handles[1]
    paces = np.diff(seconds)
    assert paces[-1] < 2 * paces[0]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_cleanly(inbox, number, code):
    for n in range(3):
        put(inbox, n)
    output = inbox.parent / "out"
    argv = [sys.executable, "-m", "nowcast", "predict", "persistence", str(inbox), "--watch", "--output", str(output)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stdout.readline().strip()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert first == str(output / name(2))
    assert process.returncode == code
    began, reading, ended = err.splitlines()
    assert (began, ended) == (f"watching {inbox}; Ctrl-C ends it", "stopped watching; all started files are written")
    assert reading.endswith(": rainfall_rate as rain rate: mm h-1 -> mm/h")
    assert not [path for path in output.iterdir() if path.name.startswith(".")]


def test_options_that_do_not_go_with_it(inbox, tmp_path):
    watching = ("predict", "persistence", inbox, "--watch", "--output", tmp_path / "o")
    for more in (("--start", "2020-06-01"), ("--every", "10"), ("--overwrite",), ("--reference-time", "2020-06-01"), (inbox,)):
        code, out, err = command(*watching, *more)
        assert (code, out) == (2, "")
        assert "--watch takes one folder, and neither" in err
    code, _, err = command("predict", "persistence", tmp_path / "absent", "--watch", "--output", tmp_path / "o")
    assert code == 2
    assert "is not a folder" in err
