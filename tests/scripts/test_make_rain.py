"""The synthetic record: it can be made again, moves as it says, and looks like radar rain to whoever reads it."""

import importlib.util
from itertools import islice

import netCDF4
import numpy as np
import pytest
from makers import ROOT
from scipy.ndimage import map_coordinates

SAMPLE = ROOT / "data" / "synthetic.nc"


@pytest.fixture(scope="module")
def make_rain():
    spec = importlib.util.spec_from_file_location("make_rain", ROOT / "scripts" / "data" / "make_rain.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sample():
    """(fields (time, y, x) mm/h with NaN, seconds, flow parameters by name)"""
    with netCDF4.Dataset(SAMPLE) as file:
        fields = np.ma.filled(file["rainfall_rate"][:].astype(np.float32), np.nan)
        flows = {name: file[f"event_{name}"][:].data for name in ("first_frame", "motion", "turn", "stretch")}
        return fields, file["time"][:].data, flows


def small(make_rain, path, **changes):
    arguments = {"frames": 5, "shape": (20, 24), "motion": (1.0, 2.0), "seed": 3, "step_minutes": 10, "event_frames": 3}
    make_rain.make(path, **arguments | changes)
    return path


@pytest.mark.slow
def test_the_committed_sample_is_what_the_script_makes(make_rain, sample):
    fields, _, flows = sample
    for event, (flow, made) in enumerate(islice(make_rain.make_events(900, (64, 64), (0.8, 1.8), 1), 2)):
        committed = fields[30 * event : 30 * event + 30]
        assert np.nanmax(np.abs(committed - made)) <= make_rain.SCALE
        np.testing.assert_allclose(flow.motion, flows["motion"][event])
        np.testing.assert_array_equal(np.isnan(committed[0]), ~make_rain.observed_mask((64, 64)))


def test_the_same_arguments_give_the_same_bytes_and_another_seed_does_not(make_rain, tmp_path):
    one, two = (small(make_rain, tmp_path / name).read_bytes() for name in ("one.nc", "two.nc"))
    assert one == two
    assert small(make_rain, tmp_path / "three.nc", seed=4).read_bytes() != one


def test_rain_moves_as_the_file_says(sample):
    fields, _, flows = sample
    cells = np.indices((64, 64)) - 31.5
    for event in range(0, 30, 5):
        y, x = cells
        turn, stretch = flows["turn"][event], flows["stretch"][event]
        motion = flows["motion"][event][:, None, None] + np.array([-turn * x - stretch * y, turn * y + stretch * x])
        first, second = fields[flows["first_frame"][event] + 10], fields[flows["first_frame"][event] + 11]
        moved = map_coordinates(np.nan_to_num(first), np.indices((64, 64)) - motion, order=1)
        inner = np.hypot(y, x) < 30
        still = np.corrcoef(np.log(first[inner] + 0.1), np.log(second[inner] + 0.1))[0, 1]
        along = np.corrcoef(np.log(moved[inner] + 0.1), np.log(second[inner] + 0.1))[0, 1]
        assert along > 0.9
        assert along > still + 0.05


def test_the_sample_looks_like_rain(sample):
    fields, _, _ = sample
    known = fields[~np.isnan(fields)]
    assert fields.shape == (900, 64, 64)
    assert 0.05 < np.isnan(fields).mean() < 0.1
    assert 0.2 < (known >= 0.1).mean() < 0.35
    assert 0.08 < (known >= 1).mean() < 0.2
    assert known.min() == 0
    assert 30 < known.max() < 300
    assert SAMPLE.stat().st_size < 2e6


def test_events_are_unbroken_and_lie_apart(sample):
    _, seconds, flows = sample
    steps = np.diff(seconds)
    starts = np.flatnonzero(steps != 300) + 1
    assert starts.tolist() == flows["first_frame"][1:].tolist()
    assert steps[starts - 1].min() > 6 * 3600


def test_events_never_overlap_whatever_their_length(make_rain):
    for frames, step in ((30, 5), (300, 5), (1000, 15), (1, 1)):
        starts = np.array(make_rain.event_times(8, frames, step, seed=0))
        assert (np.diff(starts) > np.timedelta64(frames * step * 60, "s")).all()


def test_the_file_is_packed_cf_in_chunks_of_a_frame(make_rain, tmp_path):
    with netCDF4.Dataset(small(make_rain, tmp_path / "rain.nc")) as file:
        rain = file["rainfall_rate"]
        assert (rain.dtype, rain.dimensions, rain.chunking()) == (np.int16, ("time", "y", "x"), [1, 20, 24])
        assert (rain.standard_name, rain.units, rain.grid_mapping) == ("rainfall_rate", "mm h-1", "crs")
        assert file["crs"].grid_mapping_name == "azimuthal_equidistant"
        assert file["y"][0] == 9500
        assert np.unique(np.diff(file["y"][:])).tolist() == [-1000]
        assert np.unique(np.diff(file["x"][:])).tolist() == [1000]
        assert np.diff(file["time"][:3]).tolist() == [600, 600]
        assert file.Conventions == "CF-1.11"
        assert "--seed 3" in file.history


def test_the_command_writes_what_it_is_asked_for(make_rain, tmp_path, capsys):
    path = tmp_path / "rain.nc"
    make_rain.main(["--output", str(path), "--frames", "2", "--shape", "12", "16", "--motion", "0", "1"])
    with netCDF4.Dataset(path) as file:
        assert file["rainfall_rate"].shape == (2, 12, 16)
    assert [item.name for item in tmp_path.iterdir()] == ["rain.nc"]
    with pytest.raises(SystemExit, match="2"):
        make_rain.main(["--output", str(path), "--frames", "0"])
    assert "must be at least 1" in capsys.readouterr().err
