"""Batch k is a pure function of (seed, k); crops follow the rain; missing stays missing."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from makers import rain, tiny_run, write_record
from makers.damaged import damage, write_by_frame

from nowcast.commands.inspect import as_lines, inspect_record
from nowcast.dataset.batches import Batches, Series
from nowcast.dataset.loader import load
from nowcast.dataset.packed import BLOCK, block_means, missing_and_wet, pack
from nowcast.dataset.windows import find_windows
from nowcast.errors import DataError, OutputError
from nowcast.netcdf.opening import open_records

pytestmark = pytest.mark.usefixtures("cache")


def series(path, fields, *, past=2, future=3):
    (record,) = open_records([write_record(path, fields)])
    windows = find_windows(record.times, input_frames=past, lead_frames=future, time_step=record.time_step)
    return Series(record.name, pack(record), windows)


@pytest.fixture
def two_grids(tmp_path):
    return [
        series(tmp_path / "a.nc", rain(frames=9, shape=(70, 50), missing=0.05)),
        series(tmp_path / "b.nc", rain(frames=7, shape=(40, 64), seed=1)),
    ]


def same(a, b):
    return all(torch.equal(getattr(a, part).nan_to_num(-1), getattr(b, part).nan_to_num(-1)) for part in ("past", "future"))


@pytest.mark.parametrize("sampler", ["uniform", "rain", "each"])
def test_a_batch_is_a_function_of_seed_and_number_alone(two_grids, sampler):
    def make(seed):
        return Batches(two_grids, batch_size=3, crop=32, seed=seed, sampler=sampler, augmentation=("flips", "rotations"))

    first, second = make(7), make(7)
    straight = [first[k] for k in range(6)]
    for k in (5, 0, 3):
        assert same(second[k], straight[k])
        assert second[k].cases == straight[k].cases
    assert not same(straight[0], straight[1])
    assert not same(make(8)[0], straight[0])


def test_each_takes_every_window_once_before_any_comes_again(two_grids):
    batches = Batches(two_grids, batch_size=4, crop=32, seed=0, sampler="each")
    drawn = [case[:2] for k in range(4) for case in batches[k].cases]
    number = batches.num_windows
    assert number == 5 + 3
    assert len(set(drawn[:number])) == number
    assert set(drawn[:number]) == set(drawn[number : 2 * number])
    assert drawn[:number] != drawn[number : 2 * number]


@pytest.mark.parametrize(("crop", "motion"), [(32, (3, 4)), (0, (3, 4)), (0, (-3, -4))])
def test_in_lagrangian_coordinates_what_only_moves_stands_still(tmp_path, crop, motion):
    """Also far from where it was: at the last lead by 40 cells, out of the crop and of the part that gave the motion."""
    part = series(tmp_path / "a.nc", rain(frames=14, shape=(180, 200), motion=motion), past=4, future=9)
    options = {"batch_size": 4, "crop": crop, "seed": 3, "sampler": "rain"}
    still, moving = (Batches([part], coordinates=name, **options)[0] for name in ("lagrangian", "grid"))
    assert still.cases == moving.cases
    assert torch.equal(still.past[:, -1].nan_to_num(-1), moving.past[:, -1].nan_to_num(-1))
    newest, last = still.past[:, -1], still.future[:, -1]
    known = torch.isfinite(newest) & torch.isfinite(last)
    assert known.float().mean() > 0.3
    change = (last - newest)[known].abs().mean()
    assert change < 0.35 * (moving.future[:, -1] - newest)[known].abs().mean()


@pytest.mark.parametrize("coordinates", ["grid", "lagrangian"])
def test_workers_change_nothing(two_grids, coordinates):
    batches = Batches(two_grids, batch_size=2, crop=32, seed=0, sampler="rain", augmentation=("flips",),
                      coordinates=coordinates)  # fmt: skip
    alone = list(load(batches, 3, 9, workers=0))
    helped = list(load(batches, 3, 9, workers=2))
    assert len(alone) == len(helped) == 6
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))


def test_past_and_future_are_the_windows_frames(two_grids):
    batches = Batches(two_grids, batch_size=4, crop=32, seed=0, sampler="uniform")
    batch = batches[0]
    assert batch.past.shape == (4, 2, 32, 32)
    assert batch.future.shape == (4, 3, 32, 32)
    for n, (number, window, top, left) in enumerate(batch.cases):
        part = two_grids[number]
        frames = part.frames.frames()[part.windows.positions[window], top : top + 32, left : left + 32]
        expected = torch.from_numpy(frames.astype(np.float32))
        got = torch.cat([batch.past[n], batch.future[n]])
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def test_a_grid_smaller_than_the_crop_is_missing_beyond_its_edge(tmp_path):
    small = series(tmp_path / "small.nc", rain(frames=6, shape=(20, 30)))
    for sampler in ("uniform", "rain"):
        batch = Batches([small], batch_size=2, crop=48, seed=0, sampler=sampler)[0]
        assert torch.isfinite(batch.past[:, :, :20, :30]).all()
        assert torch.isnan(batch.past[:, :, 20:]).all()
        assert torch.isnan(batch.past[:, :, :, 30:]).all()


def test_whole_frames_are_taken_without_a_crop(tmp_path):
    whole = series(tmp_path / "whole.nc", rain(frames=6, shape=(20, 30)))
    batches = Batches([whole], batch_size=2, crop=0, seed=0, augmentation=("rotations",))
    assert batches[0].past.shape == (2, 2, 20, 30)


def test_flips_and_turns_move_past_and_future_alike(tmp_path):
    fields = np.zeros((6, 32, 32), np.float32)
    fields[:, 3, 11] = 5.0
    batches = Batches([series(tmp_path / "dot.nc", fields)], batch_size=8, crop=0, seed=1, augmentation=("flips", "rotations"))
    places = set()
    for k in range(8):
        batch = batches[k]
        for frames in torch.cat([batch.past, batch.future], dim=1):
            dots = {tuple(map(int, torch.nonzero(frame)[0])) for frame in frames}
            assert len(dots) == 1
            places |= dots
    rows, columns = {3, 28}, {11, 20}
    assert places == {(r, c) for r in rows for c in columns} | {(c, r) for r in rows for c in columns}


@pytest.mark.parametrize(("crop", "shape"), [(0, (32, 32)), (32, (32, 48))])
def test_rotations_alone_turn_and_mirror_nothing(tmp_path, crop, shape):
    fields = rain(frames=6, shape=shape)
    batches = Batches([series(tmp_path / "r.nc", fields)], batch_size=8, crop=crop, seed=1, augmentation=("rotations",))
    turns = []
    for k in range(8):
        batch = batches[k]
        for past, future, (_, window, top, left) in zip(batch.past, batch.future, batch.cases, strict=True):
            case = batches.read((0, window, top, left)).float()
            turned = [torch.rot90(case, number, dims=(1, 2)) for number in range(4)]
            turns += [number for number in range(4) if torch.equal(torch.cat([past, future]), turned[number])]
    assert len(turns) == 64
    assert min(np.bincount(turns, minlength=4)) > 6


def test_crops_and_windows_follow_the_rain(tmp_path):
    fields = np.zeros((16, 96, 96), np.float32)
    fields[10:, 64:80, 64:80] = 20.0  # rain in the last frames, in one corner
    wet = series(tmp_path / "corner.nc", fields)
    batches = Batches([wet], batch_size=64, crop=32, seed=0, sampler="rain")
    batch = batches[0]
    assert (batch.future > 0).any(dim=(1, 2, 3)).float().mean() > 0.75
    uniform = Batches([wet], batch_size=64, crop=32, seed=0, sampler="uniform")[0]
    assert (uniform.future > 0).any(dim=(1, 2, 3)).float().mean() < 0.5
    tops = {case[2] for k in range(4) for case in batches[k].cases}
    assert min(tops) >= 0
    assert max(tops) <= 64


def test_dry_weather_is_drawn_as_well(tmp_path):
    fields = np.zeros((40, 32, 32), np.float32)
    fields[20:] = 5.0
    batches = Batches([series(tmp_path / "half.nc", fields)], batch_size=64, crop=16, seed=0, sampler="rain")
    dry = sum(int((batches[k].future == 0).all(dim=(1, 2, 3)).sum()) for k in range(8))
    assert 0 < dry < 100


def test_packing_keeps_missing_and_rates(tmp_path):
    fields = rain(frames=3, shape=(33, 20), missing=0.2) + 0.01
    fields[0] *= 3
    packed = series(tmp_path / "a.nc", fields, past=1, future=1).frames
    frames = packed.frames()
    np.testing.assert_allclose(frames, fields, rtol=1e-3, equal_nan=True)
    np.testing.assert_allclose(packed.missing, np.isnan(fields).mean(axis=(1, 2)))
    known_wet = [(f >= np.float32(0.1)).sum() / np.isfinite(f).sum() for f in fields]
    np.testing.assert_allclose(packed.wet, known_wet)
    assert packed.rain_blocks().shape == (3, 3, 2)


def test_a_record_is_packed_once_and_again_when_its_file_changes(tmp_path, cache):
    fields = rain(frames=6)
    first = series(tmp_path / "a.nc", fields).frames.folder
    stamp = (first / "frames.npy").stat().st_mtime_ns
    assert series(tmp_path / "b.nc", fields).frames.folder != first
    (record,) = open_records([tmp_path / "a.nc"])
    assert pack(record).folder == first
    assert (first / "frames.npy").stat().st_mtime_ns == stamp
    (tmp_path / "a.nc").unlink()  # a service replaces a file; HDF5 would not write into one that is open
    series(tmp_path / "a.nc", fields * 2)
    (record,) = open_records([tmp_path / "a.nc"])
    assert pack(record).folder != first
    assert not list(cache.glob(".*"))


def test_an_unwritable_cache_is_an_output_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "file" / "below"))
    (record,) = open_records([write_record(tmp_path / "a.nc", rain(frames=3))])
    with pytest.raises(OutputError, match=r"cannot write the cache .* set NOWCAST_CACHE"):
        pack(record)


def test_a_cache_without_room_says_how_much_is_needed(tmp_path, monkeypatch):
    (record,) = open_records([write_record(tmp_path / "a.nc", rain(frames=3))])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(OutputError, match=r"packing a needs 16\.1 kB in .*, which has 10 bytes free\.\nSet NOWCAST_CACHE"):
        pack(record)


def test_a_frame_that_cannot_be_read_is_missing_counted_and_named(tmp_path):
    fields = rain(frames=8, shape=(40, 50)) + 0.1
    damage(write_by_frame(tmp_path / "a.nc", fields), [2, 5])
    (record,) = open_records([tmp_path / "a.nc"])
    says = f"{tmp_path / 'a.nc'}: 2 frames cannot be read and count as missing: 2020-06-01T00:10:00Z, 2020-06-01T00:25:00Z"
    for _ in range(2):  # also from the cache
        packed = pack(record)
        assert packed.damaged == (says,)
        assert np.flatnonzero(packed.missing == 1).tolist() == [2, 5]
        np.testing.assert_allclose(packed.frames()[[0, 1, 3, 4, 6, 7]], fields[[0, 1, 3, 4, 6, 7]], rtol=1e-3)
    assert inspect_record(record)["damaged"] == [says]
    assert f"  damaged  {says}" in as_lines([inspect_record(record)])


def test_a_record_none_of_whose_frames_can_be_read_is_refused(tmp_path, cache):
    damage(write_by_frame(tmp_path / "a.nc", rain(frames=3, shape=(40, 50)) + 0.1), range(3))
    (record,) = open_records([tmp_path / "a.nc"])
    with pytest.raises(DataError, match=r"a\.nc: frame 0 of rainfall_rate cannot be read"):
        pack(record)
    with pytest.raises(DataError, match=r"a\.nc: frame 0 of rainfall_rate cannot be read"):
        inspect_record(record)
    assert list(cache.iterdir()) == []


def test_a_file_that_is_gone_is_an_error_and_no_missing_frame(tmp_path, cache, monkeypatch):
    for n in range(2):
        times = np.datetime64("2020-06-01T00:00:00") + 300 * np.arange(2 * n, 2 * n + 2)
        write_record(tmp_path / f"{n}.nc", rain(frames=2), times=times)
    (record,) = open_records([tmp_path])
    digest = record.digest()
    monkeypatch.setattr(type(record), "digest", lambda self: digest)
    (tmp_path / "1.nc").unlink()
    with pytest.raises(DataError, match=r"1\.nc cannot be read any more"):
        pack(record)
    assert list(cache.iterdir()) == []


def test_training_names_the_frames_that_it_cannot_read(tmp_path, caplog):
    damage(write_by_frame(tmp_path / "a.nc", rain(frames=40, shape=(24, 28)) + 0.1), [3])
    tiny_run(tmp_path / "run", [tmp_path / "a.nc"])
    told = [message for message in caplog.messages if "cannot be read" in message]
    assert told == [f"{tmp_path / 'a.nc'}: 1 frame cannot be read and counts as missing: 2020-06-01T00:15:00Z"]


def test_block_means_fill_up_the_edge_with_zero():
    means = block_means(np.ones((BLOCK, BLOCK + BLOCK // 2)))
    assert means.tolist() == [[1.0, 0.5]]


def test_missing_and_wet_of_a_frame():
    frame = np.array([[np.nan, 0.0], [0.1, 5.0]], np.float32)
    assert missing_and_wet(frame) == (0.25, pytest.approx(2 / 3))
    missing, wet = missing_and_wet(np.full((2, 2), np.nan, np.float32))
    assert missing == 1
    assert np.isnan(wet)
