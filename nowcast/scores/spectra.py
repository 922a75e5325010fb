"""Power by wavelength of forecast and observed fields: how much of the observed detail a forecast keeps.

Power is added over all directions and over bands of half an octave, which are the same in kilometres on every grid, so that
cases of several grids add. Fields are known only in places: each side loses its own mean, and both are multiplied by one
weight that falls to 0 towards whatever is not a pair, the edge of the grid included.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import cv2
import numpy as np
from scipy import fft

from nowcast.scores.sums import Additive, ratio, summed

# the middles of the bands, powers of the root of 2: band n reaches a quarter of an octave to both sides of 2^(n/2) km
WAVELENGTHS_KM = (1.0, 1.41, 2.0, 2.83, 4.0, 5.66, 8.0, 11.3, 16.0, 22.6, 32.0, 45.3, 64.0, 90.5, 128.0, 181.0, 256.0)
TAPER = 0.1  # of the grid's shorter side: how far from what is unknown the weight reaches 1
CONSTANT = 1e-24  # variance / mean^2 of the rounding of a constant: float32 data cannot vary by less
KEPT_POWER = 0.5  # share of the observed power below which a scale counts as lost


@dataclass(frozen=True, eq=False)
class SpectrumSums(Additive):
    """Power of both sides by wavelength, (mm/h)^2. `num_pairs` counts the pairs of pixels that have a weight."""

    axis_facts: ClassVar[Mapping[str, str]] = {"wavelength": "wavelengths_km"}

    wavelengths_km: tuple[float, ...]
    num_cases: np.ndarray = field(metadata=summed("lead", dtype=np.int64))
    num_whole_cases: np.ndarray = field(metadata=summed(dtype=np.int64))
    num_pairs: np.ndarray = field(metadata=summed("lead", dtype=np.int64))
    power_f: np.ndarray = field(metadata=summed("lead", "wavelength"))
    power_o: np.ndarray = field(metadata=summed("lead", "wavelength"))


def add_spectra(
    totals: Sequence[SpectrumSums],
    lead: int,
    forecasts: Sequence[np.ndarray],
    observed: np.ndarray,
    known: np.ndarray,
    spacing_km: tuple[float, float],
) -> None:
    """Fill in one lead of one case, for several forecasts (y, x) of the same observed (y, x); `known` is their mask.

    Nothing is filled in where the grid's spacing is unknown (NaN).
    """
    if not np.isfinite(spacing_km).all() or not known.any():
        return
    weight = taper(known)
    power_o = band_power(observed, weight, spacing_km)
    for total, forecast in zip(totals, forecasts, strict=True):
        total.num_cases[lead], total.num_pairs[lead] = 1, np.count_nonzero(known)
        total.power_o[lead], total.power_f[lead] = power_o, band_power(forecast, weight, spacing_km)


def taper(known: np.ndarray) -> np.ndarray:
    """(y, x) weights: 0 where unknown, rising as sin^2 to 1 over TAPER of the shorter side."""
    inside = np.pad(known.astype(np.uint8), 1)  # beyond the grid nothing is known
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    reach = 1 + TAPER * min(known.shape)
    # the square is a whole number: rounded, as its float32 root differs with the number of threads
    squared = np.rint(np.square(np.minimum(distance, reach + 1))).astype(np.int32)
    return np.sin(np.pi / 2 * np.minimum(np.sqrt(np.arange(squared.max() + 1)) / reach, 1))[squared] ** 2


def band_power(field: np.ndarray, weight: np.ndarray, spacing_km: tuple[float, float]) -> np.ndarray:
    """Variance of the weighted field in each band of WAVELENGTHS_KM; it is not looked at where the weight is 0."""
    values = np.where(weight > 0, field, 0) * weight
    mean, energy = values.sum() / weight.sum(), np.square(weight).sum()
    values -= mean * weight
    spectrum = fft.rfft2(values, overwrite_x=True)
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    bands, times = _bands(field.shape, spacing_km)
    power *= times
    if power.sum() <= CONSTANT * energy * mean**2 * field.size:
        return np.zeros(len(WAVELENGTHS_KM))
    by_band = np.bincount(bands, power.ravel(), minlength=len(WAVELENGTHS_KM) + 1)[:-1]
    return by_band / (field.size * energy)


@functools.lru_cache(maxsize=4)
def _bands(shape: tuple[int, int], spacing_km: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """For each coefficient of a real transform the number of its band (the last: none); by column how often it counts.

    Waves shorter than two cells of the wider spacing run in some directions only, and are in no band.
    """
    frequency_y, frequency_x = fft.fftfreq(shape[0], spacing_km[0]), fft.rfftfreq(shape[1], spacing_km[1])
    frequency = np.hypot(frequency_y[:, None], frequency_x)  # waves per km
    none = len(WAVELENGTHS_KM)
    band = np.rint(-2 * np.log2(frequency, where=frequency > 0, out=np.full_like(frequency, np.inf)))
    outside = (frequency == 0) | (frequency > (1 + 1e-9) / (2 * max(spacing_km))) | (band < 0) | (band >= none)
    times = np.full(len(frequency_x), 2.0)  # the other half of the plane is its mirror image
    times[0] = 1
    if shape[1] % 2 == 0:
        times[-1] = 1
    return np.where(outside, none, band).astype(np.int64).ravel(), times


def spectrum_ratio(s: SpectrumSums) -> np.ndarray:
    """Forecast power / observed power at each wavelength. Range 0 to infinity, best 1.

    Below 1 the forecast is smoother than the weather, above 1 rougher; where things are does not matter. Also: ratio of
    radially averaged power spectra (RAPSD). NaN where nothing was observed or the grid has no such wavelength. Harris et al.
    (2001).
    """
    return ratio(s.power_f, s.power_o)


def effective_resolution(s: SpectrumSums) -> np.ndarray:
    """The wavelength, km, below which less than half of the observed power is forecast. Range 0 to infinity, best small.

    Bands are gone through from long to short up to the first that keeps less than KEPT_POWER, and the wavelength is
    interpolated between it and the one before. Where all keep it: the shortest wavelength of the grid; where not even the
    longest does: the longest. NaN where nothing was observed. After Skamarock (2004).
    """
    kept = spectrum_ratio(s)[..., ::-1]
    octaves = np.log2(np.array(s.wavelengths_km[::-1], np.float64))
    known, lost = ~np.isnan(kept), kept < KEPT_POWER
    position = np.arange(len(octaves))
    last = np.where(known, position, -1).max(axis=-1)
    first_lost = np.where(lost.any(axis=-1), lost.argmax(axis=-1), last)
    before = np.where(known & (position < first_lost[..., None]), position, -1).max(axis=-1)
    before = np.where(lost.any(axis=-1) & (before >= 0), before, first_lost)
    high, low = (np.take_along_axis(kept, at[..., None], axis=-1)[..., 0] for at in (before, first_lost))
    part = ratio(high - KEPT_POWER, np.where(before == first_lost, 0, high - low))
    found = octaves[before] + np.where(np.isnan(part), 0, part) * (octaves[first_lost] - octaves[before])
    return np.where(last < 0, np.nan, np.exp2(found))
