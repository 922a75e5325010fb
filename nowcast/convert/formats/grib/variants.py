"""What tells fields of one parameter and one time apart: level, member of an ensemble, percentile, mean over an interval.

In `--variable refd@heightAboveSea=1000,member=3`, the part after the @ names what is wanted of them.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from nowcast.convert.formats.grib.messages import Message
from nowcast.convert.original import Original
from nowcast.errors import DataError

_NAMED = 4  # fields that a message lists
_NUMBERS = {"member": ("perturbationNumber", "number"), "percentile": ("percentileValue",), "derived": ("derivedForecast",)}


def variant_of(message: Message, minutes: float | None) -> tuple[str, ...]:
    """Return what a message states beside its parameter and time, such as ("heightAboveSea=1000", "member=3").

    minutes: length of its time range, minutes; of a mean rate it is stated too
    """
    top, bottom = (message.number(key, 0) for key in ("topLevel", "bottomLevel"))
    layer = "" if top == bottom else f"-{bottom:g}"
    parts = [f"{message.text('typeOfLevel') or 'level'}={top:g}{layer}"]
    for name, keys in _NUMBERS.items():
        value = next((value for key in keys if (value := message.number(key)) is not None), None)
        parts += [] if value is None else [f"{name}={value:g}"]
    if message.text("stepType") == "avg":
        parts.append(f"mean={minutes or 0:g}min")
    codes = ("discipline", "parameterCategory", "parameterNumber")
    if message.number("edition") == 1:
        codes = ("table2Version", "indicatorOfParameter")
    return (*parts, "code=" + ".".join(f"{message.whole(code, -1)}" for code in codes))


def is_wanted(variant: Sequence[str], choice: str) -> bool:
    """Return whether a field has all parts of a choice, such as "heightAboveSea=1000,member=3"; "" is any field."""
    return {part.strip() for part in choice.split(",") if part.strip()} <= set(variant)


def check_alone(originals: Sequence[Original], path: Path) -> None:
    """Raise DataError (exit 3) if several observed fields of a series have the same time and differ in their variants."""
    variants = defaultdict(dict)
    for each in originals:
        if each.forecast is None:
            variants[each.time, each.series.key][each.variant] = None
    for (time, _), several in variants.items():
        if len(several) > 1:
            product = next(each.series.product for each in originals if each.time == time)
            shared = set.intersection(*map(set, several))
            own = [",".join(part for part in variant if part not in shared) for variant in several]
            more = f" and {len(own) - _NAMED} more" if len(own) > _NAMED else ""
            first = next(filter(None, own))
            raise DataError(
                f"{path} has {len(own)} fields of {product} for {time}: {'; '.join(filter(None, own[:_NAMED]))}{more} "
                f"(--variable {product.partition('@')[0]}@{first} takes one).\nExpected one field for each time."
            )
