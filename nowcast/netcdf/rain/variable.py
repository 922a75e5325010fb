"""Find the rain variable of an open CF dataset, and read it as mm/h with NaN for missing.

A `Field` describes a variable that is the same in every file of an archive: name, dimensions, units and packing. It holds no
open file and no values; `read` takes the dataset and returns fields with row 0 northernmost.
"""

import logging
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import OWN_RAIN, attributes, is_numeric, made_by_nowcast, text
from nowcast.netcdf.places.axes import angle, horizontal, is_list, is_polar
from nowcast.netcdf.places.degrees import rows_and_columns
from nowcast.netcdf.rain import units
from nowcast.netcdf.rain.candidates import declared_units, rank
from nowcast.netcdf.rain.dryness import DOUBT, INCREDIBLE, is_doubtful, outages
from nowcast.netcdf.rain.packing import HIGHEST, Packing, decode, read_packing, unused_scale
from nowcast.quantity import DIMENSIONLESS, RAIN_RATE, Quantity
from nowcast.runtime.log_lines import is_first, named_file

log = logging.getLogger(__name__)

_MOST_CELLS = 1 << 30  # cells of a frame, which take 4 GB as float32
_LARGEST_CHUNK = 1 << 29  # bytes of a decompressed chunk


@dataclass(frozen=True)
class Field:
    """A rain variable of a file.

    `frame_dims` are its dimensions other than y and x that are longer than 1, in the order of the file.
    `decibel`: the values are ten times the decimal logarithm of the quantity, as in pysteps' transform "dB".
    `stated_zr`: a and b of Z = a R^b, if the file states them.
    `has_given_units`: the units were given by the user, because the file states none.
    """

    variable: str
    frame_dims: tuple[str, ...]
    y_dim: str
    x_dim: str
    units: str | None
    standard_name: str | None
    packing: Packing = field(default_factory=Packing)
    decibel: bool = False
    stated_zr: tuple[float, float] | None = None
    has_given_units: bool = False

    def conversion(self, *, interval_seconds=None, zr_a=200.0, zr_b=1.6, where: str = "") -> units.Conversion:
        """Return the conversion of the declared units to mm/h; `where` names the file in messages. Raises as `to_rain_rate`."""
        return units.to_rain_rate(
            self.units,
            standard_name=self.standard_name,
            interval_seconds=interval_seconds,
            zr_a=zr_a,
            zr_b=zr_b,
            decibel=self.decibel,
            variable=f"{where}: {self.variable}",
        )

    @property
    def kind(self) -> str | None:
        """The kind of the units: rate, amount, reflectivity or dimensionless; None for all others."""
        if not self.units:
            return "reflectivity" if self.standard_name in units.REFLECTIVITY_NAMES else None
        meaning = units.meaning(self.units)
        return meaning.kind if meaning else None

    @property
    def quantity(self) -> Quantity:
        return DIMENSIONLESS if self.kind == "dimensionless" else RAIN_RATE

    def with_units(self, given: str | None, file: Path) -> "Field":
        """Return the field with the units `given` by the user, if the file states no units of rain.

        Units of rain in the file take precedence; if they differ, a warning is logged.
        """
        if given is None:
            return self
        if self.kind in (None, "dimensionless"):
            return replace(self, units=given, has_given_units=True)
        stated = self.units or "dBZ"
        if units.meaning(stated) != units.meaning(given) and is_first(file, f"units of {self.variable}"):
            text = '%s: %s states units "%s", which are used; "%s" (--units, data.units) is for files that state none'
            log.warning(text, named_file(file), self.variable, stated, given)
        return self

    def read(self, dataset, frames: dict, conversion: units.Conversion, *, turned: tuple[bool, bool]) -> np.ndarray:
        """Read frames; rates above the highest credible one become NaN, with a warning.

        frames: index or slice of each frame dimension
        conversion: from the declared units to mm/h
        turned: whether to reverse the rows, for files with the southernmost first, and the columns, with the easternmost first
        returns: (…, y, x) float32 mm/h, NaN missing; first the frame dimensions that are slices
        """
        stored = self.stored(dataset, frames, turned=turned)
        out = np.ascontiguousarray(decode(stored, self.packing, conversion))
        if self.quantity.is_rain:
            self._remove_impossible(out, stored, Path(dataset.filepath()))
        return out

    def _remove_impossible(self, rates: np.ndarray, stored: np.ndarray, file: Path) -> None:
        """Set rates that cannot be rain to missing, in place, and warn once per folder.

        rates: (…, y, x) mm/h, infinite above the highest credible one
        stored: (…, y, x) numbers that they were read from
        """
        by_frame = [fields.reshape(-1, *fields.shape[-2:]) for fields in (stored, rates)]
        for number in np.flatnonzero(outages(*by_frame, unsigned=self.packing.unsigned)):
            frame = by_frame[1][number]
            if is_first(file, f"outages of {self.variable}"):
                said = f"{np.nanmax(frame):.4g} mm/h" if np.nanmax(frame) <= HIGHEST else f"more than {HIGHEST:.0f} mm/h"
                log.warning(
                    "%s: %s: a frame with %s in every known cell is taken as missing", named_file(file), self.variable, said
                )
            frame[:] = np.nan
        if not (rates >= INCREDIBLE).any():
            return
        too_high = rates == np.inf
        if too_high.any():
            _warn_once(file, self.variable)
            rates[too_high] = np.nan
        if any(map(is_doubtful, by_frame[1])) and is_first(file, DOUBT):
            log.warning(
                "%s: %s: more than 1 %% of a frame would have 200 mm/h or more. %s", named_file(file), self.variable, DOUBT
            )

    def stored(self, dataset, frames: dict, *, turned: tuple[bool, bool]) -> np.ndarray:
        """Read frames as they are stored: (…, y, x). Arguments as `read`."""
        variable = dataset.variables[self.variable]
        index = {self.y_dim: slice(None), self.x_dim: slice(None)} | frames
        stored = variable[tuple(index.get(name, 0) for name in variable.dimensions)]
        kept = [name for name in variable.dimensions if isinstance(index.get(name, 0), slice)]
        order = [name for name in self.frame_dims if name in kept] + [self.y_dim, self.x_dim]
        stored = np.transpose(stored, [kept.index(name) for name in order])
        rows, columns = (slice(None, None, -1 if turn else 1) for turn in turned)
        return stored[..., rows, columns]


def _warn_once(file: Path, variable: str) -> None:
    if is_first(file, f"high values of {variable}"):
        log.warning(
            "%s: values of %s above %g mm/h are taken as missing. Are its units right?", named_file(file), variable, HIGHEST
        )


def find_field(dataset, where: str, variable: str | None = None, *, has_units: bool = False) -> Field:
    """Find the rain variable of an open dataset, or the variable called `variable`.

    has_units: whether the user gives units for variables that state none; the only such variable with y and x is then taken

    Standard names take precedence over units; rates over amounts over reflectivity, if names mention rain. `where` names the
    file in messages. Raises DataError (exit 3) if there is no such variable, or several fit equally well.
    """
    if variable is not None:
        if variable not in dataset.variables:
            raise DataError(f'{where} has no variable "{variable}".\nIt has {_inventory(dataset)}.')
        return _describe(dataset, variable, where)
    if made_by_nowcast(dataset) and OWN_RAIN in dataset.variables:  # sums with fewer dimensions may lie beside it
        return _describe(dataset, OWN_RAIN, where)
    ranked = [(rank_, name) for name in dataset.variables if (rank_ := rank(dataset, name)) is not None]
    if not ranked and has_units and (only := _without_units(dataset)):
        return _describe(dataset, only, where)
    if not ranked and dataset.groups:
        groups, has = ", ".join(dataset.groups), "no rain outside of its" if dataset.variables else "nothing but"
        raise DataError(
            f"{where} has {has} groups ({groups}), which are not read.\n"
            f"Convert it first: nowcast convert {where} --output archive/"
        )
    if not ranked:
        raise DataError(
            f"{where} has no variable that can be identified as rain; it has {_inventory(dataset)}.\n"
            "Expected a CF standard name such as rainfall_rate; or choose one with --variable (data.variable), and its --units."
        )
    best = [name for rank_, name in ranked if rank_ == min(ranked)[0]]
    if len(best) > 1:
        raise DataError(f"{where} has several rain variables: {', '.join(best)}.\nChoose one with --variable (data.variable).")
    return _describe(dataset, best[0], where)


def _without_units(dataset) -> str | None:
    """Return the only variable with y and x that states no units and is not a coordinate; None if there is none, or several."""
    found = [
        name
        for name, variable in dataset.variables.items()
        if is_numeric(variable) and declared_units(variable) is None and not angle(name, attributes(variable))
        and variable.ndim > 1 and horizontal(dataset, variable)
    ]  # fmt: skip
    return found[0] if len(found) == 1 else None


def named(dataset, variable: str | None) -> str | None:
    """Return the first of the names in `variable`, separated by commas, that a dataset has; None if it has none of them."""
    names = [variable, *variable.split(",")] if variable else []
    return next((name for name in names if name in dataset.variables), None)


def _inventory(dataset) -> str:
    """List the variables of a dataset as `name(dimensions) [units]`, for a message."""
    listed = [
        f"{name}({', '.join(variable.dimensions)}) [{declared_units(variable) or 'no units'}]"
        for name, variable in dataset.variables.items()
        if name not in dataset.dimensions
    ]
    if dataset.groups:
        listed.append(f"the groups {', '.join(dataset.groups)}, which are not read")
    shown = listed[:12] + (["…"] if len(listed) > 12 else [])
    return ", ".join(shown) or "no variables"


def _describe(dataset, name: str, where: str) -> Field:
    """Return the Field of a variable. Raises DataError (exit 3) unless it is numeric and has y and x."""
    variable = dataset.variables[name]
    if not is_numeric(variable):
        raise DataError(f"{where}: {name} is not numeric.\nExpected a field of numbers over (time, y, x).")
    dims_yx = rows_and_columns(dataset, variable, where)
    if dims_yx is None:
        dims = ", ".join(variable.dimensions)
        raise DataError(f"{where}: {name} has dimensions ({dims}).\nExpected (time, y, x).")
    y_dim, x_dim = dims_yx
    if is_list(dataset, variable, dims_yx):
        raise DataError(
            f"{where}: {name} lies over {y_dim} and {x_dim}, a list of places.\n"
            "Expected rows and columns of a grid: records of links and gauges are interpolated first."
        )
    if is_polar(dims_yx):
        said = f"{where}: {name} lies over {y_dim} and {x_dim}, in polar coordinates"
        raise DataError(f"{said}.\nExpected rows and columns of a grid: interpolate it first, as wradlib and Py-ART do.")
    others = [
        dim for dim, size in zip(variable.dimensions, variable.shape, strict=True) if size != 1 and dim not in (y_dim, x_dim)
    ]
    _check_size(dataset, variable, y_dim, x_dim, where)
    if (scale := unused_scale(variable)) and is_first(Path(where), f"scale of {name}"):
        log.warning("%s: %s states %s, which is not used: CF's are scale_factor and add_offset", named_file(where), name, scale)
    return Field(
        variable=name,
        frame_dims=tuple(others),
        y_dim=y_dim,
        x_dim=x_dim,
        units=declared_units(variable),
        standard_name=text(variable, "standard_name"),
        decibel=_is_decibel(variable, f"{where}: {name}"),
        stated_zr=_stated_zr(variable),
        packing=read_packing(variable, f"{where}: {name}"),
    )


def _is_decibel(variable, where: str) -> bool:
    """Return whether pysteps' transform is "dB". Raises DataError (exit 3) for other transforms, whose values are not rates."""
    transform = text(variable, "transform") or "none"
    if transform.lower() not in ("db", "none", ""):
        raise DataError(f'{where} has transform = "{transform}".\nExpected "dB" or none: transform it back first.')
    return transform.lower() == "db"


def _stated_zr(variable) -> tuple[float, float] | None:
    """Return a and b of Z = a R^b if the file states them, as pysteps does."""
    stated = [np.ravel(getattr(variable, name, "")) for name in ("zr_a", "zr_b")]
    return (float(stated[0][0]), float(stated[1][0])) if all(v.size == 1 and v.dtype.kind in "iuf" for v in stated) else None


def _check_size(dataset, variable, y_dim: str, x_dim: str, where: str) -> None:
    """Raise DataError (exit 3) for frames or chunks of absurd size, before memory is allocated for them."""
    y, x = len(dataset.dimensions[y_dim]), len(dataset.dimensions[x_dim])
    if not y * x:
        raise DataError(f"{where}: {variable.name} has no cells: frames of {y} × {x}.\nExpected at least one row and column.")
    if y * x > _MOST_CELLS:
        raise DataError(
            f"{where}: {variable.name} declares frames of {y} × {x} cells.\nExpected at most {_MOST_CELLS:,} cells."
        )
    chunks = variable.chunking()
    num_bytes = math.prod(chunks) * variable.dtype.itemsize if isinstance(chunks, list) else 0
    if num_bytes > _LARGEST_CHUNK:
        shape, wanted = " × ".join(map(str, chunks)), _one_frame(variable, y_dim, x_dim)
        raise DataError(
            f"{where}: {variable.name} is stored in chunks of {num_bytes / 1e9:.1f} GB ({shape}), read whole for every frame.\n"
            f"Expected chunks of one frame: `nccopy -c {variable.name}:{wanted} IN.nc OUT.nc`."
        )


def _one_frame(variable, y_dim: str, x_dim: str) -> str:
    """Return chunk sizes of one frame, in the form of nccopy's -c."""
    sizes = zip(variable.dimensions, variable.shape, strict=True)
    return ",".join(str(size if dim in (y_dim, x_dim) else 1) for dim, size in sizes)
