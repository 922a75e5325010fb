"""The fingerprint of records: their motion, rates and wet area, from a bounded sample of frames."""

import logging
import math

import numpy as np
import pytest
from makers import rain, write_record
from makers.archives import record

from nowcast import netcdf
from nowcast.errors import DataError
from nowcast.netcdf.opening import open_records
from nowcast.plan import fingerprint
from nowcast.plan.fingerprint import take_fingerprint


def look(*paths):
    return take_fingerprint(open_records(paths))


def test_the_facts_of_a_record_of_known_motion(tmp_path):
    path = record(tmp_path, motion=(2, 1), missing=0.25, frames=30, shape=(128, 128))
    found, fields = look(path), open_records([path])[0].read(range(30))
    known = fields[np.isfinite(fields)]
    assert found.num_frames_read == 30
    assert found.missing == pytest.approx(0.25, abs=0.01)
    for rate in (0.1, 0.5, 1.0, 5.0, 10.0):
        assert found.share_from(rate) == pytest.approx((known >= rate).mean(), abs=1e-6)
    assert found.maximum == known.max()
    whole = look(record(tmp_path, name="whole.nc", motion=(2, 1), frames=30, shape=(128, 128)))
    assert whole.motion_median == pytest.approx(math.hypot(2, 1), abs=0.15)
    assert whole.motion_95 == pytest.approx(math.hypot(2, 1), abs=0.5)


def test_the_sample_is_bounded_spread_and_always_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "MOST_FRAMES", 20)
    path = record(tmp_path, frames=300, shape=(16, 16), motion=(0, 0))
    read, (opened,) = [], open_records([path])
    monkeypatch.setattr(
        type(opened), "read", lambda self, positions: read.extend(positions) or np.ones((len(positions), 16, 16))
    )
    first = take_fingerprint([opened])
    assert first.num_frames_read == 20
    assert len(read) <= 20 + 2 * fingerprint.PAIRS
    assert all(15 * n <= p < 15 * (n + 1) for n, p in enumerate(read[:20])), "one frame of each stretch, in their order"
    again, read[:] = read.copy(), []
    take_fingerprint([opened])
    assert read == again


def test_frames_of_many_cells_are_few(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "MOST_CELLS", 20 * 256)
    path = record(tmp_path, frames=60, shape=(16, 16))
    assert look(path).num_frames_read == 21, "the one that goes beyond is the last"
    monkeypatch.setattr(fingerprint, "MOST_CELLS", 0)
    assert look(path).num_frames_read == fingerprint.FEWEST_FRAMES


def test_rainy_frames_and_days_are_counted(tmp_path):
    fields = np.zeros((10 * 9, 20, 20), np.float32)
    fields.reshape(10, 9, 20, 20)[:4, 3:6, :2, :2] = 3.0  # 1 % of the cells, in a third of the frames of four of ten days
    fields.reshape(10, 9, 20, 20)[4:, 3:6, :1, :3] = 3.0  # less than 1 %
    hours = (np.arange(10)[:, None] * 24 + np.arange(9)).ravel()
    times = np.datetime64("2021-05-01T00:00:00") + hours * np.timedelta64(3600, "s")
    found = look(write_record(tmp_path / "days.nc", fields, times=times))
    assert found.num_frames_read == found.num_frames == 90
    assert found.rainy_frames == pytest.approx(12 / 90)
    assert (found.num_days, found.num_rainy_days) == (10, 4)


def test_rainy_days_of_a_long_archive_are_estimated_from_those_read(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "MOST_FRAMES", 20)
    fields = np.zeros((60, 20, 20), np.float32)
    fields[:30] = 3.0
    times = np.datetime64("2021-05-01T00:00:00") + np.arange(60) * np.timedelta64(86400, "s")
    found = look(write_record(tmp_path / "days.nc", fields, times=times))
    assert found.num_frames_read == 20
    assert found.num_rainy_days == 30


def test_specks_and_dry_frames_say_nothing_about_motion(tmp_path):
    fields = np.zeros((20, 64, 64), np.float32)
    fields[:, ::16, ::16] = 40.0
    found = look(write_record(tmp_path / "specks.nc", fields))
    assert (found.num_pairs, math.isnan(found.motion_95)) == (0, True)
    assert found.highest_credible(1e-3) == 0.0, "no speck has neighbours"
    assert found.maximum == 40.0


def test_nothing_but_missing_is_refused(tmp_path):
    path = write_record(tmp_path / "void.nc", np.full((20, 16, 16), np.nan))
    with pytest.raises(DataError, match="void: all values are missing in the 20 frames read") as error:
        look(path)
    assert error.value.exit_code == 3


def test_damaged_frames_are_named_and_left_out(tmp_path, monkeypatch, caplog):
    (opened,), read = open_records([record(tmp_path, frames=30, shape=(16, 16))]), netcdf.Record.read

    def damaged(self, positions):
        if 7 in positions:
            raise DataError("frame 7 cannot be read")
        return read(self, positions)

    monkeypatch.setattr(netcdf.Record, "read", damaged)
    with caplog.at_level(logging.WARNING, "nowcast"):
        found = take_fingerprint([opened])
    assert found.most_missing == 1.0
    assert "rain.nc: 1 frame cannot be read and counts as missing: 2020-06-01T00:35:00Z" in caplog.text


def test_the_wettest_part_of_a_large_grid_gives_the_motion(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "SIDE", 64)
    fields = np.zeros((12, 64, 256), np.float32)
    fields[:, :, 160:] = rain(frames=12, shape=(64, 96), motion=(1, 2))
    assert look(write_record(tmp_path / "a.nc", fields)).motion_median == pytest.approx(math.hypot(1, 2), abs=0.3)
