"""KNMI HDF5: sums of rain or reflectivity on a polar stereographic map in kilometres.

Source: Roozekrans and Holleman, KNMI HDF5 data format specification, v3.5. The first row is the northernmost. The edge of a
pixel on the map is (index + offset) × pixel size.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from nowcast.convert.formats.hdf5 import attribute, field_of, number, opened
from nowcast.convert.original import Encoding, Options, Original, Series, per_hour
from nowcast.convert.place import Axis, Place, projection_of
from nowcast.errors import DataError
from nowcast.runtime.log_lines import warn_once

WHAT = "KNMI HDF5"
_FORMULA = re.compile(r"GEO\s*=\s*([-+.\deE]+)\s*\*\s*PV\s*\+?\s*([-+.\deE]+)")
_LARGEST_IN_KM = 1e5  # radius of the earth; a larger one is in metres
_SAID = {"amount": "sums", "reflectivity": "reflectivity"}
_TIME = "%d-%b-%Y;%H:%M:%S.%f"


def scan(path: Path, options: Options) -> list[Original]:
    """Return the field of a file: the first image of precipitation or reflectivity, or the one named by the options.

    The images of a nowcast are forecasts. Raises DataError (exit 3) for a file without such an image, a time or georeferencing.
    """
    with opened(path, WHAT) as file:
        image = _find(file, path, options.variable)
        start, end = (_moment(file, name, path) for name in ("product_datetime_start", "product_datetime_end"))
        if end is None:
            raise DataError(f"{path} has no time.\nExpected overview/product_datetime_end.")
        encoding, interval = _encoding(image, start, end, path)
        place = _place(file.get("geographic"), field_of(image, "image_data", path).shape, path)
        product = str(attribute(file.get("overview"), "product_group_name") or attribute(image, "image_product_name") or "KNMI")
        institution = "Royal Netherlands Meteorological Institute (KNMI)"
        about = (("title", f"KNMI radar product {product}"), ("institution", institution), ("source", f"KNMI HDF5, {product}"))
        series = Series(product, place, encoding.storage, interval, about)
        valid = _valid_times(file, image, path)
        if len(valid) > 1:
            begin = valid[0] if start is None else start
            return [Original(time, 0, series, float((time - begin) / np.timedelta64(60, "s"))) for time in valid]
        if not options.variable:
            _tell_others(file, image, path)
        return [Original(end, 0, series)]


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield the field of a file, (y, x) as stored. Raises DataError (exit 3) if it cannot be read."""
    with opened(path, WHAT) as file:
        image = _find(file, path, options.variable)
        start, end = (_moment(file, name, path) for name in ("product_datetime_start", "product_datetime_end"))
        for _ in numbers:
            yield _encoding(image, start, end, path)[0].store(field_of(image, "image_data", path)[...])


def _images(file) -> list[str]:
    return sorted((name for name in file if re.fullmatch(r"image\d+", name)), key=lambda name: int(name[5:]))


def _tell_others(file, image, path: Path) -> None:
    """Warn of other images of the same parameter and time, which are not read."""
    names = [name for name in _images(file) if _kind(file[name]) == _kind(image)]
    if len(names) > 1:
        said = f"has {_SAID[_kind(image)]} in {' and in '.join(names[:3])} for one time: the first is taken"
        warn_once(path, f"{said}; choose with --variable, such as {names[1]}")


def _valid_times(file, image, path: Path) -> list[np.datetime64]:
    """Return the valid times of the images of the same parameter; those of a nowcast differ."""
    parameter = attribute(image, "image_geo_parameter")
    images = [file[name] for name in _images(file)]
    alike = [each for each in images if attribute(each, "image_geo_parameter") == parameter]
    stated = {attribute(each, "image_datetime_valid") for each in alike} - {None}
    return sorted(_time(text, "image_datetime_valid", path) for text in stated) if len(stated) > 1 else []


def _find(file, path: Path, wanted: str | None):
    for name in [wanted] if wanted else _images(file):
        image = file.get(name)
        if image is not None and "image_data" in image and (wanted or _kind(image)):
            return image
    raise DataError(f"{path} has {', '.join(file) or 'no groups'}.\nExpected an image of [MM] or [DBZ]; --variable names one.")


def _kind(image) -> str | None:
    parameter = str(attribute(image, "image_geo_parameter") or "").upper()
    return "amount" if "[MM]" in parameter else "reflectivity" if "[DBZ]" in parameter else None


def _encoding(image, start: np.datetime64 | None, end: np.datetime64, path: Path) -> tuple[Encoding, float | None]:
    """Return the encoding and, for sums, the accumulation interval, minutes."""
    parameter = attribute(image, "image_geo_parameter")
    if parameter and not _kind(image):
        raise DataError(f"{path} has {str(parameter)[:40]} in {image.name}.\nExpected an image of [MM] or [DBZ].")
    calibration = image.get("calibration")
    formula = str(attribute(calibration, "calibration_formulas") or "")
    match = _FORMULA.search(formula)
    if not match:
        raise DataError(f"{path} has calibration_formulas {formula[:40]!r}.\nExpected GEO=gain*PV+offset.")
    try:
        gain, offset = float(match[1]), float(match[2].replace("+-", "-"))
    except ValueError:
        raise DataError(f"{path} has calibration_formulas {formula[:40]!r}.\nExpected two numbers.") from None
    missing = [number(calibration, f"calibration_{name}", None, str(path)) for name in ("missing_data", "out_of_image")]
    kind = field_of(image, "image_data", path).dtype
    if _kind(image) == "reflectivity":
        # if both codes are stated and differ, 0 ("missing") means below the detection threshold of the radar
        dry = 0.0 if missing[0] == 0 and missing[1] not in (0, None) else None
        outside = tuple(dict.fromkeys(value for value in missing if value is not None and value != dry))
        return Encoding(kind, gain, offset, outside, dry, reflectivity=True), None
    interval = float((end - start) / np.timedelta64(60, "s")) if start is not None else 0.0
    factor = per_hour(interval, str(path))
    outside = tuple(dict.fromkeys(value for value in missing if value is not None))
    return Encoding(kind, gain * factor, offset * factor, outside), interval


def _moment(file, name: str, path: Path) -> np.datetime64 | None:
    value = attribute(file.get("overview"), name)
    return None if value is None else _time(value, name, path)


def _time(value: object, name: str, path: Path) -> np.datetime64:
    try:
        return np.datetime64(datetime.strptime(str(value), _TIME), "s")
    except ValueError:
        raise DataError(f"{path} has {name} {str(value)[:30]!r}.\nExpected a time such as 26-AUG-2010;04:00:00.000.") from None


def _place(geographic, shape: tuple[int, int], path: Path) -> Place:
    if geographic is None or "map_projection" not in geographic:
        raise DataError(f"{path} is not georeferenced.\nExpected the group geographic with map_projection.")
    text = str(attribute(geographic["map_projection"], "projection_proj4_params") or "")
    names = ("geo_pixel_size_y", "geo_row_offset", "geo_pixel_size_x", "geo_column_offset")
    height, row, width, column = (number(geographic, name, np.nan, str(path)) for name in names)
    if not text or not np.isfinite([height, row, width, column]).all() or not height or not width:
        raise DataError(f"{path} is not georeferenced.\nExpected {', '.join(names)} and projection_proj4_params.")
    km = 1000.0 if "KM" in str(attribute(geographic, "geo_dim_pixel")).upper() else 1.0
    projection = _in_metres(text, km)
    projection_of(projection)
    y, x = (
        Axis(round((offset + 0.5) * size * km, 6), size * km, cells)
        for offset, size, cells in ((row, height, shape[0]), (column, width, shape[1]))
    )
    return Place(y, x, projection)


def _in_metres(text: str, km: float) -> str:
    """Return the projection with its lengths in metres: km is the factor from those of the file if its earth is in kilometres.

    Newer files have the earth in metres beside +units=km. In some files y_0 lacks its plus sign.
    """
    words = (word.lstrip("+").partition("=") for word in text.split())
    parts = {name: value for name, _, value in words if name not in ("units", "no_defs", "")}
    is_in_metres = float(parts.get("a", 0)) > _LARGEST_IN_KM
    for name in ("a", "b", "x_0", "y_0"):
        if name in parts and not is_in_metres:
            parts[name] = f"{float(parts[name]) * km:.10g}"
    return " ".join(["+" + (f"{name}={value}" if value else name) for name, value in parts.items()] + ["+units=m", "+no_defs"])
