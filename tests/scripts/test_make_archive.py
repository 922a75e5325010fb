"""The made-up archive is one series without a gap, sparse, and written quickly because its days come again."""

import importlib.util

import numpy as np
import pytest
from makers import ROOT

from nowcast.netcdf.opening import open_records


def load():
    path = ROOT / "scripts" / "data" / "make_archive.py"
    spec = importlib.util.spec_from_file_location("make_archive", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_archive = load()
FRAMES = make_archive.FRAMES


@pytest.mark.slow
def test_the_archive_is_one_even_series_of_sparse_rain(tmp_path):
    make_archive.write_archive(tmp_path / "archive", days=12, size=96, start=np.datetime64("2020-02-28"), seed=1)
    (record,) = open_records([tmp_path / "archive"])
    assert [path.name for path in record.paths][:4] == [f"2020-{day}.nc" for day in ("02-28", "02-29", "03-01", "03-02")]
    assert len(record) == 12 * FRAMES
    assert set(np.diff(record.times)) == {np.timedelta64(300, "s")}
    assert record.grid.shape == (96, 96)
    frames = record.read(range(0, len(record), 9))
    known = make_archive.observed(96)
    assert (np.isnan(frames) == ~known).all()
    wet = (frames[:, known] >= 0.1).mean()
    assert 0 < wet < 0.3
    assert (frames[:, known].max(axis=1) == 0).any()


@pytest.mark.slow
def test_the_same_seed_writes_the_same_rain(tmp_path):
    for name in ("a", "b"):
        make_archive.write_archive(tmp_path / name, days=1, size=96, start=np.datetime64("2020-01-01"), seed=2)
    (a,), (b,) = (open_records([tmp_path / name]) for name in ("a", "b"))
    np.testing.assert_array_equal(a.read(range(0, FRAMES, 30)), b.read(range(0, FRAMES, 30)))
