"""Readers of original files, one module for each format.

A reader has two functions. `scan(path, options)` returns an `Original` for each field that a file holds: its time, and what
is the same in a series of files; as far as the format allows it reads no field. `read(path, numbers, options)` yields the
fields with these numbers, in this order, as the numbers that are stored in a record.
"""
