"""The structure of members' noise in space and time: how strong waves of each length are at each lead time, how long they last.

There are two noises, one for where it rains and one for how hard. Their structure is measured on cases whose outcome is known
(measure.py) and kept in kilometres and minutes, so that it serves any grid and time step. Between the wavelengths and lead
times of the table it is interpolated, beyond them it stays as at the ends.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import fft

from nowcast.scores.distribution import RATES

PAD = 64  # cells beyond the grid before the noise repeats itself
USUAL_KM, USUAL_MINUTES = 1.0, 5.0  # cells and time step of rain that does not say its own
MOST_CORRELATION = 0.9999
LARGEST = 150.0  # mm/h that no member exceeds, unless validation says otherwise
KEY = "members"  # of a checkpoint's metadata
DIGITS = 3  # that are kept
TABLES, NUMBERS = ("minutes", "km", "power", "memory"), ("shared", "largest")
NOISES = OCCURRENCE, INTENSITY = 0, 1  # where it rains, and how hard


@dataclass(frozen=True)
class Structure:
    """A table by lead time and wavelength for each of NOISES.

    minutes: (lead,) lead times, ascending
    km: (wave,) wavelengths, ascending
    power: (noise, lead, wave) logarithm of the power of a Fourier coefficient, to any constant
    memory: (noise, lead, wave) correlation with the lead time before; at the first lead time it means nothing
    shared: correlation of how hard it rains with how far the noise of occurrence is above its edge (copula.py), 0 to 1
    largest: mm/h that no member exceeds
    """

    minutes: np.ndarray
    km: np.ndarray
    power: np.ndarray
    memory: np.ndarray
    shared: float
    largest: float = LARGEST

    @property
    def step(self) -> float:
        """Return the minutes between the lead times."""
        return float(self.minutes[0])

    def amplitudes(self, noise: int, shape: tuple[int, int], km: float, lead_minutes: float) -> np.ndarray:
        """Return the standard deviation (y, x // 2 + 1), float32, of each Fourier coefficient of a field of variance 1.

        noise: one of NOISES
        shape: (y, x) of the periodic grid
        km: size of its cells
        """
        power = np.exp(np.interp(_logarithms(shape, km), np.log(self.km), self._at(self.power[noise], lead_minutes)))
        return np.sqrt(power / (power * weights(shape)).sum()).astype(np.float32)

    def correlations(self, noise: int, shape: tuple[int, int], km: float, lead_minutes: float, step: float) -> np.ndarray:
        """Return the correlation (y, x // 2 + 1), float32, of each coefficient with that of `step` minutes before.

        Arguments as `amplitudes`.
        """
        memory = np.interp(_logarithms(shape, km), np.log(self.km), self._at(self.memory[noise], lead_minutes))
        return (np.clip(memory, 0, MOST_CORRELATION) ** (step / self.step)).astype(np.float32)

    def at_lengths(self, km: np.ndarray) -> "Structure":
        """Return the same structure with its tables at other wavelengths (wave,), km, ascending."""

        def interpolated(table: np.ndarray) -> np.ndarray:
            return np.apply_along_axis(lambda row: np.interp(np.log(km), np.log(self.km), row), -1, table)

        return replace(self, km=km, power=interpolated(self.power), memory=interpolated(self.memory))

    def _at(self, table: np.ndarray, lead_minutes: float) -> np.ndarray:
        """Interpolate a table to one lead time, (wave,)."""
        return np.array([np.interp(lead_minutes, self.minutes, column) for column in table.T])

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values, rounded."""
        tables = {name: np.round(getattr(self, name), DIGITS).tolist() for name in TABLES}
        return tables | {name: round(float(getattr(self, name)), DIGITS) for name in NUMBERS}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Structure":
        """Return the structure of an `as_dict`. Raises KeyError, TypeError or ValueError where it is none.

        Older checkpoints tell of one noise, which is shared as a whole.
        """
        minutes, km, power, memory = (np.array(values[name], np.float64) for name in TABLES)
        if power.ndim == memory.ndim == 2:
            power, memory = (np.stack([table] * len(NOISES)) for table in (power, memory))
            values = {"shared": 1.0, **values}
        found = cls(minutes, km, power, memory, *(float(values[name]) for name in NUMBERS))
        shape = len(NOISES), len(found.minutes), len(found.km)
        ascend = all(len(axis) and (np.diff(axis) > 0).all() and axis[0] > 0 for axis in (found.minutes, found.km))
        finite = np.isfinite(found.power).all() and (np.abs(found.power) < 100).all() and (np.abs(found.memory) <= 1).all()
        fits = found.power.shape == found.memory.shape == shape and 0 <= found.shared <= 1
        if not (fits and ascend and finite and found.largest > RATES[-1]):
            raise ValueError("no structure of noise")
        return found


def of_checkpoint(metadata: Mapping[str, Any]) -> tuple[Structure | None, tuple[float, float]]:
    """Return the structure that a checkpoint holds, None if it is an older one, and the km and minutes that it was trained on.

    Raises KeyError, TypeError or ValueError where the metadata are damaged.
    """
    sizes = [math.sqrt(math.prod(size)) for size in metadata.get("spacing_km", []) if all(size)]
    scale = next(iter(sizes), USUAL_KM), metadata["time_steps"][0] / 60
    return (Structure.from_dict(metadata[KEY]) if KEY in metadata else None), scale


def periodic_shape(grid: Sequence[int]) -> tuple[int, int]:
    """Return the shape (y, x) of the periodic grid on which noise for a grid of this shape is made."""
    return tuple(fft.next_fast_len(size + PAD, real=True) for size in grid)


def weights(shape: tuple[int, int]) -> np.ndarray:
    """Return how often each coefficient (y, x // 2 + 1) counts in a sum over all, 1 or 2."""
    weight = np.full((shape[0], shape[1] // 2 + 1), 2, np.float32)
    weight[:, 0] = 1
    if shape[1] % 2 == 0:
        weight[:, -1] = 1
    return weight


def frequencies(shape: tuple[int, int]) -> np.ndarray:
    """Return the frequency (y, x // 2 + 1), waves per cell; of the mean half the lowest of the others."""
    frequency = np.hypot(fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1]))
    frequency[0, 0] = 0.5 / max(shape)
    return frequency


def wave_numbers(grid: tuple[int, int], per_octave: int = 1) -> np.ndarray:
    """Number the coefficients (y, x // 2 + 1) of a grid by wavelength: 0 from 2 cells on, up to that of the mean.

    per_octave: how many numbers a doubling of the wavelength has
    """
    return np.floor(per_octave * np.log2(0.5 / frequencies(grid)) + 0.5).clip(0).astype(int)


def _logarithms(shape: tuple[int, int], km: float) -> np.ndarray:
    """Return the logarithm of the wavelength in km (y, x // 2 + 1)."""
    return np.log(km / frequencies(shape))
