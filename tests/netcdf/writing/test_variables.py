"""Files of many small variables hold what xarray would write, and are read as they are stored."""

import numpy as np
import pytest
import xarray as xr

from nowcast.errors import DataError
from nowcast.netcdf.writing.variables import read_variables, write_variables

ENCODED = ("zlib", "complevel", "shuffle", "fletcher32", "_FillValue", "dtype", "coordinates")


@pytest.fixture
def dataset():
    data = {
        "csi": (("forecaster", "lead"), np.array([[0.5, np.nan], [0.25, 1.0]]), {"units": "1", "long_name": "índex"}),
        "hits": (("lead", "block"), np.arange(6).reshape(2, 3)),
        "given": ("forecaster", np.array([1, 0], np.int8)),
        "num_cases": ((), 7, {"long_name": "number of cases"}),
    }
    coordinates = {"forecaster": ["net é", "persistence"], "lead": ("lead", [5.0, 10.0], {"units": "min"}),
                   "block_day": ("block", ["1", "2", "3"]), "block_record": ("block", ["a", "b", "c"])}  # fmt: skip
    return xr.Dataset(data, coordinates, {"title": "Scores", "format": 1})


def test_a_file_holds_what_xarray_would_write(dataset, tmp_path):
    filtered = ("csi", "hits", "given", "lead")
    encoding = {name: {"zlib": True, "fletcher32": True} for name in filtered}
    dataset.to_netcdf(tmp_path / "xarray.nc", engine="netcdf4", encoding=encoding)
    write_variables(dataset, tmp_path / "own.nc")
    with xr.open_dataset(tmp_path / "xarray.nc") as expected, xr.open_dataset(tmp_path / "own.nc") as found:
        xr.testing.assert_identical(found, expected)
        assert list(found.variables) == list(expected.variables)
        for name, variable in expected.variables.items():
            for key in ENCODED:
                np.testing.assert_equal(found[name].encoding.get(key), variable.encoding.get(key), err_msg=f"{name} {key}")


def test_what_was_written_is_read_undecoded(dataset, tmp_path):
    write_variables(dataset, tmp_path / "own.nc")
    attributes, variables = read_variables(tmp_path / "own.nc")
    assert attributes == dataset.attrs
    assert variables.keys() == dataset.variables.keys()
    for name, variable in dataset.variables.items():
        np.testing.assert_array_equal(variables[name].values, variable.values)
        assert variables[name].dims == variable.dims
    assert variables["hits"].attrs == {"coordinates": "block_day block_record"}


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "own.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(DataError, match=r"own\.nc is damaged or incomplete"):
        read_variables(tmp_path / "own.nc")
