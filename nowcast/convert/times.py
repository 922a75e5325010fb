"""The time of a field where only the name of its file, or a text, tells it."""

import re
from datetime import datetime
from pathlib import Path

import numpy as np

from nowcast.errors import DataError

_FORMS = ((14, "%Y%m%d%H%M%S"), (12, "%Y%m%d%H%M"), (10, "%Y%m%d%H"))
_DATE = r"(?<!\d)((?:19|20)\d{2})[-_.:]?(\d{2})[-_.:]?(\d{2})"
_DIGITS = re.compile(_DATE + r"[-_.:T ]*(\d{2})[-_.:h]?(\d{2})?[-_.:m]?(\d{2})?(?!\d)")


def time_in_name(path: Path, form: str | None = None) -> np.datetime64:
    """Return the time (UTC) in the name of a file, by a form such as `rain_%Y%m%d%H%M.png` or as its first long digits.

    Raises DataError (exit 3) if it has none.
    """
    if form is not None:
        try:
            return np.datetime64(datetime.strptime(path.name, form), "s")
        except ValueError:
            raise DataError(f"{path} is not named as {form} says.\nExpected a time in the name of that form.") from None
    time = time_in_text(path.name)
    if time is None:
        raise DataError(f"{path} has no time in its name.\nExpected one such as 201609281500 or 2016-09-28T15:00.")
    return time


def time_in_text(text: str) -> np.datetime64 | None:
    """Return the first time in a text; None without one."""
    for match in _DIGITS.finditer(text):
        digits = "".join(part for part in match.groups() if part)
        for length, form in _FORMS:
            if len(digits) == length:
                try:
                    return np.datetime64(datetime.strptime(digits, form), "s")
                except ValueError:
                    break
    return None
