"""Read times from file names and texts; times in other zones are converted to UTC."""

import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from nowcast.errors import DataError

_FORMS = ((14, "%Y%m%d%H%M%S"), (12, "%Y%m%d%H%M"), (10, "%Y%m%d%H"))
_DATE = r"(?<!\d)(?P<date>(?:19|20)\d{2}[-_.:]?\d{2}[-_.:]?\d{2})"
_CLOCK = r"(?P<clock>\d{2}(?:(?P<apart>[-_.:h]?)\d{2}(?:(?:(?P=apart)|m)\d{2})?)?)(?!\d)"
_DIGITS = re.compile(_DATE + r"(?P<mark>[-_.:T ]*)" + _CLOCK)
_FRACTION = r"(?:[.,]\d+)?"
_OFFSET = re.compile(
    _FRACTION + r"\s?(?P<utc>UTC|GMT)?(?P<sign>[+-])(?P<hours>\d\d?)(?P<colon>:?)(?P<minutes>\d{2})?"
    r"(?![-:.]?\d|\s?(?:UTC|GMT|Z))"  # followed by a zone, it is the end of a range
)
_MOST = -12 * 60, 14 * 60  # smallest and largest offset of a time zone, minutes east of UTC
# names of time zones; other words after a time are ignored
_ZONES = (
    "CES?T|MES?Z|EES?T|WES?T|BST|IST|MSK|TRT|[ECMPA][SD]T|AK[SD]T|HST|BRT|ART|CLS?T|AE[SD]T|AC[SD]T|AWST|NZ[SD]T|JST|KST|HKT|SGT|"
    "SAST|(?:Africa|America|Antarctica|Asia|Atlantic|Australia|Europe|Indian|Pacific)/[A-Z][A-Za-z_/]+|local"
)
_LENGTH = re.compile(r"(?:min|mm|km|m|dbz)(?![a-z])", re.IGNORECASE)  # a unit after digits that are no time: 05min, 1500m
_HALF = re.compile(r" ?[ap]m(?![a-z])", re.IGNORECASE)
_REFUSED = re.compile(_FRACTION + rf"[\s(\[_]*(?:(?P<zone>{_ZONES})|(?P<half>(?i:[ap]\.?m)))\b")


def time_in_name(path: Path, form: str | None = None) -> np.datetime64:
    """Return the time (UTC) in the name of a file, by a form such as `rain_%Y%m%d%H%M.png` or from its first date and time.

    Raises DataError (exit 3) if it has none.
    """
    if form is not None:
        try:
            return _in_utc(datetime.strptime(path.name, form))
        except ValueError:
            raise DataError(f"{path} does not match the form {form}.\nExpected a file name of that form.") from None
    time = time_in_text(path.name, path, is_name=True)
    if time is None:
        raise DataError(f"{path} has no time in its name.\nExpected one such as 201609281500 or 2016-09-28T15:00.")
    return time


def _in_utc(moment: datetime) -> np.datetime64:
    return np.datetime64(moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None), "s")


def time_in_text(text: str, path: Path, *, is_name: bool = False) -> np.datetime64 | None:
    """Return the first time (UTC) in a text of a file; None without one.

    is_name: the text is a file name: digits after a time are its offset from UTC only with a colon (+02:00) or after UTC
        (UTC+0200), because they often mean something else

    Raises DataError (exit 3) for a named time zone other than UTC, and for a time with AM or PM.
    """
    for match in _DIGITS.finditer(text):
        if is_name:
            _check_name(text, match, path)
        digits = "".join(part for part in match["date"] + match["clock"] if part.isdigit())
        for length, form in _FORMS:
            if len(digits) == length:
                try:
                    time = np.datetime64(datetime.strptime(digits, form), "s")
                except ValueError:
                    break
                if not is_name:
                    _check_zone(text, match, path)
                return time - np.timedelta64(60 * _minutes_east(text, match, is_name=is_name), "s")
    return None


def _check_name(text: str, match: re.Match, path: Path) -> None:
    """Raise DataError (exit 3) if the digits after the date in a file name are no time, such as 05min, or are with AM or PM."""
    after = match.end()
    if not match["apart"] and (length := _LENGTH.match(text, after)):
        raise DataError(
            f"{path} has {text[match.start() : length.end()]!r} in its name, which is no time.\n"
            "Expected hours and minutes after the date, such as 20160928_1500."
        )
    if half := _HALF.match(text, after):
        raise DataError(
            f"{path} has the time {text[match.start() : half.end()]!r} with AM or PM in its name.\n"
            "Expected hours from 0 to 23, such as 1500."
        )


def _check_zone(text: str, match: re.Match, path: Path) -> None:
    """Raise DataError (exit 3) if a time is followed by the name of a zone other than UTC, or by AM or PM."""
    if zone := _REFUSED.match(text, match.end()):
        message = f"{path} has the time {text[match.start() : zone.end()]!r}"
        if zone["zone"]:
            raise DataError(f"{message} in a named time zone.\nExpected UTC, or an offset from it such as +02:00.")
        raise DataError(f"{message} with AM or PM.\nExpected hours from 0 to 23, such as 15:00.")


def _minutes_east(text: str, match: re.Match, *, is_name: bool) -> int:
    """Return the offset from UTC after a time, minutes; 0 if there is none, or if the digits may mean something else."""
    offset = _OFFSET.match(text, match.end())
    if offset is None or (len(offset["hours"]) < 2 and not offset["utc"]):
        return 0
    is_marked, is_short = bool(offset["colon"] or offset["utc"]), not offset["minutes"]
    if is_name and (is_short or not is_marked):
        return 0  # 0500-0600 is a range of times in many names, and 1500+0030 a lead time
    if (is_short or offset["sign"] == "-") and not (is_marked or "T" in match["mark"] or match["apart"] == ":"):
        return 0
    hours, minutes = int(offset["hours"]), int(offset["minutes"] or 0)
    east = (60 * hours + minutes) * (1 if offset["sign"] == "+" else -1)
    is_zone = minutes in (0, 15, 30, 45) and _MOST[0] <= east <= _MOST[1] and (hours or not minutes)
    return east if is_zone else 0
