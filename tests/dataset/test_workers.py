"""Cores are divided between the network and the processes that read its batches ahead."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
import torch
from makers import rain, write_record

from nowcast.dataset.batches import Batches, Series
from nowcast.dataset.loader import load
from nowcast.dataset.packed import pack
from nowcast.dataset.windows import find_windows
from nowcast.dataset.workers import FEW_WEIGHTS, cores_left_to, count_workers, workers_that_fit
from nowcast.netcdf.opening import open_records
from nowcast.runtime.threads import one_thread

pytestmark = pytest.mark.usefixtures("cache")
READING = [(True, 2, "auto", 1), (True, 1, "auto", 0), (False, 8, "auto", 0), (False, 1, 3, 3)]


@pytest.mark.parametrize(("finds_motion", "cores", "wanted", "expected"), READING)
def test_a_process_reads_ahead_where_motion_is_found(finds_motion, cores, wanted, expected):
    assert count_workers(wanted, finds_motion=finds_motion, device_type="cpu", cores=cores, processes=1) == expected


@pytest.mark.parametrize(("finds_motion", "cores", "expected"), [(False, 32, 4), (True, 2, 4), (True, 8, 7), (True, 32, 12)])
def test_more_processes_find_motion_beside_a_gpu(finds_motion, cores, expected):
    assert count_workers("auto", finds_motion=finds_motion, device_type="cuda", cores=cores, processes=1) == expected


BESIDE = [  # workers, weights for each cell, cores, environment, expected
    (1, 663, 2, {}, 1),  # configs/radar.toml
    (1, 663, 4, {}, 3),
    (2, 663, 2, {}, 1),
    (1, 663, 8, {}, 4),  # as many threads as torch had, no more
    (0, 663, 2, {}, 4),
    (1, FEW_WEIGHTS + 1, 2, {}, 4),
    (1, 663, 2, {"OMP_NUM_THREADS": "4"}, 4),
]


@pytest.mark.parametrize(("workers", "weights", "cores", "environment", "expected"), BESIDE)
def test_a_small_network_leaves_a_core_to_each_worker(workers, weights, cores, environment, expected):
    with one_thread(torch.get_num_threads, torch.set_num_threads):
        torch.set_num_threads(4)
        with cores_left_to(workers, weights_per_cell=weights, cores=cores, environment=environment):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 4


@pytest.fixture
def batches(tmp_path):
    (record,) = open_records([write_record(tmp_path / "a.nc", rain(frames=9, shape=(70, 50)))])
    windows = find_windows(record.times, input_frames=2, lead_frames=3, time_step=record.time_step)
    return Batches([Series(record.name, pack(record), windows)], batch_size=2, crop=32, seed=0)


def test_little_shared_memory_makes_one_process_read(batches, tmp_path, caplog):
    assert workers_that_fit(batches, 2, 2, folder=tmp_path) == 2
    assert workers_that_fit(batches, 2, 2, folder=tmp_path / "absent") == 2
    with caplog.at_level(logging.WARNING):
        assert workers_that_fit(batches, 2, 10**12, folder=tmp_path) == 0
    assert "they are read by one process, more slowly" in caplog.text


def test_workers_of_a_fork_server_read(batches):
    """Python starts workers in this way from 3.14 on: their parent is the server, not the training."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("forkserver", force=True)
    try:
        assert len(list(load(batches, 0, 2, workers=1))) == 2
    finally:
        multiprocessing.set_start_method(before, force=True)


ONE_WORKER = """
import os, sys, time, torch
from nowcast.dataset.batches import Batches, Series
from nowcast.dataset.loader import load
from nowcast.dataset.packed import pack
from nowcast.dataset.windows import find_windows
from nowcast.netcdf.opening import open_records
(record,) = open_records(sys.argv[1:])
windows = find_windows(record.times, input_frames=2, lead_frames=3, time_step=record.time_step)
batches = Batches([Series(record.name, pack(record), windows)], batch_size=2, crop=32, seed=0)
def start_slowly(_):  # torch calls it in the worker, before it asks for the worker's parent
    print(os.getpid(), flush=True)
    time.sleep(1)
torch.set_num_threads = start_slowly
next(load(batches, 0, 4, workers=1))
"""


def test_a_worker_ends_whose_training_was_killed_as_it_started(tmp_path):
    record = write_record(tmp_path / "a.nc", rain(frames=9, shape=(70, 50)))
    training = subprocess.Popen([sys.executable, "-c", ONE_WORKER, record], stdout=subprocess.PIPE)
    worker = int(training.stdout.readline())
    training.kill()
    try:
        training.communicate(timeout=30)  # returns when nobody holds the pipe any more
    except subprocess.TimeoutExpired:
        os.kill(worker, signal.SIGKILL)
        training.communicate()
        pytest.fail("the worker lives on")
