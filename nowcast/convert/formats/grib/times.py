"""Valid time, accumulation interval and lead time of a GRIB message.

Source: WMO Manual on Codes, code tables 1.4, 4.3 and 4.4, and 5 of edition 1.
"""

import re
from datetime import datetime
from pathlib import Path

import numpy as np

from nowcast.convert.formats.grib.messages import Message
from nowcast.errors import DataError
from nowcast.runtime.log_lines import warn_once

_UNITS_OF_TIME = {0: 1.0, 1: 60.0, 2: 1440.0, 10: 180.0, 11: 360.0, 12: 720.0, 13: 1 / 60}  # code table 4.4: minutes
_UNITS_IN_EDITION_1 = _UNITS_OF_TIME | {13: 15.0, 14: 30.0, 254: 1 / 60}  # code table 4 of edition 1: minutes
_UNITS_OF_STEPS = {"s": 1 / 60, "m": 1.0, "h": 60.0, "D": 1440.0}  # minutes
# type of generating process: analysis, observation, post-processed analysis, retrieval, regression; of forecasts and hindcasts
_OBSERVED, _FORECAST, _NOWCAST = {0, 8, 12, 16, 17}, {2, 3, 4, 5, 10, 11, 13, 15}, 14
# type of processed data: observations of satellites and radars; forecasts
_OBSERVED_DATA, _FORECAST_DATA = {6, 7}, {1, 3, 4, 5, 8}
_PARTS = ("year", "month", "day", "hour", "minute", "second")
_ROUNDED = np.timedelta64(60, "s")  # an interval's end that is stated in whole minutes differs by less
_TYPES_OF_FORECASTS = {9, 10, 11}  # ECMWF's types in edition 1: forecast, control and perturbed forecast


def time_of(message: Message, path: Path) -> np.datetime64:
    """Return the valid time of a field, at the end of its interval if it has one.

    Raises DataError (exit 3) for an invalid date, and for an interval whose stated end disagrees with its length.
    """
    start = _moment(message, "dataDate", "dataTime", path) + _seconds(int(message.number("second", 0) or 0))
    first, last = _steps(message)
    stated = _stated_end(message) if message.number("edition") == 2 else None
    if stated is None:
        return start + _seconds(60 * last)
    length = message.number("lengthOfTimeRange") * _UNITS_OF_TIME.get(message.number("indicatorOfUnitForTimeRange"), 0)
    if not length or message.number("numberOfTimeRange") != 1:
        return stated
    begin = start + _seconds(60 * first)
    end = begin + _seconds(60 * length)
    if abs(stated - end) < _ROUNDED:  # the computed one has the seconds, which some writers omit
        return end
    if abs(stated - begin) < _ROUNDED:
        warn_once(path, f"the interval of {length:g} minutes ends where it is said to start, at {begin}: taken as that before")
        return begin
    raise DataError(
        f"{path} has an interval of {length:g} minutes from {begin}, which is said to end at {stated}.\n"
        f"Expected its end at {end}."
    )


def _stated_end(message: Message) -> np.datetime64 | None:
    """Return the end of the interval of a message of edition 2; None if it has none, or no valid date there."""
    try:
        numbers = (int(message.number(f"{part}OfEndOfOverallTimeInterval")) for part in _PARTS)
        return np.datetime64(datetime(*numbers), "s")
    except (TypeError, ValueError):
        return None


def _seconds(number: float) -> np.timedelta64:
    return np.timedelta64(round(number), "s")


def _moment(message: Message, day: str, clock: str, path: Path) -> np.datetime64:
    date, time = message.number(day), message.number(clock)
    try:
        return np.datetime64(datetime.strptime(f"{date:08d}{time:04d}", "%Y%m%d%H%M"), "s")
    except (TypeError, ValueError):
        raise DataError(f"{path} has the date {date} and the time {time}.\nExpected YYYYMMDD and HHMM.") from None


def minutes_of_sums(message: Message) -> float | None:
    """Return the accumulation interval of a message, minutes; None if not stated."""
    first, last = _steps(message)
    if last > first:
        return last - first
    length = message.number("lengthOfTimeRange")
    unit = _UNITS_OF_TIME.get(message.number("indicatorOfUnitForTimeRange"))
    return float(length) * unit if length and unit else None


def minutes_ahead(message: Message) -> float | None:
    """Return the lead time of a forecast, minutes; None for observations and analyses.

    The generating process in the message decides. Without it, as in edition 1, a field at its reference time and a sum that
    starts there count as observed: analyses of hourly rain are coded like that.
    """
    first, last = _steps(message)
    process, data = (message.whole(key, -1) for key in ("typeOfGeneratingProcess", "typeOfProcessedData"))
    if process in _FORECAST and data not in _OBSERVED_DATA:
        return last
    if process == _NOWCAST:
        return last if last > 0 else None
    if process not in _OBSERVED and data in _FORECAST_DATA:
        return last
    if message.number("edition") == 1 and message.whole("marsType", -1) in _TYPES_OF_FORECASTS:
        return last
    return last if first > 0 or (first == last and last > 0) else None


def start_of_total(message: Message) -> tuple | None:
    """Return the reference time of a sum that starts there and is not stated to be observed; else None."""
    first, last = _steps(message)
    if first or not last or message.whole("typeOfGeneratingProcess", -1) in _OBSERVED:
        return None
    return message.number("dataDate"), message.number("dataTime")


def _steps(message: Message) -> tuple[float, float]:
    """Return start and end of a field after its reference time, minutes; 0 if not stated."""
    if message.number("edition") == 1 and (stated := _steps_in_edition_1(message)):
        return stated
    units = message.text("stepUnits")[:1]
    steps = (re.fullmatch(r"(-?\d+)([a-zA-Z]?)", message.text(key)) for key in ("startStep", "endStep"))
    first, last = (float(step[1]) * _UNITS_OF_STEPS.get(step[2] or units, 60.0) if step else 0.0 for step in steps)
    return first, last


def _steps_in_edition_1(message: Message) -> tuple[float, float] | None:
    """Return start and end of a field of edition 1, minutes; None for indicators of time range that are not WMO's.

    They are computed from the octets: ecCodes 2.50 gives the steps in hours until one of them is no whole number of hours,
    then in another unit.
    """
    unit = _UNITS_IN_EDITION_1.get(message.whole("indicatorOfUnitOfTimeRange", 1))
    indicator, first, last = (message.whole(key, 0) for key in ("timeRangeIndicator", "P1", "P2"))
    periods = {0: (first, first), 1: (0, 0), 6: (-first, -last), 7: (-first, last), 10: (256 * first + last,) * 2}
    periods |= dict.fromkeys((2, 3, 4, 5), (first, last))
    if unit is None or indicator not in periods:
        return None
    return tuple(unit * period for period in periods[indicator])
