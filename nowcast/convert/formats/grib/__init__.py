"""Precipitation in GRIB, edition 1 or 2, read by ecCodes: messages, what they are of, when and where."""
