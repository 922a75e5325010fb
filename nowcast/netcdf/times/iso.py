"""Read times in ISO 8601 text, without the forms that Python reads as another time than was meant."""

import re
from datetime import UTC, datetime

# no digit or + between date and clock, no fraction of a minute or an hour, and zones of up to 14 hours
_ISO = re.compile(
    r"(?:\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d(?:-?\d)?)"
    r"(?:[^\d+]\d\d(?::?\d\d(?::?\d\d(?:[.,]\d+)?)?)?(?: ?Z| ?[+-](?:0\d|1[0-4])(?::?\d\d)?)?)?",
    re.IGNORECASE,
)
_BEFORE_ZONE = re.compile(r" (?=[Z+-])", re.IGNORECASE)


def from_iso(text: str) -> datetime | None:
    """Return a date, or a date and a clock, in UTC and without a zone; None for other text.

    Python takes any character between date and clock, also a digit or a +, and a fraction of an hour for one of a second:
    202006010005Z would be 00:00, 2020-06-01 14.35 would be 14:00, and 2020-06-01+02:00 a clock.
    """
    if not _ISO.fullmatch(text):
        return None
    try:
        time = datetime.fromisoformat(_BEFORE_ZONE.sub("", text))
        return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except (ValueError, OverflowError):
        return None
