"""Rain accumulations of a forecast over consecutive intervals from the reference time on, mm, as CF describes them.

Their times are the ends of the intervals, with time bounds; the times of the rain rate are instants.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nowcast.errors import UsageError


@dataclass(frozen=True)
class Accumulation:
    """Sums over consecutive intervals of `minutes` from the reference time on.

    num_leads: number of lead times in an interval; num_intervals: number of complete intervals
    """

    minutes: int
    num_leads: int
    num_intervals: int

    @property
    def name(self) -> str:
        """Return the name of the variable; those of its dimensions and coordinates end like it."""
        return f"rain_sum{self.ending}"

    @property
    def ending(self) -> str:
        """Return the ending of all names that belong to it."""
        return f"_{self.minutes}_min"

    @property
    def ends(self) -> np.ndarray:
        """Return the ends of the intervals (interval,), seconds after the reference time."""
        return 60 * self.minutes * np.arange(1, self.num_intervals + 1)

    @property
    def bounds(self) -> np.ndarray:
        """Return start and end of the intervals (interval, 2), seconds after the reference time."""
        return np.stack([self.ends - 60 * self.minutes, self.ends], axis=1)

    def described(self, *, single: bool) -> dict[str, str]:
        """Return the CF attributes of the sum; `single`: whether the file has one reference time."""
        dim = f"time{self.ending}" if single else "time"
        comment = f"sum (comment: over {self.minutes} minutes)"
        return {"long_name": f"forecast rain of {self.minutes} minutes", "cell_methods": f"{dim}: {comment}"}

    def of(self, fields: np.ndarray) -> np.ndarray:
        """Return the sums of rates, NaN where any of them is missing.

        fields: (lead, y, x) mm/h; returns: (interval, y, x) mm, float32
        """
        whole = fields[: self.num_intervals * self.num_leads]
        means = whole.reshape(self.num_intervals, self.num_leads, *fields.shape[1:]).mean(axis=1, dtype=np.float64)
        return (means * (self.minutes / 60)).astype(np.float32)


def accumulations(minutes: Sequence[int], step: np.timedelta64, num_leads: int) -> tuple[Accumulation, ...]:
    """Return the accumulations over these minutes of forecasts with `num_leads` lead times in steps of `step`.

    Raises UsageError (exit 2) for minutes that are no multiple of the time step, or longer than the forecast.
    """
    seconds, made = int(step / np.timedelta64(1, "s")), []
    for length in minutes:
        if (60 * length) % seconds or 60 * length > num_leads * seconds:
            shortest, longest = f"{seconds / 60:g}", f"{num_leads * seconds / 60:g}"
            raise UsageError(
                f"--sums {length}: the forecast has leads every {shortest} minutes up to {longest}.\n"
                f"Expected a multiple of {shortest}, {longest} at most."
            )
        made.append(Accumulation(length, 60 * length // seconds, num_leads * seconds // (60 * length)))
    return tuple(made)
