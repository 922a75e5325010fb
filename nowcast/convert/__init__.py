"""From the files of weather services and radars to records: what `nowcast convert` does.

`sniffing` tells the format of a file by its content; each module of `formats` reads one; `archive` writes records.
"""
