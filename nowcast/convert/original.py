"""Descriptions of original files, as readers return them: fields with their times, their series, and their encoding."""

import contextlib
import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

import numpy as np

from nowcast.convert.place import Place
from nowcast.errors import DataError, UsageError
from nowcast.netcdf.writing.records import Storage

MOST_CELLS = 1 << 26  # of a field; larger sizes are damage, no radar has them
FLOAT_FILL = float(np.float32(9.969209968386869e36))  # default fill value of NetCDF
DRY_DBZ = -99.0  # stored for no echo if reflectivity is stored as floating-point numbers
_WIDER = {"u1": "i2", "i1": "i2", "u2": "i4", "i2": "i4", "u4": "i8", "i4": "i8"}


@dataclass(frozen=True)
class Options:
    """Information from the user that the files do not contain."""

    variable: str | None = None
    units: str | None = None
    colours: str | None = None  # content of the TOML file


@dataclass(frozen=True)
class Series:
    """Properties that all fields of a series share.

    product: short name for messages and file names; interval: accumulation interval, minutes; None for instantaneous values
    """

    product: str
    place: Place
    storage: Storage
    interval: float | None = None
    about: tuple[tuple[str, str], ...] = ()  # global attributes: title, institution, source

    @property
    def key(self) -> tuple:
        """A key that is equal for fields of one record. Intervals are rounded to minutes, since clocks are inexact."""
        return (self.product, self.place, self.storage.reflectivity, self.minutes)

    @property
    def minutes(self) -> float | None:
        """The accumulation interval, rounded to minutes if it is at least one; None for instantaneous values."""
        return self.interval if self.interval is None or self.interval < 1 else float(round(self.interval))


@dataclass(frozen=True)
class Original:
    """A field of an original file: its valid time (UTC), and its index in the file.

    forecast: lead time, minutes; None for observations and analyses
    bounds: start and end of the interval of a sum, if the file states them; else it ends at the valid time
    variant: what else the file states of it, such as its level; fields of one time that differ in it are no copies
    """

    time: np.datetime64
    number: int
    series: Series
    forecast: float | None = None
    bounds: tuple[np.datetime64, np.datetime64] | None = None
    variant: tuple[str, ...] = ()

    @property
    def span(self) -> tuple[np.datetime64, np.datetime64] | None:
        """Start and end of the accumulation interval; None for instantaneous values."""
        if self.bounds is not None or self.series.interval is None:
            return self.bounds
        return self.time - np.timedelta64(round(self.series.interval * 60), "s"), self.time


@dataclass(frozen=True)
class Encoding:
    """The encoding of an original file: value = raw value * scale + offset, in mm/h or, with `reflectivity`, dBZ.

    kind: type of the raw values; missing: codes for missing values; dry: code for no echo, if there is one
    """

    kind: np.dtype
    scale: float = 1.0
    offset: float = 0.0
    missing: tuple[float, ...] = ()
    dry: float | None = None
    reflectivity: bool = False

    @cached_property
    def storage(self) -> Storage:
        """The storage in a record: integers unchanged, other values as float32."""
        if self._is_float:
            dry = DRY_DBZ if self.reflectivity and self.dry is not None else None
            return Storage("f4", fill=FLOAT_FILL, dry=dry, reflectivity=self.reflectivity)
        kind, fill = self._kind_and_fill()
        dry = self.dry if self.reflectivity else None
        return Storage(kind, self.scale, self.offset, fill, dry, self.reflectivity)

    @property
    def _is_float(self) -> bool:
        """Whether decoded values are stored, also of integers that have a code for no echo but cannot encode 0 mm/h."""
        if self.kind.kind == "f" or self.kind.itemsize > 4:
            return True
        return self.dry is not None and not self.reflectivity and self._zero is None

    @property
    def _zero(self) -> int | None:
        """The raw value that means 0 mm/h, if the type can hold it and it is not a code for missing."""
        number = -self.offset / self.scale
        limits = np.iinfo(self.kind)
        is_held = abs(number - round(number)) < 1e-6 and limits.min <= round(number) <= limits.max
        return round(number) if is_held and round(number) not in self.missing else None

    def _kind_and_fill(self) -> tuple[str, int]:
        limits = np.iinfo(self.kind)
        kind = self.kind.str[1:]
        for number in self.missing:
            if float(number).is_integer() and limits.min <= number <= limits.max:
                return kind, int(number)
        wider = _WIDER[kind]
        return wider, np.iinfo(wider).min

    def store(self, raw: np.ndarray) -> np.ndarray:
        """Convert raw values (y, x) of an original file to the values stored in a record (y, x)."""
        storage = self.storage
        raw = raw.astype(np.float32) if raw.dtype == np.float16 else raw  # float16 cannot hold all codes
        with np.errstate(invalid="ignore", over="ignore"):
            if not self._is_float:
                out = raw.astype(storage.kind)
            elif (self.scale, self.offset) == (1.0, 0.0):
                out = raw.astype(np.float32)
            else:
                out = (raw * np.float64(self.scale) + self.offset).astype(np.float32)
        if self.dry is not None:
            out[raw == self.dry] = storage.dry if self.reflectivity else 0.0 if self._is_float else self._zero
        for number in self.missing:
            out[raw == number] = storage.fill
        if storage.kind == "f4":
            out[~np.isfinite(out)] = storage.fill
        return out


def per_hour(interval_minutes: float, where: str) -> float:
    """Return the factor from an amount (mm) to its mean rate (mm/h). Raises DataError (exit 3) for an invalid interval."""
    if not interval_minutes > 0 or not np.isfinite(interval_minutes):
        raise DataError(f"{where} has sums over {interval_minutes:g} minutes.\nExpected an interval above 0.")
    return 60.0 / interval_minutes


def check_size(rows: int, columns: int, path: Path) -> None:
    """Raise DataError (exit 3) for empty or impossibly large fields, before memory is allocated for them."""
    if not (rows > 0 and columns > 0 and rows * columns <= MOST_CELLS):
        raise DataError(f"{path} declares fields of {rows:,} × {columns:,} cells.\nExpected at most {MOST_CELLS:,} cells.")


@dataclass(frozen=True)
class Library:
    """A package that some formats need; the extra `convert` installs it."""

    package: str
    import_first: tuple[str, ...] = ()  # packages to import first, if they are installed

    def load(self, what: str) -> ModuleType:
        """Import the package. Raises UsageError (exit 2) if it is not installed; `what`: the format, for the message."""
        for name in self.import_first:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        try:
            return importlib.import_module(self.package)
        except ImportError:
            raise UsageError(
                f"{self.package}, which reads {what}, is not installed.\n"
                f"Install it: pip install {self.package}  (or all packages for convert: pip install -e '.[convert]')"
            ) from None


H5PY = Library("h5py")
# packages imported after ecCodes use its PROJ library and crash: eccodeslib 2.50 with pyproj 3.7
ECCODES = Library("eccodes", import_first=("pyproj", "rasterio"))
RASTERIO = Library("rasterio")
ZARR = Library("zarr")
