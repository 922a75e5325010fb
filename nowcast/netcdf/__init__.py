"""Read and write NetCDF: the only folder that imports netCDF4, cftime and cf_units.

Records (observed series) are opened by `open_records`; forecasts are read by forecast_reader.py and written by
forecast_writer.py.
"""

from nowcast.netcdf.opening import FileSummary, Index, open_records
from nowcast.netcdf.places.grid import Grid
from nowcast.netcdf.record import Record

__all__ = ["FileSummary", "Grid", "Index", "Record", "open_records"]
