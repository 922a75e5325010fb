"""Grids: places and distances come from whatever coordinates a file has."""

import numpy as np
import pytest
from makers.stored import edit, open_one
from makers.unusual_files import degrees

from nowcast.netcdf.opening import open_records


def test_longitude_and_latitude_over_the_grid_give_places_and_distances(tmp_path):
    for name, northwards in (("down", False), ("up", True)):
        degrees(tmp_path / f"{name}.nc", northwards=northwards)
    down, up = (open_one(tmp_path / f"{name}.nc").grid for name in ("down", "up"))
    assert down.key == up.key
    assert (down.y_ascending, up.y_ascending) == (False, True)
    for grid in (down, up):
        assert grid.spacing_km == pytest.approx((1.112, 1.112 * np.cos(np.radians(50))), abs=0.002)
    degrees(tmp_path / "elsewhere.nc")
    with edit(tmp_path / "elsewhere.nc") as file:
        file["lon"][:] += 1
    assert len(open_records([tmp_path / "down.nc", tmp_path / "elsewhere.nc"])) == 2
