"""What readers tell of original files: fields with their times, series, and numbers."""

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

MOST_CELLS = 1 << 26  # of a field: more are an error of the file, not a radar's
FLOAT_FILL = float(np.float32(9.969209968386869e36))  # NetCDF's own
DRY_DBZ = -99.0  # stored for no echo, where reflectivities are floating-point numbers
_WIDER = {"u1": "i2", "i1": "i2", "u2": "i4", "i2": "i4", "u4": "i8", "i4": "i8"}


@dataclass(frozen=True)
class Options:
    """What the user says of files that do not say it themselves."""

    variable: str | None = None
    units: str | None = None
    colours: str | None = None  # text of the TOML


@dataclass(frozen=True)
class Series:
    """What the fields of a series have in common.

    product: a short name for messages and file names; interval: minutes that amounts were summed over; None for instants
    """

    product: str
    place: Place
    storage: Storage
    interval: float | None = None
    about: tuple[tuple[str, str], ...] = ()  # global attributes: title, institution, source

    @property
    def key(self) -> tuple:
        """Equal for fields that can lie in one record. Intervals may differ by less than half a minute, as clocks do."""
        return (self.product, self.place, self.storage.reflectivity, self.minutes)

    @property
    def minutes(self) -> float | None:
        """The interval in whole minutes, if it has any."""
        return self.interval if self.interval is None or self.interval < 1 else float(round(self.interval))


@dataclass(frozen=True)
class Original:
    """A field of an original file: its valid time (UTC), and its number in the file.

    forecast: minutes that it is ahead of the time it was made at; None of observations and analyses
    bounds: start and end of the interval of a sum, where a file tells them; else it ends at the valid time
    """

    time: np.datetime64
    number: int
    series: Series
    forecast: float | None = None
    bounds: tuple[np.datetime64, np.datetime64] | None = None

    @property
    def span(self) -> tuple[np.datetime64, np.datetime64] | None:
        """The start and the end of the interval of a sum; None of an instant."""
        if self.bounds is not None or self.series.interval is None:
            return self.bounds
        return self.time - np.timedelta64(round(self.series.interval * 60), "s"), self.time


@dataclass(frozen=True)
class Numbers:
    """The numbers of an original: value = number * scale + offset, in mm/h or, with `reflectivity`, dBZ.

    missing: the numbers that are missing; dry: the number for no echo, if there is one
    """

    kind: np.dtype
    scale: float = 1.0
    offset: float = 0.0
    missing: tuple[float, ...] = ()
    dry: float | None = None
    reflectivity: bool = False

    @cached_property
    def storage(self) -> Storage:
        """How the numbers are stored in a record: as they are where they are integers, else as float32."""
        if self._is_float:
            dry = DRY_DBZ if self.reflectivity and self.dry is not None else None
            return Storage("f4", fill=FLOAT_FILL, dry=dry, reflectivity=self.reflectivity)
        kind, fill = self._kind_and_fill()
        dry = self.dry if self.reflectivity else None
        return Storage(kind, self.scale, self.offset, fill, dry, self.reflectivity)

    @property
    def _is_float(self) -> bool:
        """Whether values are stored: also of integers that have no number for 0 mm/h where one for no echo is needed."""
        if self.kind.kind == "f" or self.kind.itemsize > 4:
            return True
        return self.dry is not None and not self.reflectivity and self._zero is None

    @property
    def _zero(self) -> int | None:
        """The number that means 0 mm/h, if the type can hold one that is not missing."""
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
        """Return the numbers (y, x) of an original as they are stored in a record: (y, x)."""
        storage = self.storage
        raw = raw.astype(np.float32) if raw.dtype == np.float16 else raw  # which cannot hold the numbers to compare with
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
    """Return the factor from an amount (mm) to its mean rate (mm/h). Raises DataError (exit 3) for no interval."""
    if not interval_minutes > 0 or not np.isfinite(interval_minutes):
        raise DataError(f"{where} has sums over {interval_minutes:g} minutes.\nExpected an interval above 0.")
    return 60.0 / interval_minutes


def check_size(rows: int, columns: int, path: Path) -> None:
    """Raise DataError (exit 3) for fields without cells or of absurd size, before memory is allocated for them."""
    if not (rows > 0 and columns > 0 and rows * columns <= MOST_CELLS):
        raise DataError(f"{path} declares fields of {rows:,} × {columns:,} cells.\nExpected at most {MOST_CELLS:,} cells.")


@dataclass(frozen=True)
class Library:
    """A package that some formats need, which the extra `convert` installs."""

    package: str
    after: tuple[str, ...] = ()  # packages to load before it, if they are there

    def load(self, what: str) -> ModuleType:
        """Import it. Raises UsageError (exit 2) if it is not installed; `what` says what it reads."""
        for name in self.after:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        try:
            return importlib.import_module(self.package)
        except ImportError:
            raise UsageError(
                f"{self.package} is not installed, which reads {what}.\n"
                f"Install it: pip install {self.package}  (or all that convert uses: pip install -e '.[convert]')"
            ) from None


H5PY = Library("h5py")
# ecCodes shows its own PROJ to all that is loaded later, which then crashes: eccodeslib 2.50 with pyproj 3.7
ECCODES = Library("eccodes", after=("pyproj", "rasterio"))
RASTERIO = Library("rasterio")
ZARR = Library("zarr")
