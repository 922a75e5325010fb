"""Convert raw values by their units, stated by users or files: mm/h or dBZ = raw value * scale + offset."""

import re
from dataclasses import dataclass

from nowcast.convert.original import per_hour
from nowcast.errors import DataError
from nowcast.netcdf.rain.units import EXPECTED_UNITS, meaning

_DBZ = re.compile(r"\s*([-+\d.eE]+)?\s*dBZ[eh]?\s*([-+]\s*[\d.]+)\s*", re.IGNORECASE)  # 0.5 dBZ - 32


@dataclass(frozen=True)
class UnitConversion:
    """mm/h or, with `reflectivity`, dBZ = raw value * scale + offset; interval: accumulation interval, minutes."""

    scale: float
    offset: float = 0.0
    reflectivity: bool = False
    interval: float | None = None


def conversion_of(units: str | None, where: str, *, interval: float | None = None) -> UnitConversion:
    """Return the conversion from units; `interval`: accumulation interval of amounts, minutes.

    Raises DataError (exit 3) for absent units, units of another quantity, and amounts over an unknown interval.
    """
    if not units:
        raise DataError(f"{where} states no units.\nExpected --units with {EXPECTED_UNITS}.")
    if packed := _DBZ.fullmatch(units):
        try:
            return UnitConversion(float(packed[1] or 1), float(packed[2].replace(" ", "")), reflectivity=True)
        except ValueError:
            pass
    parsed = meaning(units)
    if parsed is None or parsed.kind == "dimensionless":
        raise DataError(f'{where} has units "{units}", which is no measure of rain.\nExpected {EXPECTED_UNITS}.')
    if parsed.kind != "amount":
        return UnitConversion(parsed.scale, parsed.offset, parsed.kind == "reflectivity")
    if interval is None:
        raise DataError(f'{where} has units "{units}" over an unknown interval.\nExpected --units such as "mm/5min".')
    return UnitConversion(parsed.scale * per_hour(interval, where), 0.0, interval=interval)
