"""The options of `nowcast convert`, and its help text."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nowcast.commands.arguments import OUTPUT, Quiet, Verbose


class InputFormat(StrEnum):
    """Formats of original files, as FORMATS in convert/sniffing.py; auto: detected from the content of each file."""

    auto = "auto"
    odim = "odim"
    knmi = "knmi"
    radolan = "radolan"
    nimrod = "nimrod"
    mrms = "mrms"
    mch_gif = "mch-gif"
    fmi_pgm = "fmi-pgm"
    bom = "bom"
    meteonet = "meteonet"
    image = "image"
    geotiff = "geotiff"
    zarr = "zarr"
    netcdf = "netcdf"


class Period(StrEnum):
    """The period that one record covers."""

    day = "day"
    month = "month"
    file = "file"


Originals = Annotated[list[str], typer.Argument(metavar="FILE", help="Radar files, folders of them, or globs.")]
Archive = Annotated[Path, typer.Option(*OUTPUT, metavar="FOLDER", help="Folder for the records.")]
Formats = Annotated[InputFormat, typer.Option(help="Format of the files; auto: detected from the content of each.")]
Per = Annotated[Period, typer.Option(help="Content of a record: a day, a month or one file.")]
Box = Annotated[str | None, typer.Option(metavar="W,S,E,N", help="Part of the grid to keep, degrees: west,south,east,north.")]
Every = Annotated[float | None, typer.Option(metavar="MINUTES", help="Keep only the frames nearest to multiples of this.")]
Quantity = Annotated[
    str | None, typer.Option("--variable", metavar="NAME", help="Quantity or variable to take, if a file has several.")
]
Units = Annotated[
    str | None, typer.Option(metavar="UNITS", help="Units of files that state none, such as mm/h or 0.01 mm/5min.")
]
Colours = Annotated[Path | None, typer.Option(metavar="TOML", help="Colour table of PNG or GIF images.")]
Processes = Annotated[int | None, typer.Option(metavar="N", help="Processes that convert; default: one for each core.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make all records anew, also those of unchanged files.")]
Watch = Annotated[bool, typer.Option("--watch", help="Keep running; convert each file that comes.")]


def convert(
    files: Originals, output: Archive, format: Formats = InputFormat.auto, per: Per = Period.day, box: Box = None,
    every: Every = None, variable: Quantity = None, units: Units = None, colours: Colours = None, processes: Processes = None,
    watch: Watch = False, overwrite: Overwrite = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Make records (NetCDF) from the files of weather services.

    Reads ODIM HDF5, RADOLAN, GRIB, GeoTIFF, images and others; the format is detected from the content. Existing records are
    kept; files that cannot be read are named and left out.
    """
