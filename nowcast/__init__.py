"""nowcast: radar archive in NetCDF -> trained, verified precipitation nowcaster -> forecasts in CF NetCDF.

Nothing heavy is imported here: `nowcast --help` must answer at once.
"""

__version__ = "0.1.0"
