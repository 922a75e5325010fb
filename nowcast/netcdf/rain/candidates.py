"""Rank the variables of a file as candidates for rain: by standard name, else by units and words."""

import re

import numpy as np

from nowcast.netcdf.attributes import is_numeric, text
from nowcast.netcdf.places.axes import horizontal
from nowcast.netcdf.rain import units

_PREFERENCE = {"rate": 0, "amount": 1, "reflectivity": 2}  # of kinds of units, the smallest first
# mm/h or mm per unit: larger units are those of heights and winds, not of rain, unless its names say so
_COARSEST = {"rate": 1e4, "amount": 100.0, "reflectivity": np.inf}
_UNNAMED = {"", "unknown", "undefined", "none", "~"}  # standard names that other programs write where they know none
_RAIN_WORDS = re.compile(
    r"rain|precip|prcp|pcp|prate|qpe|qpf|accum|shower|reflectivity|dbz|(?:^|[\W_])(?:rr|tp|acrr|rate|acc)(?:[\W_]|\d|$)",
    re.IGNORECASE,
)
_SURELY_RAIN = re.compile(r"rain|precip|prcp|(?:^|[\W_])tp\d*(?:[\W_]|$)", re.IGNORECASE)
# other quantities in the units of an amount or a rate
_OTHER_WORDS = re.compile(
    r"(?:^|[\W_])(?:vil|d0|dm|pw|pwat|tcwv|iwv|lwp|iwp)(?:[\W_]|$)|integrated|precipitable|vapou?r|column|cloud|liquid_water|"
    r"drop|diameter|snow|hail|graupel|\bice|depth|height|altitude|displacement|visib|evapo|soil|moisture|runoff|"
    r"error|uncertain|quality|std_?dev|standard[ _]deviation|(?:^|[\W_])std(?:[\W_]|$)|variance|climatolog|threshold|"
    r"anomal(?:y|ies)(?![a-z])|(?:^|[\W_])(?:anom|bias|spread|sigma)(?:[\W_]|$)",
    re.IGNORECASE,
)
# rain whose names mention what was removed or checked: bias_corrected_rain_rate, quality-controlled, rainfall depth
_STILL_RAIN = re.compile(
    r"bias(?:es)?[\W_]*(?:(?:and|&)[\W_]*\w+[\W_]+)?(?:corrected|adjusted|removed|reduced|free)(?![a-z])|"
    r"bias[\W_]+(?:correction|adjustment)s?[\W_]+applied|"
    r"(?:with|after|without|no|(?:corrected|adjusted)[\W_]+for)[\W_]+(?:[a-z]+[\W_]+){0,2}bias(?:es)?"
    r"(?:[\W_]+(?:correction|adjustment|removal))?(?![a-z])|"
    r"sigma[\W_]+(?:level|layer|coordinate)s?|error[\W_]*(?:corrected|free)|quality[\W_]*(?:controlled|checked|assured)|"
    r"(?:rain(?:fall)?|precip(?:itation)?)[\W_]+(?:depth|height)(?![a-z])",
    re.IGNORECASE,
)
# what cell_methods say of variables that hold no mean, sum or value of their cells; "time: range: mean" names a dimension,
# and "height: maximum" is that of a column
_OTHER_METHODS = re.compile(
    r":\s*(?:standard_deviation|variance|range)\b(?!\s*:)|time\s*:\s*(?:maximum|minimum)\b(?!\s*:)", re.IGNORECASE
)
_IN_PARENTHESES = re.compile(r"\([^()]*\)")


def declared_units(variable) -> str | None:
    """Return the units of a variable: `units`, or `unit` as pysteps writes it; None without."""
    return text(variable, "units") or text(variable, "unit")


def rank(dataset, name: str) -> tuple | None:
    """Return the rank of a variable as a candidate for rain, the smallest the best; None if it cannot be rain.

    Candidates of equal rank are ambiguous, such as amounts whose names do not mention rain.
    """
    variable = dataset.variables[name]
    if name in dataset.dimensions or not is_numeric(variable) or horizontal(dataset, variable) is None:
        return None
    if _OTHER_METHODS.search(_IN_PARENTHESES.sub("", text(variable, "cell_methods") or "")):
        return None
    num_extra = max(0, sum(size != 1 for size in variable.shape) - 3)
    standard_name = text(variable, "standard_name") or ""
    if standard_name in units.RAIN_NAMES:
        kinds = [standard_name in names for names in (units.RATE_NAMES, units.AMOUNT_NAMES)]
        return (num_extra, 0, kinds.index(True) if any(kinds) else 2)
    meaning = units.meaning(declared_units(variable) or "")
    if meaning is None or meaning.kind not in _PREFERENCE:
        return None
    is_named = standard_name.lower() not in _UNNAMED
    said = " ".join([standard_name if is_named else name, text(variable, "long_name") or ""])
    if meaning.scale > _COARSEST[meaning.kind] and not _SURELY_RAIN.search(said):
        return None
    is_rain = meaning.kind != "amount" or bool(_RAIN_WORDS.search(said))
    is_other = meaning.kind != "reflectivity" and bool(_OTHER_WORDS.search(_STILL_RAIN.sub("rain", f"{name} {said}")))
    if is_other or (is_named and not _RAIN_WORDS.search(said)):
        return None
    return (num_extra, 1, _PREFERENCE[meaning.kind]) if is_rain else (num_extra, 2)
