"""Precipitation in GRIB, edition 1 or 2, read by ecCodes: parameter, time and grid of messages."""
