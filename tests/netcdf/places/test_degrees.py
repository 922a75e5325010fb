"""Latitude and longitude over the grid are read at a few cells: the same ones whichever way rows and columns run."""

import numpy as np
import pytest
from makers.stored import edit, write

from nowcast.netcdf.opening import open_records
from nowcast.netcdf.places.degrees import sampled

LATITUDES, LONGITUDES = np.meshgrid(50 - 0.01 * np.arange(20), 5 + 0.015 * np.arange(14), indexing="ij")
RAIN = np.arange(2 * 280, dtype=np.float32).reshape(2, 20, 14) / 10  # mm/h, from the north and the west


@pytest.mark.parametrize("size", range(1, 60))
def test_the_sampled_cells_are_the_same_from_either_end(size):
    assert (sampled(size) == size - 1 - sampled(size)[::-1]).all()
    assert {0, size - 1} <= set(sampled(size).tolist())


def test_files_that_run_differently_on_one_grid_are_one_series(tmp_path):
    """Twenty rows and fourteen columns: more than are sampled."""
    for number, turned in enumerate([np.s_[:, :], np.s_[::-1, :], np.s_[:, ::-1], np.s_[::-1, ::-1]]):
        beside = {"dims": ("time", "row", "column"), "times": 1_600_000_200 + 300 * (2 * number + np.arange(2))}
        path = write(tmp_path / f"{number}.nc", RAIN[(slice(None), *turned)], **beside)
        add_degrees(path, turned)
    (record,) = open_records([tmp_path])
    assert len(record) == 8
    np.testing.assert_array_equal(record.read(range(8)), np.tile(RAIN, (4, 1, 1)))


def add_degrees(path, turned):
    with edit(path) as file:
        for name, values, units in (("lat", LATITUDES, "degrees_north"), ("lon", LONGITUDES, "degrees_east")):
            variable = file.createVariable(name, "f8", ("row", "column"))
            variable.units = units
            variable[:] = values[turned]
