"""The benchmark of opening many files writes one record, and measures what commands on it take."""

import opening
import pytest

from nowcast.netcdf.opening import open_records

pytestmark = pytest.mark.slow


def test_its_files_are_one_record_of_rain_that_moves(tmp_path):
    opening.write_folder(tmp_path / "radar", 3)
    (record,) = open_records([tmp_path / "radar"])
    assert (len(record), len(record.paths), record.grid.shape) == (3, 3, opening.SHAPE)
    assert record.time_step == opening.STEP_SECONDS
    assert record.grid.is_placed
    fields = record.read(range(3))
    assert [field.argmax() % opening.SHAPE[1] for field in fields] == [0, 1, 2]
    assert 0.1 < (fields == 0).mean() < 0.99


def test_it_measures_a_command(tmp_path):
    opening.write_folder(tmp_path / "radar", 20)
    assert 0 < opening.cpu_seconds("inspect", tmp_path / "radar", cache=tmp_path / "cache") < 60
    assert len(list((tmp_path / "cache" / "index").iterdir())) == 1
