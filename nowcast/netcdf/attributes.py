"""Read the attributes of a variable or dataset that is open."""

import re

SCORES_FORMAT = "nowcast_scores_format"  # global attribute of the scores that nowcast writes
_SOURCE = re.compile(r", nowcast \d")  # in the global attribute `source` of its forecasts


def attributes(variable) -> dict:
    """Return all attributes of a variable by name."""
    return {name: variable.getncattr(name) for name in variable.ncattrs()}


def text(variable, name: str) -> str | None:
    """Return a text attribute, stripped; None if it is absent or not text."""
    value = getattr(variable, name, None)
    return value.strip() if isinstance(value, str) else None


def is_numeric(variable) -> bool:
    """Return whether a variable holds numbers, and no text or compound values."""
    return variable.dtype is not str and getattr(variable.dtype, "kind", "") in "iuf"


def made_by_nowcast(dataset) -> bool:
    """Return whether nowcast wrote a file, forecasts or scores, going by its global attributes."""
    return SCORES_FORMAT in dataset.ncattrs() or bool(_SOURCE.search(text(dataset, "source") or ""))
