"""Write forecast files as other programs do, on the grid of `makers.write_record`."""

from datetime import datetime

import netCDF4
import numpy as np
import pytest

EPOCH = "seconds since 1970-01-01 00:00:00"
AEQD = "+proj=aeqd +lat_0=50 +lon_0=5 +x_0=0 +y_0=0 +ellps=WGS84"


def pysteps_export(folder, fields, *, name="p", reference="2020-06-01T00:15:00", unit="mm/h", leads=None, **metadata):
    """Write a forecast ([member,] lead, y, x), row 0 northernmost, with pysteps' exporter; return the path."""
    exporters = pytest.importorskip("pysteps.io.exporters")
    members, (y, x) = (fields.shape[0] if fields.ndim == 4 else 1), fields.shape[-2:]
    metadata = {
        **{"unit": unit, "projection": AEQD, "cartesian_unit": "m", "yorigin": "upper"},
        **{"x1": -500.0, "x2": 1000.0 * x - 500, "y1": -500.0, "y2": 1000.0 * y - 500},
    } | metadata
    leads = fields.shape[-3] if leads is None else leads
    exporter = exporters.initialize_forecast_exporter_netcdf(
        str(folder), name, datetime.fromisoformat(reference), 5, leads, (y, x), metadata, n_ens_members=members
    )
    exporters.export_forecast_dataset(fields, exporter)
    exporters.close_forecast_files(exporter)
    return folder / f"{name}.nc"


def improver_file(path, fields, *, reference, lead_minutes, variable="rainfall_rate", units="m s-1", scale=3.6e6, **options):
    """A CF file of one lead time as improver writes it: ([realization or threshold,] y, x), y ascending; return the path.

    `fields` have row 0 northernmost and are divided by `scale`; options: thresholds (mm/h, in m s-1), realizations.
    """
    thresholds, fields = options.get("thresholds"), np.asarray(fields, np.float32)
    first = "threshold" if thresholds is not None else "realization" if fields.ndim == 3 else None
    with netCDF4.Dataset(path, "w") as file:
        dims = (*([first] if first else []), "projection_y_coordinate", "projection_x_coordinate")
        for dim, size in zip(dims, fields.shape, strict=True):
            file.createDimension(dim, size)
        for dim in dims[-2:]:
            coordinate = file.createVariable(dim, "f4", (dim,))
            coordinate.setncatts({"axis": dim[11].upper(), "units": "m", "standard_name": dim})
            coordinate[:] = 1000 * np.arange(len(file.dimensions[dim]))
        if first == "realization":
            file.createVariable(first, "i4", (first,)).setncatts({"standard_name": first, "units": "1"})
            file[first][:] = np.arange(len(fields))
        elif first:
            attributes = {"standard_name": "rainfall_rate", "units": "m s-1", "spp__relative_to_threshold": "greater_than"}
            file.createVariable(first, "f4", (first,)).setncatts(attributes)
            file[first][:] = np.array(thresholds) / 3.6e6
        start = np.datetime64(reference, "s").astype(np.int64)
        for name, kind, value, unit in (
            ("forecast_reference_time", "i8", start, EPOCH),
            ("time", "i8", start + 60 * lead_minutes, EPOCH),
            ("forecast_period", "i4", 60 * lead_minutes, "seconds"),
        ):
            file.createVariable(name, kind).setncatts({"standard_name": name, "units": unit})
            file[name][...] = value
        mapping = {"grid_mapping_name": "azimuthal_equidistant", "latitude_of_projection_origin": 50.0}
        file.createVariable("azimuthal_equidistant", "i4").setncatts(mapping | {"longitude_of_projection_origin": 365.0})
        data = file.createVariable(variable, "f4", dims, zlib=True, fill_value=np.float32(9.96921e36))
        coordinates = "forecast_period forecast_reference_time time"
        data.setncatts({"units": units, "grid_mapping": "azimuthal_equidistant", "coordinates": coordinates})
        if thresholds is None:
            data.standard_name = variable
        data[:] = np.where(np.isnan(fields), 9.96921e36, fields / scale)[..., ::-1, :]
    return path
