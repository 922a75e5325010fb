"""Find undeclared numbers that stand for no rain, or for missing, in a sample of frames.

Some programs store no rain as a number of its own, such as -99, beside another one for missing. Read as missing, it leaves
a record in which every known cell is wet.
"""

from dataclasses import replace

import numpy as np

from nowcast.netcdf.rain.packing import HIGHEST, Packing, decode
from nowcast.netcdf.rain.units import Conversion

_DRY_RATE = 0.1  # mm/h, below which a known cell counts as dry
_FEW = 0.001  # share of dry cells among the known ones, below which none is taken to be dry
_HALF = 0.5  # the same for reflectivity, which is also measured where it does not rain
_MOST_MARKS = 3  # different negative numbers that can stand for something; more are noise
_FEWEST_KNOWN, _LEAST_MISSING = 500, 0.05  # cells, and share of all cells, for a remark
_LARGEST = 6  # of the largest numbers of an integer type that may stand for something
DOUBT = "Are its units right?"
INCREDIBLE, _MUCH = 200.0, 0.01  # mm/h, and the share of the known cells with as much or more, above which units are doubted
_LOOKED_AT = 64  # cells of a frame, of which one that is dry shows that it is no outage
_RARE, _FEWEST = 5, 20  # times as many cells as with the ten numbers below it, and number of cells


def refine(stored: np.ndarray, packing: Packing, conversion: Conversion) -> tuple[Packing, str | None]:
    """Return the packing with undeclared numbers for no rain and for missing added, and a remark for a warning, or None.

    stored: (frame, y, x) numbers as they are stored
    """
    packing, *remarks = _without_largest(stored, packing, conversion)
    packing, dry = _with_dry(stored, packing, conversion)
    found = *remarks, dry, _negative(stored, packing, conversion), _doubt(stored, packing, conversion)
    return packing, "; ".join(remark for remark in found if remark) or None


def outages(stored: np.ndarray, rates: np.ndarray, *, unsigned: bool = False) -> np.ndarray:
    """Return which frames (frame,) hold one number alone that cannot be rain: of a sensor or a program that was down.

    It is the largest of its type of 8 or 16 bits, or more rain than is credible, in all known cells.

    stored: (frame, y, x) numbers as they are stored
    rates: (frame, y, x) what they are read as, mm/h, NaN missing
    unsigned: whether signed integers stand for unsigned ones
    """
    stored = stored.view(stored.dtype.str.replace("i", "u")) if unsigned else stored
    found, kind = np.zeros(len(rates), bool), stored.dtype
    most = np.iinfo(kind).max if kind.kind in "iu" and kind.itemsize <= 2 else None
    for number, (numbers, frame) in enumerate(zip(stored, rates, strict=True)):
        if not _is_one(frame.ravel()[:: max(frame.size // _LOOKED_AT, 1)]):
            continue  # most frames, told by a look
        known = ~np.isnan(frame)
        if known.sum() >= _FEWEST and _is_one(frame[known]):
            found[number] = frame[known][0] >= INCREDIBLE or (most is not None and (numbers[known] == most).all())
    return found


def _is_one(rates: np.ndarray) -> bool:
    """Return whether all rates (cell,) that are known are the same, and rain."""
    known = rates[~np.isnan(rates)]
    return not known.size or bool(known[0] > 0 and (known == known[0]).all())


def is_doubtful(rates: np.ndarray) -> bool:
    """Return whether frames (…, y, x) have so many cells with so much rain, mm/h, that something else must be meant."""
    if not (high := int((rates >= INCREDIBLE).sum())):
        return False
    num_known = int((~np.isnan(rates)).sum())
    return num_known >= _FEWEST_KNOWN and high > _MUCH * num_known


def _with_dry(stored: np.ndarray, packing: Packing, conversion: Conversion) -> tuple[Packing, str | None]:
    """Add the number for no rain if no known cell is dry and it can be told from missing; else remark on it."""
    rates = decode(stored, packing, conversion)
    known = np.isfinite(rates)
    missing = ~known
    share = (rates[known] < _DRY_RATE).mean() if known.any() else 0.0
    if packing.dry or not missing.any() or share > (_HALF if conversion.zr else _FEW):
        return packing, None
    marks = _marks(stored[missing], packing, conversion)
    with_others = len(marks) > 1 or not np.isin(stored[missing], marks).all()
    if 0 < len(marks) <= _MOST_MARKS and with_others:
        dry = max(marks)
        return replace(packing, dry=(dry,)), f"{dry:g} is taken as no rain, and what else is missing as missing"
    if known.sum() < _FEWEST_KNOWN or missing.mean() < _LEAST_MISSING or share > _FEW:
        return packing, None
    if len(marks) == 1:
        return packing, (
            f"no known cell is dry, and {marks[0]:g} is taken as missing. "
            f"If it stands for no rain, say so in the files: an attribute _Undetect = {marks[0]:g}"
        )
    return packing, "no known cell is dry: if dry cells are stored as missing, scores and training see rain alone"


def _negative(stored: np.ndarray, packing: Packing, conversion: Conversion) -> str | None:
    """Return a remark where many different numbers are below 0, which rain does not have and no program means by missing."""
    if conversion.zr or not conversion.quantity.is_rain:
        return None
    missing = np.isnan(decode(stored, packing, conversion))
    values = stored[missing].view(stored.dtype.str.replace("i", "u") if packing.unsigned else stored.dtype)
    values = values[np.isfinite(values) & ~np.isin(values, packing.missing)]
    rates = conversion.unpacking(packing.scale_factor, packing.add_offset)(values)
    below = rates[(rates < packing.least) & (rates > -HIGHEST)]
    if below.size <= _MUCH * stored.size or len(np.unique(below)) <= _MOST_MARKS:
        return None
    share = below.size / stored.size
    return f"{share:.0%} of the cells are below 0, down to {below.min():g} mm/h, and taken as missing. Is it rain?"


def _doubt(stored: np.ndarray, packing: Packing, conversion: Conversion) -> str | None:
    """Return a remark where so many cells have so much rain that the units must be others."""
    rates = decode(stored, packing, conversion)
    if not is_doubtful(rates):
        return None
    share = (rates[~np.isnan(rates)] >= INCREDIBLE).mean()
    return f"{share:.0%} of the known cells would have {INCREDIBLE:g} mm/h or more. {DOUBT}"


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


def _without_largest(stored: np.ndarray, packing: Packing, conversion: Conversion) -> tuple[Packing, str | None]:
    """Take the largest numbers of 8 or 16 bits as missing where nothing declares them and they cannot be rain.

    They are far more frequent than the ten numbers below, and more rain than is credible; 255, where the bytes declare nothing,
    if it is one of both.
    """
    kind = np.dtype(stored.dtype.str.replace("i", "u")) if packing.unsigned else stored.dtype
    if kind.kind == "f" and not conversion.zr:
        return _without_repeated(stored, packing, conversion)
    if kind.kind not in "iu" or kind.itemsize > 2 or packing.high < np.inf:
        return packing, None
    numbers, most = stored.view(kind), int(np.iinfo(kind).max)
    is_bare_byte = kind == np.uint8 and not packing.missing and not packing.dry
    found, remarks = [], []
    for number in range(most, most - _LARGEST, -1):
        count, rate = int((numbers == number).sum()), _rate(number, kind, stored.dtype, packing, conversion)
        if number in packing.missing + packing.dry or np.isnan(rate):
            continue
        others = sum(int((numbers == other).sum()) for other in range(number - 10, number) if other not in packing.missing)
        is_frequent, is_incredible = count > max(_RARE * others, _FEW * numbers.size), rate >= INCREDIBLE
        if (is_frequent and is_incredible and count >= _FEWEST) or (
            is_bare_byte and number == most and (is_frequent or is_incredible)
        ):
            found.append(number)
            remarks += [f"{number}, which would be {_said(rate)}"] if count else []
    if not found:
        return packing, None
    are = "are" if len(remarks) > 1 else "is"
    return replace(packing, missing=(*packing.missing, *found)), (
        f"{' and '.join(remarks)}, {are} taken as missing" if remarks else None
    )


def _without_repeated(stored: np.ndarray, packing: Packing, conversion: Conversion) -> tuple[Packing, str | None]:
    """Take the largest number of floating-point fields as missing if it is whole, frequent and more rain than is credible."""
    rates = decode(stored, packing, conversion)
    highest = rates[np.isfinite(rates)].max(initial=0)
    number = float(stored[rates == highest][0]) if highest >= INCREDIBLE else np.nan
    count, others = (stored == number).sum(), ((rates > 0.8 * highest) & (rates < highest)).sum()
    if not (number.is_integer() and count >= _FEWEST and count > max(_RARE * others, _FEW * stored.size)):
        return packing, None
    return replace(
        packing, missing=(*packing.missing, number)
    ), f"{number:g}, which would be {_said(highest)}, is taken as missing"


def _rate(number: int, kind: np.dtype, own: np.dtype, packing: Packing, conversion: Conversion) -> float:
    """Return what a number would be, mm/h; infinity above what is credible."""
    return float(decode(np.full(1, number, kind).view(own), packing, conversion)[0])


def _said(rate: float) -> str:
    return f"{rate:.4g} mm/h" if np.isfinite(rate) else f"more than {HIGHEST:.0f} mm/h"
