"""The quantity of a record, network or forecast: rain rate in mm/h, or another quantity from 0 to 1.

Files and checkpoints keep the name alone; `Quantity.named` gives the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_HIGHEST = 1e6  # mm/h: thresholds must be lower


@dataclass(frozen=True)
class Quantity:
    """A quantity, its units, and the defaults of its verification.

    str() gives its name, for messages.
    """

    name: str  # as files and checkpoints keep it
    units: str  # CF, as udunits reads them
    label: str  # for titles; "" for a quantity that is known by its variable's name only
    unit: str  # for people; "" for a number without a unit
    thresholds: tuple[float, ...]  # in `units`, ascending: the events scored unless others are asked for
    data_range: float  # in `units`: the dynamic range L of the structural similarity (SSIM)

    @classmethod
    def named(cls, name: str) -> "Quantity":
        """Return the quantity with this name: the rain rate, else a number from 0 to 1 without a unit."""
        return RAIN_RATE if name == RAIN_RATE.name else cls(name, "1", "", "", thresholds=(0.5,), data_range=1.0)

    @property
    def is_rain(self) -> bool:
        """Whether this is the rain rate."""
        return self == RAIN_RATE

    def __str__(self) -> str:
        return self.name


RAIN_RATE = Quantity(
    name="rain_rate",
    units="mm h-1",
    label="rain rate",
    unit="mm/h",
    thresholds=(0.5, 1.0, 5.0, 10.0),
    data_range=30.0,  # HKO-7's highest threshold; with 100 mm/h, all but cloudbursts would count as uniform
)
DIMENSIONLESS = Quantity.named("dimensionless")  # whatever a variable in units "1" stands for


def are_thresholds(values: Sequence[float]) -> bool:
    """Return whether these are thresholds: one or several ascending numbers above 0."""
    are_numbers = all(isinstance(value, int | float) and 0 < value < _HIGHEST for value in values)
    return bool(values) and are_numbers and list(values) == sorted(set(values))
