"""Name the series of a watched folder: uniquely, and the same after a restart."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nowcast.errors import DataError, UsageError
from nowcast.netcdf.forecast_reader import Forecasts, read_forecast
from nowcast.netcdf.places.comparison import difference
from nowcast.netcdf.record import Record
from nowcast.prediction.pipeline import file_name, reference_of


@dataclass(frozen=True)
class Named:
    """A series to name: its record, and the series keys (see FileSummary) and subfolders of its files."""

    record: Record
    keys: tuple[tuple, ...]
    subfolders: frozenset[str]


class SeriesNames:
    """The endings of the names of series: "" for the first, whose forecast files are named by their time only.

    An ending that is used by forecasts on another grid is not reused, so that a name never stands for two radars.
    """

    def __init__(self, folder: Path, output: Path):
        self.folder, self.output = folder, output
        self._endings: dict[tuple, str] = {}  # by series key

    def name(self, series: Sequence[Named], *, keep: bool = True) -> list[str]:
        """Return a name for each series: the folder, and an ending that stays with the series.

        The ending is that of existing forecasts on its grid; else none if it is the only series; else its subfolder if no other
        series has it; else its size and a digest of its key. keep: False for series that may be only a stray frame
        """
        endings = dict(self._endings)
        known = [next((endings[key] for key in each.keys if key in endings), None) for each in series]
        made = self._newest_made() if None in known else {}
        for position, each in enumerate(series):
            if known[position] is None:
                known[position] = next((ending for ending in made if ending not in known and _is_of(made[ending], each)), None)
        for position, each in enumerate(series):
            if known[position] is None:
                used = {*endings.values(), *made, *known}
                known[position] = next(ending for ending in self._new(each, series) if ending not in used)
            endings |= dict.fromkeys(each.keys, known[position])
        self._endings = endings if keep else self._endings
        folder = self.folder.resolve().name
        return [f"{folder}-{ending}" if ending else folder for ending in known]

    def prefix(self, record: Record) -> str:
        """Return the prefix of the names of the forecast files of a named record, before their time."""
        return "" if record.name == self.folder.resolve().name else f"{record.name}_"

    def _new(self, each: Named, series: Sequence[Named]) -> list[str]:
        """Return possible endings for a series, in order of preference; the last is unique."""
        plain = [""] if len(series) == 1 and not self._endings else []
        shared = [folder for other in series for folder in other.subfolders]
        own = [folder for folder in each.subfolders if folder and len(each.subfolders) == 1 and shared.count(folder) == 1]
        rows, columns = each.record.grid.shape
        text = min(map(repr, each.keys))
        digests = [hashlib.sha256(text.encode()).hexdigest()[:length] for length in (6, 64)]
        return [*plain, *own, *(f"{rows}x{columns}-{digest}" for digest in digests)]

    def _newest_made(self) -> dict[str, Forecasts | None]:
        """Return the endings of existing forecast files, each with its newest forecast (None if unreadable)."""
        begin = f"{self.folder.resolve().name}-"
        by_age = sorted(forecasts_in(self.output).items(), key=lambda each: max(each[1]), reverse=True)  # the one in use first
        of_folder = [(prefix, max(times)) for prefix, times in by_age if not prefix or prefix.startswith(begin)]
        return {prefix[len(begin) : -1]: _read(self.output / f"{prefix}{file_name(time)}") for prefix, time in of_folder}


def forecasts_in(output: Path) -> dict[str, list[np.datetime64]]:
    """Return the times of the forecast files in a folder, datetime64[s], by the prefix of their names."""
    times = defaultdict(list)
    for entry in os.scandir(output) if output.is_dir() else ():
        begin, mark, rest = entry.name.rpartition("_")
        if (time := reference_of(rest)) is not None:
            times[begin + mark].append(time)
    return times


def _read(path: Path) -> Forecasts | None:
    try:
        return read_forecast(path)
    except (DataError, UsageError):
        return None


def _is_of(made: Forecasts | None, each: Named) -> bool:
    return made is not None and made.quantity == each.record.quantity and difference(made.grid, each.record.grid) is None
