"""What calls of nowcast leave behind in a Python session: no file open, no seed, no other number of threads."""

import os

import cv2
import numpy as np
import pytest
import torch
import xarray as xr
from makers import rain, tiny_experiment, write_record

import nowcast
from nowcast import config
from nowcast.errors import OutputError, UsageError

OPTIONS = {"thresholds": [1], "start": "2020-06-01T00:45", "device": "cpu"}

no_list_of_open_files = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="lists open files by /proc")


@pytest.fixture
def file(tmp_path):
    return write_record(tmp_path / "rain.nc", rain(frames=24, shape=(16, 20)))


def is_open(path):
    """Return whether this process has a file open; False where the system does not tell."""
    numbers = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ()
    return any(os.path.realpath(f"/proc/self/fd/{number}") == str(path) for number in numbers)


@no_list_of_open_files
def test_files_are_closed_when_their_array_is(file):
    (array,) = nowcast.open_records(file)
    assert not is_open(file)
    part = array.isel(time=[0])
    first = part.values
    assert is_open(file)
    array.close()
    assert not is_open(file)
    np.testing.assert_array_equal(array[0], first[0])  # can still be read
    assert not is_open(file)
    with xr.open_dataset(file, decode_coords="all") as dataset:
        twice = (dataset.rainfall_rate * 2).assign_attrs(dataset.rainfall_rate.attrs).load()
    twice.to_netcdf(file)
    (again,) = nowcast.open_records(file)
    np.testing.assert_array_equal(again[0], 2 * first[0])
    again.close()


@no_list_of_open_files
@pytest.mark.slow
def test_an_evaluation_closes_what_it_opened(file, tmp_path):
    beside = write_record(tmp_path / "beside.nc", rain(frames=4, shape=(16, 20)))
    (array,) = nowcast.open_records(beside)
    array.load()
    scores = nowcast.evaluate("persistence", file, **OPTIONS)
    assert not is_open(file)
    assert is_open(beside)  # was before
    with pytest.raises(UsageError):
        nowcast.evaluate(["persistence", "persistence"], file, **OPTIONS)
    assert not is_open(file)
    with xr.open_dataset(file, decode_coords="all") as dataset:
        rate = dataset.rainfall_rate.load()
    rate.to_netcdf(file)
    np.testing.assert_array_equal(nowcast.evaluate("persistence", file, **OPTIONS).csi, scores.csi)
    array.close()


@pytest.mark.slow
def test_random_numbers_go_on_as_if_nothing_was_trained(file, tmp_path):
    tree = config.as_dict(tiny_experiment(["absent.nc"]))
    arguments = {"data": file, "set": {"training.steps": 2}, "device": "cpu"}
    torch.manual_seed(3)
    first = nowcast.train(tree, output=tmp_path / "first", **arguments)
    drawn = torch.rand(2)
    torch.manual_seed(3)
    np.testing.assert_array_equal(drawn, torch.rand(2))
    second = nowcast.train(tree, output=tmp_path / "second", **arguments)
    weights = [(run.folder / "best.safetensors").read_bytes() for run in (first, second)]
    assert weights[0] == weights[1]
    torch.manual_seed(3)
    with pytest.raises(OutputError):
        nowcast.train(tree, output=tmp_path / "first", **arguments)
    np.testing.assert_array_equal(drawn, torch.rand(2))
    assert not is_open(file)


@pytest.mark.slow
def test_opencv_has_as_many_threads_after_a_training(file, tmp_path):
    tree = config.as_dict(tiny_experiment([file]))
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        settings = {"training.steps": np.int64(1), "data.records": [file], "data.coordinates": "lagrangian"}
        nowcast.train(tree, output=tmp_path / "run", set=settings, device="cpu")
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)
