"""The structure of members' noise: power and temporal correlation by wavelength and lead time.

There are two noises: occurrence (where it rains) and intensity (how hard). Their structure is measured on past cases
(measure.py) and stored by kilometres and minutes, so it can be used for any grid and time step. It is interpolated between
the wavelengths and lead times of the table, and constant beyond them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import fft

from nowcast.scores.distribution import RATES

PAD = 64  # cells beyond the grid before the noise repeats itself
DEFAULT_KM, DEFAULT_MINUTES = 1.0, 5.0  # cell size and time step if unknown
MOST_CORRELATION = 0.9999
LARGEST = 150.0  # mm/h that no member exceeds, if not measured on validation cases
KEY = "members"  # of a checkpoint's metadata
DECIMALS = 3  # of numbers in the checkpoint
TABLES, NUMBERS = ("minutes", "km", "power", "memory"), ("shared", "largest")
NOISES = OCCURRENCE, INTENSITY = 0, 1  # where it rains, and how hard


@dataclass(frozen=True)
class Structure:
    """A table by lead time and wavelength for each of NOISES.

    minutes: (lead,) lead times, ascending
    km: (wave,) wavelengths, ascending
    power: (noise, lead, wave) logarithm of the power of a Fourier coefficient, up to a constant
    memory: (noise, lead, wave) correlation with the previous lead time; not used at the first one
    shared: correlation of intensity with the excess of the noise of occurrence over its threshold (copula.py), 0 to 1
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
        km: cell size
        """
        power = np.exp(np.interp(_logarithms(shape, km), np.log(self.km), self._at(self.power[noise], lead_minutes)))
        return np.sqrt(power / (power * weights(shape)).sum()).astype(np.float32)

    def correlations(self, noise: int, shape: tuple[int, int], km: float, lead_minutes: float, step: float) -> np.ndarray:
        """Return the correlation (y, x // 2 + 1), float32, of each coefficient with its value `step` minutes before.

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
        """Return the structure as JSON values, rounded to DECIMALS."""
        tables = {name: np.round(getattr(self, name), DECIMALS).tolist() for name in TABLES}
        return tables | {name: round(float(getattr(self, name)), DECIMALS) for name in NUMBERS}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Structure":
        """Return the structure from a dict of `as_dict`. Raises KeyError, TypeError or ValueError if it is invalid.

        Older checkpoints have one noise, which then decides both occurrence and intensity (`shared` is 1).
        """
        minutes, km, power, memory = (np.array(values[name], np.float64) for name in TABLES)
        if power.ndim == memory.ndim == 2:
            power, memory = (np.stack([table] * len(NOISES)) for table in (power, memory))
            values = {"shared": 1.0, **values}
        read = cls(minutes, km, power, memory, *(float(values[name]) for name in NUMBERS))
        shape = len(NOISES), len(read.minutes), len(read.km)
        ascend = all(len(axis) and (np.diff(axis) > 0).all() and axis[0] > 0 for axis in (read.minutes, read.km))
        finite = (np.abs(read.power) < 100).all() and (np.abs(read.memory) <= 1).all()
        fits = read.power.shape == read.memory.shape == shape and 0 <= read.shared <= 1
        if not (fits and ascend and finite and read.largest > RATES[-1]):
            raise ValueError("no structure of noise")
        return read


def of_checkpoint(metadata: Mapping[str, Any]) -> tuple[Structure | None, tuple[float, float]]:
    """Return the structure in a checkpoint, None in an older one, and cell size (km) and time step (minutes) of its training.

    Raises KeyError, TypeError or ValueError for damaged metadata.
    """
    sizes = [math.sqrt(math.prod(size)) for size in metadata.get("spacing_km", []) if all(size)]
    scale = next(iter(sizes), DEFAULT_KM), metadata["time_steps"][0] / 60
    return (Structure.from_dict(metadata[KEY]) if KEY in metadata else None), scale


def periodic_shape(grid: Sequence[int]) -> tuple[int, int]:
    """Return the shape (y, x) of the periodic grid on which noise for a grid of this shape is computed."""
    return tuple(fft.next_fast_len(size + PAD, real=True) for size in grid)


def weights(shape: tuple[int, int]) -> np.ndarray:
    """Return the weight, 1 or 2, of each coefficient (y, x // 2 + 1) of a real transform in a sum over all coefficients."""
    weight = np.full((shape[0], shape[1] // 2 + 1), 2, np.float32)
    weight[:, 0] = 1
    if shape[1] % 2 == 0:
        weight[:, -1] = 1
    return weight


def frequencies(shape: tuple[int, int]) -> np.ndarray:
    """Return the frequency (y, x // 2 + 1), waves per cell; for the mean, half of the lowest frequency."""
    frequency = np.hypot(fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1]))
    frequency[0, 0] = 0.5 / max(shape)
    return frequency


def wave_numbers(grid: tuple[int, int], per_octave: int = 1) -> np.ndarray:
    """Return the wavelength bin of each coefficient (y, x // 2 + 1) of a grid, from 0 (2 cells) to that of the mean.

    per_octave: number of bins per doubling of the wavelength
    """
    return np.floor(per_octave * np.log2(0.5 / frequencies(grid)) + 0.5).clip(0).astype(int)


def _logarithms(shape: tuple[int, int], km: float) -> np.ndarray:
    """Return the logarithm of the wavelength in km (y, x // 2 + 1)."""
    return np.log(km / frequencies(shape))
