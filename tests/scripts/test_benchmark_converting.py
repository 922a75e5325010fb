"""The benchmark of conversions makes files that convert reads, and reports what it measured."""

import converting
import numpy as np
import pytest

from nowcast.convert.formats import radolan
from nowcast.convert.original import Options

pytestmark = pytest.mark.slow
pytest.importorskip("pyproj")


def test_its_files_are_radolan_with_rain_and_missing_cells(tmp_path):
    assert converting.write_files(tmp_path, 2) == sum(path.stat().st_size for path in tmp_path.iterdir())
    first, second = sorted(tmp_path.iterdir())
    (original,) = radolan.scan(second, Options())
    assert original.time == converting.START + np.timedelta64(300, "s")
    (field,) = radolan.read(first, [0], Options())
    assert 0.15 < (field == -32768).mean() < 0.3
    assert 0.02 < (field > 0).mean() < 0.2


def test_it_measures_a_conversion(cache):
    result = converting.measure(2, 1)
    assert result["frames"] == 2
    assert 0 < result["record_mb"] < result["files_mb"] * 3
    assert result["cpu_seconds"] > 0
