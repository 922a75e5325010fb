"""Read the attributes of a variable or dataset that is open."""

import re

SCORES_FORMAT = "nowcast_scores_format"  # global attribute of the scores that nowcast writes
TRAINING_PERIODS = "nowcast_training_periods"  # global attribute of its forecasts: what their network has seen, as JSON
OWN_RAIN = "precip_intensity"  # the variable of rain in forecasts that nowcast writes
_FORECASTER = re.compile(r"nowcast predict (\S+)")  # in the global attribute `history`
_SOURCE_END = re.compile(r"[,;(\n]")
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


def is_true(value) -> bool:
    """Return whether an attribute such as `_Unsigned` says yes: "true", and what others write for it."""
    return str(value).strip().lower() in ("true", "t", "yes", "1")


def made_by_nowcast(dataset) -> bool:
    """Return whether nowcast wrote a file, forecasts or scores, going by its global attributes."""
    return SCORES_FORMAT in dataset.ncattrs() or bool(_SOURCE.search(text(dataset, "source") or ""))


def maker(dataset) -> str:
    """Return the name of what made the forecasts of a file: the forecaster, else the beginning of `source`; "" if unknown."""
    if made_by_nowcast(dataset) and (found := _FORECASTER.search(text(dataset, "history") or "")):
        return found[1]
    return _SOURCE_END.split(text(dataset, "source") or "", maxsplit=1)[0].strip()
