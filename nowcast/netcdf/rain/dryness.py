"""Find undeclared codes for dry and for missing in a sample of frames.

Some programs store dry as a special number, such as -99, and missing as another. If that were read as missing, every known
cell of the record would be wet.
"""

import math
import re
from dataclasses import replace

import numpy as np

from nowcast.netcdf.rain.packing import HIGHEST, Packing, decode
from nowcast.netcdf.rain.units import Conversion

SAMPLE = 4  # number of frames or fields that are read to find undeclared codes
_MOST_CELLS = 1 << 18  # largest number of cells read of a frame in the sample
_DRY_RATE = 0.1  # mm/h, below which a known cell counts as dry
_FEW = 0.001  # fraction of known cells that are dry, below which a code for dry is searched
_HALF = 0.5  # the same for reflectivity, which is also measured without rain
_MOST_CODES = 3  # different negative numbers that can be codes; more are noise
_FEWEST_KNOWN, _LEAST_MISSING = 500, 0.05  # number of known cells, and fraction of missing cells, for a remark
_LARGEST = 6  # number of largest values of an integer type that may be codes
DOUBT = "Are its units right?"
INCREDIBLE, _MUCH = 200.0, 0.01  # mm/h; if more than this fraction of known cells reaches it, the units are doubted
_FIRST_CELLS = 64  # cells of a frame that are checked first: a dry one excludes an outage
_CODE = re.compile(r"9{2,}|32767|65535")  # significant digits of codes: of 9999.9, 99.9, and of unpacked largest integers
_LEAST_CODE = 50.0  # mm/h, from which on 99 or 99.9 is a code if it is frequent
_RARE, _FEWEST = 5, 20  # a code is this many times as frequent as other numbers near it, and in at least so many cells
_NEAR = 0.8  # share of the highest rate from which on numbers of floats are near it; of integers, the ten below a code are


def sampled(count: int, most: int = SAMPLE) -> np.ndarray:
    """Return the positions (position,) of at most `most` of `count` frames or files, evenly spread, that are sampled."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


def row_step(shape: tuple[int, int]) -> int:
    """Return the step between the rows that are read of a frame (y, x) in the sample: more than 1 on large grids."""
    return max(1, math.prod(shape) // _MOST_CELLS)


def refine(stored: np.ndarray, packing: Packing, conversion: Conversion) -> tuple[Packing, str | None]:
    """Return the packing with undeclared codes for dry and missing added, and a text for a warning, or None.

    stored: (frame, y, x) numbers as they are stored
    """
    packing, unclear = _with_unpacked_fills(stored, packing)
    packing, *remarks = _without_largest(stored, packing, conversion)
    packing, dry = _with_dry(stored, packing, conversion)
    found = unclear, *remarks, dry, *(find(stored, packing, conversion) for find in (_negative, _out_of_range, _doubt))
    return packing, "; ".join(remark for remark in found if remark) or None


def outages(stored: np.ndarray, rates: np.ndarray, *, unsigned: bool = False) -> np.ndarray:
    """Return a mask (frame,) of outages: frames whose known cells all hold one number that cannot be rain.

    That number is the largest of an 8 or 16 bit type, or more rain than is credible.

    stored: (frame, y, x) numbers as they are stored
    rates: (frame, y, x) the same decoded, mm/h, NaN missing
    unsigned: whether signed integers are to be read as unsigned
    """
    stored = stored.view(stored.dtype.str.replace("i", "u")) if unsigned else stored
    found, kind = np.zeros(len(rates), bool), stored.dtype
    most = np.iinfo(kind).max if kind.kind in "iu" and kind.itemsize <= 2 else None
    for number, (numbers, frame) in enumerate(zip(stored, rates, strict=True)):
        if not _is_one(frame.ravel()[:: max(frame.size // _FIRST_CELLS, 1)]):
            continue  # true of most frames
        known = ~np.isnan(frame)
        if known.sum() >= _FEWEST and _is_one(frame[known]):
            found[number] = frame[known][0] >= INCREDIBLE or (most is not None and (numbers[known] == most).all())
    return found


def _is_one(rates: np.ndarray) -> bool:
    """Return whether all known rates (cell,) are equal and above 0."""
    known = rates[~np.isnan(rates)]
    return not known.size or bool(known[0] > 0 and (known == known[0]).all())


def is_doubtful(rates: np.ndarray) -> bool:
    """Return whether so many cells of frames (…, y, x), mm/h, have so much rain that the units must be wrong."""
    if not (high := int((rates >= INCREDIBLE).sum())):
        return False
    num_known = int((~np.isnan(rates)).sum())
    return num_known >= _FEWEST_KNOWN and high > _MUCH * num_known


def _with_dry(stored: np.ndarray, packing: Packing, conversion: Conversion) -> tuple[Packing, str | None]:
    """Add the code for dry if no known cell is dry and the code can be distinguished from missing; else return a remark."""
    rates = decode(stored, packing, conversion)
    known = np.isfinite(rates)
    missing = ~known
    share = (rates[known] < _DRY_RATE).mean() if known.any() else 0.0
    if packing.dry or not missing.any() or share > (_HALF if conversion.zr else _FEW):
        return packing, None
    codes = _codes(stored[missing], packing, conversion)
    with_others = len(codes) > 1 or not np.isin(stored[missing], codes).all()
    if 0 < len(codes) <= _MOST_CODES and with_others:
        dry = max(codes)
        return replace(packing, dry=(dry,)), f"{dry:g} is taken as dry, and the other codes as missing"
    if known.sum() < _FEWEST_KNOWN or missing.mean() < _LEAST_MISSING or share > _FEW:
        return packing, None
    if len(codes) == 1:
        return packing, (
            f"no known cell is dry, and {codes[0]:g} is taken as missing. "
            f"If it means dry, state that by an attribute _Undetect = {codes[0]:g}"
        )
    return packing, "no known cell is dry: if dry cells are stored as missing, scores and training cover rainy cells only"


def _negative(stored: np.ndarray, packing: Packing, conversion: Conversion) -> str | None:
    """Return a remark if many different numbers are below 0, since neither rain nor codes for missing look like that."""
    if conversion.zr or not conversion.quantity.is_rain:
        return None
    missing = np.isnan(decode(stored, packing, conversion))
    values = stored[missing].view(stored.dtype.str.replace("i", "u") if packing.unsigned else stored.dtype)
    values = values[np.isfinite(values) & ~np.isin(values, packing.missing)]
    rates = conversion.unpacking(packing.scale_factor, packing.add_offset)(values)
    below = rates[(rates < packing.least) & (rates > -HIGHEST)]
    if below.size <= _MUCH * stored.size or len(np.unique(below)) <= _MOST_CODES:
        return None
    share = below.size / stored.size
    return f"{100 * share:.0f} % of the cells are below 0, down to {below.min():g} mm/h, and taken as missing. Is it rain?"


def _out_of_range(stored: np.ndarray, packing: Packing, conversion: Conversion) -> str | None:
    """Return a remark if much credible rain, of many different numbers, is outside of the declared valid range."""
    if (packing.low, packing.high) == (-np.inf, np.inf) or not conversion.quantity.is_rain:
        return None
    rates = decode(stored, replace(packing, low=-np.inf, high=np.inf), conversion)
    rain = (rates >= _DRY_RATE) & (rates < INCREDIBLE)
    lost = rain & np.isnan(decode(stored, packing, conversion))
    if lost.sum() < _FEWEST or lost.sum() <= _MUCH * rain.sum() or len(np.unique(stored[lost])) <= _MOST_CODES + 1:
        return None
    least, most = rates[lost].min(), rates[lost].max()
    return (
        f"{100 * lost.sum() / rain.sum():.0f} % of the rain, {least:.3g} to {most:.3g} mm/h, is outside of the declared "
        "valid range and taken as missing. Is the range right? In CF it is in stored numbers"
    )


def _doubt(stored: np.ndarray, packing: Packing, conversion: Conversion) -> str | None:
    """Return a remark if so many cells have so much rain that the units must be wrong."""
    rates = decode(stored, packing, conversion)
    if not is_doubtful(rates):
        return None
    share = (rates[~np.isnan(rates)] >= INCREDIBLE).mean()
    return f"{100 * share:.0f} % of the known cells would have {INCREDIBLE:g} mm/h or more. {DOUBT}"


def _with_unpacked_fills(stored: np.ndarray, packing: Packing) -> tuple[Packing, str | None]:
    """Take declared fill values of packed integers as unpacked where the numbers that they would be are far more frequent."""
    numbers = stored.view(stored.dtype.str.replace("i", "u")) if packing.unsigned else stored
    for declared, packed in packing.unclear:
        count, as_declared = (int((numbers == number).sum()) for number in (packed, declared))
        others = sum(int((numbers == other).sum()) for other in range(int(packed) - 10, int(packed)))
        if count > max(_RARE * max(others, as_declared), _FEW * numbers.size) and count >= _FEWEST:
            missing = (*(number for number in packing.missing if number != declared), packed)
            return replace(packing, missing=missing), (
                f"the missing value {declared:g} is declared unpacked, against CF: {packed:g} is taken as missing, "
                f"and {declared:g}, which would be {declared * packing.scale_factor + packing.add_offset:g}, is not"
            )
    return packing, None


def _codes(missing: np.ndarray, packing: Packing, conversion: Conversion) -> list[float]:
    """Return the undeclared codes: numbers that are not declared missing and cannot be rain (negative, or 0 out of range).

    missing: (cell,) stored numbers that are read as missing
    """
    values = np.unique(missing[np.isfinite(missing)])
    values = values[~np.isin(values, packing.missing)]
    if len(values) > _MOST_CODES + 1:
        return []
    bare = replace(packing, missing=(), low=-np.inf, high=np.inf)
    rates = decode(values, bare, conversion)
    unpacked = values * np.float64(packing.scale_factor) + packing.add_offset
    return [float(value) for value, rate, number in zip(values, rates, unpacked, strict=True)
            if (np.isnan(rate) and number < 0) or (number == 0 and not conversion.zr)]  # fmt: skip


def _without_largest(stored: np.ndarray, packing: Packing, conversion: Conversion) -> tuple[Packing, str | None]:
    """Take undeclared largest numbers as missing if they cannot be rain.

    Those of 8 or 16 bits are far more frequent than the ten numbers below them and more rain than is credible. For bytes
    without any declaration one of the two is enough for 255.
    """
    kind = np.dtype(stored.dtype.str.replace("i", "u")) if packing.unsigned else stored.dtype
    if kind.kind == "f" or (kind.itemsize > 2 and not packing.unsigned):
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
            remarks += [_told(number, rate, count / numbers.size)] if count else []
    if not found:
        return packing, None
    are = "are" if len(remarks) > 1 else "is"
    return replace(packing, missing=(*packing.missing, *found)), (
        f"{' and '.join(remarks)}, {are} taken as missing" if remarks else None
    )


def _without_repeated(stored: np.ndarray, packing: Packing, conversion: Conversion) -> tuple[Packing, str | None]:
    """Take numbers among the highest as missing that are far more frequent than the others there and cannot be rain.

    That holds for what would be more than HIGHEST, which is missing in any case, but here no reason to doubt the units; and,
    of at least INCREDIBLE, for the numbers of `_CODE`, and for whole numbers in more than _FEW of the cells. Less than that,
    down to _LEAST_CODE, are only numbers of `_CODE` in more than _MUCH of the cells. Reflectivity counts above HIGHEST only.
    """
    remarks = []
    while len(remarks) < _MOST_CODES and (code := _repeated(stored, packing, conversion)):
        number, remark = code
        remarks.append(remark)
        packing = replace(packing, missing=(*packing.missing, number))
    are = "are" if len(remarks) > 1 else "is"
    return packing, f"{' and '.join(remarks)}, {are} taken as missing" if remarks else None


def _repeated(stored: np.ndarray, packing: Packing, conversion: Conversion) -> tuple[float, str] | None:
    """Return the number that `_without_repeated` takes as missing next, with what it would be; None if there is none."""
    rates = decode(stored, packing, conversion)
    highest = rates[~np.isnan(rates)].max(initial=0)
    if highest < _LEAST_CODE or (conversion.zr and np.isfinite(highest)):  # many radars end at 60 dBZ
        return None
    numbers, counts = np.unique(stored[rates >= _NEAR * highest], return_counts=True)
    number, count = float(numbers[counts.argmax()]), int(counts.max())
    is_code = bool(_CODE.fullmatch(f"{number:.7g}".replace(".", "").strip("0")))
    if highest < INCREDIBLE:
        least = _MUCH if is_code else 1.0
    else:
        least = 0.0 if is_code or np.isinf(highest) else _FEW if number.is_integer() else 1.0
    if count < _FEWEST or count <= max(_RARE * (counts.sum() - count), least * stored.size):
        return None
    rate = float(rates[stored == numbers[counts.argmax()]][0])
    return number, _told(number, rate, count / stored.size)


def _rate(number: int, kind: np.dtype, own: np.dtype, packing: Packing, conversion: Conversion) -> float:
    """Return the rain rate of a stored number, mm/h; infinity above HIGHEST."""
    return float(decode(np.full(1, number, kind).view(own), packing, conversion)[0])


def _told(number: float, rate: float, share: float) -> str:
    """Return the text about a code that would be a rate, mm/h, in a share of the cells."""
    shown = f"more than {HIGHEST:.0f}" if np.isinf(rate) else f"{rate:.4g}" if rate < 1000 else f"{rate:.0f}"
    return f"{number:.7g}, which would be {shown} mm/h in {100 * share:.3g} % of the cells"
