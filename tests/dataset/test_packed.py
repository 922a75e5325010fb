"""Packed frames: tiles and whole frames hold the same numbers, and the room they need is known before they are written."""

import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers import rain, write_record

from nowcast.dataset import packed_tiles
from nowcast.dataset.batches import Batches, Series
from nowcast.dataset.packed import FINE, LARGEST, pack, to_half
from nowcast.dataset.windows import find_windows
from nowcast.errors import OutputError
from nowcast.netcdf.opening import open_records


def test_packed_frames_are_mapped_once_in_each_process(tmp_path):
    (record,) = open_records([write_record(tmp_path / "a.nc", rain(frames=3))])
    packed = pack(record)
    frames = packed.frames()
    assert packed.frames() is frames
    assert packed.rain_blocks() is packed.rain_blocks()
    with pytest.raises(ValueError, match="read-only"):
        frames[0] = 0
    sent = pickle.dumps(packed)
    assert len(sent) < frames.nbytes
    np.testing.assert_array_equal(pickle.loads(sent).frames(), frames)


def test_frames_are_read_together_as_chunks_may_hold_several(tmp_path, monkeypatch):
    fields = rain(frames=40) + 0.1
    (record,) = open_records([write_record(tmp_path / "a.nc", fields)])
    read, one_by_one = [], type(record).read
    monkeypatch.setattr(type(record), "read", lambda self, some: read.append(len(some)) or one_by_one(self, some))
    np.testing.assert_allclose(pack(record).frames(), fields, rtol=1e-3)
    assert read == [16, 16, 8]


@pytest.mark.parametrize("unit", [0.01, 0.12, 0.1, 0.025])
def test_what_reaches_a_threshold_does_so_packed(unit):
    rates = (np.arange(4000) * unit).astype(np.float32)
    half = to_half(rates)
    np.testing.assert_allclose(half, rates, rtol=1e-3)
    for threshold in (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0):
        np.testing.assert_array_equal(half.astype(np.float32) >= np.float32(threshold), rates >= np.float32(threshold))


@given(st.floats(0, 60_000, width=32), st.integers(1, 1500))
def test_packed_rates_reach_the_multiples_of_a_step_that_they_reached(rate, multiple):
    for value in (np.float32(rate), np.float32(multiple * 0.05)):
        half = to_half(np.array([[value]]))[0, 0].astype(np.float32)
        assert half == pytest.approx(value, rel=1e-3, abs=1e-6)
        for threshold in (multiple * 0.05, round(float(value) / 0.05) * 0.05):
            is_apart = abs(threshold / max(value, 1e-9) - 1) > 1e-5 or value == np.float32(threshold)
            if value < FINE and is_apart:
                assert (half >= np.float32(threshold)) == (value >= np.float32(threshold))


def test_rates_above_all_numbers_are_the_largest():
    assert to_half(np.array([[7e4, 1e6]], np.float32)).tolist() == [[LARGEST] * 2]


def test_missing_and_dry_are_packed_as_they_are():
    half = to_half(np.array([[np.nan, 0.0, -0.0, 1e-9]], np.float32))
    assert np.isnan(half[0, 0])
    assert half[0, 1:].tolist() == [0, 0, 0]


def in_both(tmp_path, monkeypatch, fields):
    """The record of `fields`, packed whole and in tiles of 16 cells."""
    (record,) = open_records([write_record(tmp_path / "a.nc", fields)])
    kept = []
    for name, limit in (("whole", 1 << 40), ("tiles", 0)):
        monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / name))
        monkeypatch.setattr(packed_tiles, "UNTILED_BYTES", limit)
        monkeypatch.setattr(packed_tiles, "TILE", 16)
        kept.append(pack(record))
    assert [packed.in_tiles for packed in kept] == [False, True]
    return kept


def sparse(*, frames=8, shape=(50, 37)):
    """Rain that comes and goes in a circle of view, with a dry, a missing and a dotted frame."""
    y, x = np.indices(shape)
    fields = np.where(rain(frames=frames, shape=shape) > 4, rain(frames=frames, shape=shape), 0)
    fields[:, np.hypot(y - 25, x - 18) > 22] = np.nan
    fields[2][~np.isnan(fields[2])] = 0
    fields[3] = np.nan
    fields[4, ::7, ::5] = np.nan
    fields[6] = fields[5]
    return fields


@pytest.mark.parametrize("crop", [0, 16, 21, 40, 64])
def test_tiles_give_the_batches_that_whole_frames_give(tmp_path, monkeypatch, crop):
    whole, tiled = in_both(tmp_path, monkeypatch, sparse())
    windows = find_windows(open_times(8), input_frames=2, lead_frames=3, time_step=np.timedelta64(300, "s"))
    sparse_windows = find_windows(open_times(8), input_frames=2, lead_frames=1, time_step=np.timedelta64(600, "s"))
    for chosen in (windows, sparse_windows):
        for sampler in ("rain", "uniform", "each"):
            options = {"batch_size": 3, "crop": crop, "seed": 1, "sampler": sampler, "augmentation": ("flips", "rotations")}
            pair = [Batches([Series("a", packed, chosen)], **options) for packed in (whole, tiled)]
            for k in range(4):
                a, b = (batches[k] for batches in pair)
                assert a.cases == b.cases
                np.testing.assert_array_equal(a.past, b.past)
                np.testing.assert_array_equal(a.future, b.future)


def open_times(frames):
    return np.datetime64("2020-06-01T00:00:00") + 300 * np.arange(frames)


def test_every_cut_of_tiles_is_that_of_the_frames(tmp_path, monkeypatch):
    whole, tiled = in_both(tmp_path, monkeypatch, sparse())
    rng = np.random.default_rng(0)
    for _ in range(200):
        top, bottom = sorted(rng.choice(51, 2, replace=False))
        left, right = sorted(rng.choice(38, 2, replace=False))
        positions = rng.choice(8, rng.integers(1, 8))
        expected = whole.frames()[positions, top:bottom, left:right]
        np.testing.assert_array_equal(tiled.tiles.cut(positions, top, left, bottom, right), expected)
    sent = pickle.loads(pickle.dumps(tiled))
    np.testing.assert_array_equal(sent.tiles.cut(np.arange(8), 0, 0, 50, 37), whole.frames())


def test_what_is_dry_missing_or_a_mask_is_stored_once(tmp_path, monkeypatch):
    fields = np.zeros((40, 64, 64), np.float32)
    fields[:, :, 40:] = np.nan  # through tiles, and one column of them as a whole
    _, tiled = in_both(tmp_path, monkeypatch, fields)
    assert len(tiled.tiles.tiles) == 3  # dry, missing, and half of each
    fields[7, 3, 3] = 1.0
    write_record(tmp_path / "new.nc", fields).replace(tmp_path / "a.nc")
    (record,) = open_records([tmp_path / "a.nc"])
    assert len(pack(record).tiles.tiles) == 4


def test_room_for_tiles_is_asked_for_by_a_sample_of_the_frames(tmp_path, monkeypatch):
    fields = np.zeros((40, 64, 64), np.float32)
    fields[:, :16, :16] = 1.0  # a tile of sixteen
    (record,) = open_records([write_record(tmp_path / "a.nc", fields)])
    monkeypatch.setattr(packed_tiles, "UNTILED_BYTES", 0)
    monkeypatch.setattr(packed_tiles, "TILE", 16)
    needed = fields.size * 2 * (1 / 16 + 1 / 64)
    for free, fits in ((needed - 1, False), (needed + 1, True)):
        monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / f"cache{fits}"))
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        if fits:
            assert pack(record).in_tiles
        else:
            with pytest.raises(OutputError, match=r"packing a needs 25\.6 kB in .*, which has 25\.6 kB free\.\nSet NOWCAST"):
                pack(record)
