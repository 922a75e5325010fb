"""Find undeclared numbers that stand for no rain, or for missing, in a sample of frames.

Some programs store no rain as a number of its own, such as -99, beside another one for missing. Read as missing, it leaves
a record in which every known cell is wet.
"""

from dataclasses import replace

import numpy as np

from nowcast.netcdf.rain.packing import Packing, decode
from nowcast.netcdf.rain.units import Conversion

_DRY_RATE = 0.1  # mm/h, below which a known cell counts as dry
_FEW = 0.001  # share of dry cells among the known ones, below which none is taken to be dry
_HALF = 0.5  # the same for reflectivity, which is also measured where it does not rain
_MOST_MARKS = 3  # different negative numbers that can stand for something; more are noise
_FEWEST_KNOWN, _LEAST_MISSING = 500, 0.05  # cells, and share of all cells, for a remark
_LARGEST_BYTE = 255
_INCREDIBLE = 200.0  # mm/h
_RARE = 5  # times as many cells as with the ten numbers below it


def refine(stored: np.ndarray, packing: Packing, conversion: Conversion) -> tuple[Packing, str | None]:
    """Return the packing with undeclared numbers for no rain and for missing added, and a remark for a warning, or None.

    stored: (frame, y, x) numbers as they are stored
    """
    packing, remark = _without_largest_byte(stored, packing, conversion)
    rates = decode(stored, packing, conversion)
    missing, known = np.isnan(rates), np.isfinite(rates)
    share = (rates[known] < _DRY_RATE).mean() if known.any() else 0.0
    if packing.dry or not missing.any() or share > (_HALF if conversion.zr else _FEW):
        return packing, remark
    marks = _marks(stored[missing], packing, conversion)
    with_others = len(marks) > 1 or not np.isin(stored[missing], marks).all()
    if 0 < len(marks) <= _MOST_MARKS and with_others:
        dry = max(marks)
        return replace(packing, dry=(dry,)), f"{dry:g} is taken as no rain, and what else is missing as missing"
    if known.sum() < _FEWEST_KNOWN or missing.mean() < _LEAST_MISSING or share > _FEW:
        return packing, remark
    if len(marks) == 1:
        return packing, (
            f"no known cell is dry, and {marks[0]:g} is taken as missing. "
            f"If it stands for no rain, say so in the files: an attribute _Undetect = {marks[0]:g}"
        )
    return packing, "no known cell is dry: if dry cells are stored as missing, scores and training see rain alone"


def _marks(missing: np.ndarray, packing: Packing, conversion: Conversion) -> list[float]:
    """Return the numbers that nothing declares as missing and that no rain has: negative, or 0 out of the declared range.

    missing: (cell,) stored numbers that are read as missing
    """
    values = np.unique(missing[np.isfinite(missing)])
    values = values[~np.isin(values, packing.missing)]
    if len(values) > _MOST_MARKS + 1:
        return []
    bare = replace(packing, missing=(), low=-np.inf, high=np.inf)
    rates = decode(values, bare, conversion)
    unpacked = values * np.float64(packing.scale_factor) + packing.add_offset
    return [float(value) for value, rate, number in zip(values, rates, unpacked, strict=True)
            if (np.isnan(rate) and number < 0) or (number == 0 and not conversion.zr)]  # fmt: skip


def _without_largest_byte(stored: np.ndarray, packing: Packing, conversion: Conversion) -> tuple[Packing, str | None]:
    """Take 255 in unsigned bytes as missing if nothing is declared and it is far more frequent, or more rain, than credible."""
    is_byte = stored.dtype.itemsize == 1 and (stored.dtype.kind == "u" or packing.unsigned)
    if not is_byte or packing.missing or packing.dry or packing.high < np.inf:
        return packing, None
    numbers = stored.view("u1")
    largest = decode(np.full(1, _LARGEST_BYTE, "u1").view(stored.dtype), packing, conversion)[0]
    count = (numbers == _LARGEST_BYTE).sum()
    others = (numbers >= _LARGEST_BYTE - 10).sum() - count
    if not (count > max(_RARE * others, _FEW * numbers.size) or largest >= _INCREDIBLE):
        return packing, None
    remark = f"255, which would be {largest:.4g} mm/h, is taken as missing" if count else None
    return replace(packing, missing=(_LARGEST_BYTE,)), remark
