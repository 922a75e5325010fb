"""What units that users or files state mean for stored numbers: mm/h or dBZ = number * scale + offset."""

import re
from dataclasses import dataclass

from nowcast.convert.original import per_hour
from nowcast.errors import DataError
from nowcast.netcdf.rain.units import EXPECTED_UNITS, meaning

_DBZ = re.compile(r"\s*([-+\d.eE]+)?\s*dBZ[eh]?\s*([-+]\s*[\d.]+)\s*", re.IGNORECASE)  # 0.5 dBZ - 32


@dataclass(frozen=True)
class Meant:
    """mm/h or, with `reflectivity`, dBZ = number * scale + offset; interval: minutes of a sum."""

    scale: float
    offset: float = 0.0
    reflectivity: bool = False
    interval: float | None = None


def meant(units: str | None, where: str, *, interval: float | None = None) -> Meant:
    """Return what units mean; `interval`: minutes that amounts were summed over.

    Raises DataError (exit 3) for units that are absent or no rain, and amounts over an unknown interval.
    """
    if not units:
        raise DataError(f"{where} states no units.\nExpected --units with {EXPECTED_UNITS}.")
    if packed := _DBZ.fullmatch(units):
        try:
            return Meant(float(packed[1] or 1), float(packed[2].replace(" ", "")), reflectivity=True)
        except ValueError:
            pass
    found = meaning(units)
    if found is None or found.kind == "dimensionless":
        raise DataError(f'{where} has units "{units}", which is no measure of rain.\nExpected {EXPECTED_UNITS}.')
    if found.kind != "amount":
        return Meant(found.scale, found.offset, found.kind == "reflectivity")
    if interval is None:
        raise DataError(f'{where} has units "{units}" over an unknown interval.\nExpected --units such as "mm/5min".')
    return Meant(found.scale * per_hour(interval, where), 0.0, interval=interval)
