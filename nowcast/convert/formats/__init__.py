"""Readers of original files, one module for each format.

A reader has two functions. `scan(path, options)` returns an `Original` for each field of a file: its time and its series, if
possible without reading the field. `read(path, numbers, options)` yields the fields with these indices, in this order, as the
values that are stored in a record.
"""
