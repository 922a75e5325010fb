"""The structure of the rain in space and time: the power of each band of wavelength, and how long it lasts.

Both are measured on the logarithm of the past frames in the coordinates that move with the rain. How long a band lasts is
continued by a second-order autoregression, as in STEPS: Bowler, Pierce & Seed (2006), Q. J. R. Meteorol. Soc. 132, 2127-2155,
doi 10.1256/qj.04.100.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import fft

FLOOR = 0.1  # mm/h: less is dry
PAD = 64  # cells beyond the grid before the noise repeats itself
BANDS_PER_OCTAVE = 2
USUAL_SLOPE = -2.2  # power of a Fourier coefficient of the logarithm of rain falls as frequency to this, where no rain tells
MOST_CORRELATION = 0.9995
LONGEST, SHORTEST = 0.995, 0.2  # correlation of a time step that the longest and the shortest waves have, where nothing tells


@dataclass(frozen=True)
class Bands:
    """Bands of wavelength of a grid that repeats itself.

    shape: (y, x) of the periodic grid
    number: (y, x // 2 + 1) index of the band of each Fourier coefficient, from the longest waves on
    weight: (y, x // 2 + 1) how often the coefficient counts in a sum over all, 1 or 2; 0 for the mean
    """

    shape: tuple[int, int]
    number: np.ndarray
    weight: np.ndarray

    @cached_property
    def count(self) -> int:
        """Return the number of bands."""
        return int(self.number.max()) + 1

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum real values of the coefficients (y, x // 2 + 1) by band (band,)."""
        return np.bincount(self.number.ravel(), (self.weight * values).ravel(), self.count)

    def power(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the power (band,) of complex coefficients (y, x // 2 + 1)."""
        return self.sums(coefficients.real**2 + coefficients.imag**2)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Return the number of coefficients of each band (band,)."""
        return self.sums(np.ones(self.number.shape))


def periodic_shape(grid: tuple[int, int]) -> tuple[int, int]:
    """Return the shape (y, x) of the periodic grid on which noise for a grid of this shape is made."""
    return tuple(fft.next_fast_len(size + PAD, real=True) for size in grid)


def bands_of(shape: tuple[int, int]) -> Bands:
    """Divide the Fourier coefficients of a periodic grid (y, x) into bands, BANDS_PER_OCTAVE to an octave."""
    frequency = np.hypot(fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1]))  # waves per cell, up to 0.7
    weight = np.full(frequency.shape, 2, np.float32)
    weight[:, 0] = 1
    if shape[1] % 2 == 0:
        weight[:, -1] = 1
    weight[0, 0] = 0
    octave = np.log2(np.maximum(frequency, 1 / max(shape)) * max(shape))
    return Bands(shape, np.rint(BANDS_PER_OCTAVE * octave).astype(np.int32), weight)


@dataclass(frozen=True)
class Structure:
    """Power and duration of the bands of rain.

    power: (band,) share of the variance of the logarithm of the newest frame
    rain_power: (band,) share of the variance of the newest frame, mm/h; zeros where it is dry
    weights: (2, band) of the newest and of the second newest field in the autoregression
    innovation: (band,) standard deviation of what comes anew with each time step, for a band of variance 1
    """

    bands: Bands
    power: np.ndarray
    rain_power: np.ndarray
    weights: np.ndarray
    innovation: np.ndarray

    def spread(self, num_leads: int) -> np.ndarray:
        """Return the standard deviation (lead, band) of what is new since the reference time, for bands of variance 1."""
        newest, before = np.ones(len(self.innovation)), np.zeros(len(self.innovation))  # responses to one innovation
        total, out = np.zeros(len(self.innovation)), []
        for _ in range(num_leads):
            total = total + newest**2
            out.append(self.innovation * np.sqrt(total))
            newest, before = self.weights[0] * newest + self.weights[1] * before, newest
        return np.array(out)


def structure(still: np.ndarray) -> Structure:
    """Measure the structure of rain.

    still: (time, y, x) mm/h, the newest frame last, in the coordinates that move with the rain; NaN missing
    """
    bands = bands_of(periodic_shape(still.shape[1:]))
    spectra = [coefficients(logarithm(frame), bands.shape) for frame in still]
    power = bands.power(spectra[-1])
    if not power.sum() > 0:
        power = bands.sizes * 2.0 ** (np.arange(bands.count) / BANDS_PER_OCTAVE * USUAL_SLOPE)
    first, second = (_correlation(spectra, bands, lag) for lag in (1, 2))
    weights, innovation = autoregression(_told(first, bands), second)
    return Structure(bands, power / power.sum(), rain_power(still[-1], bands), weights, innovation)


def logarithm(rain: np.ndarray) -> np.ndarray:
    """Return ln(rain / FLOOR), rain in mm/h of any shape, 0 where it is less; NaN stays NaN."""
    return np.log(np.maximum(rain, np.float32(FLOOR)) / np.float32(FLOOR))


def rain_power(rain: np.ndarray, bands: Bands) -> np.ndarray:
    """Return the share (band,) of each band in the variance of rain (y, x), mm/h, NaN missing; zeros where it is uniform."""
    power = bands.power(coefficients(rain, bands.shape))
    return power / max(power.sum(), 1e-30)


def coefficients(field: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the Fourier coefficients of a field (y, x) less its mean; what is missing (NaN) has the mean."""
    known = ~np.isnan(field)
    padded = np.zeros(shape, np.float32)
    if known.any():
        padded[: field.shape[0], : field.shape[1]] = np.where(known, field - field[known].mean(), 0)
    return fft.rfft2(padded)


def _correlation(spectra: Sequence[np.ndarray], bands: Bands, lag: int) -> np.ndarray | None:
    """Return the correlation (band,) of frames `lag` time steps apart; None if there are too few, NaN where it is unknown."""
    if len(spectra) <= lag:
        return None
    both, square = np.zeros(bands.count), np.zeros(bands.count)
    for earlier, later in zip(spectra[:-lag], spectra[lag:], strict=True):
        both += bands.sums((earlier * later.conj()).real)
        square += np.sqrt(bands.power(earlier) * bands.power(later))
    return np.divide(both, square, out=np.full(bands.count, np.nan), where=square > 0)


def _told(first: np.ndarray | None, bands: Bands) -> np.ndarray:
    """Return correlations (band,) of one time step, with usual ones where the rain tells none."""
    usual = 1 - np.geomspace(1 - LONGEST, 1 - SHORTEST, bands.count)
    return usual if first is None else np.where(np.isnan(first), usual, first)


def autoregression(first: np.ndarray, second: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Solve the Yule–Walker equations of the autoregression of each band.

    first, second: (band,) correlations of fields one and two time steps apart; without the second it is of first order
    returns: weights (2, band) of the newest field and of the one before, and the standard deviation of the innovation (band,)

    The second correlation is raised or lowered to where such a process exists and does not oscillate.
    """
    first = np.clip(first, 0.0, MOST_CORRELATION)
    square = first**2
    second = square if second is None else np.where(np.isnan(second), square, second)
    real = (3 * square - 2 + 2 * (1 - square) ** 1.5) / np.maximum(square, 1e-6)
    second = np.clip(np.maximum(second, np.maximum(2 * square - 1, real)), None, MOST_CORRELATION)
    weights = np.stack([first * (1 - second) / (1 - square), (second - square) / (1 - square)])
    return weights, np.sqrt(np.maximum(1 - weights[0] * first - weights[1] * second, 1e-6))
