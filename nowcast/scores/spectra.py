"""Scores from power spectra: how much of the observed small-scale detail a forecast keeps.

Power is summed over all directions and over bands of wavelength half an octave wide. The bands are the same in kilometres on
every grid, so that cases on different grids add. Fields have missing pixels: the mean of each field is subtracted, and both
fields are multiplied by the same taper, a weight that falls to 0 towards missing pixels and the edge of the grid.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import cv2
import numpy as np
from scipy import fft

from nowcast.scores.sums import Additive, ratio, summed

# centres of the bands, km: 2^(n/2), rounded; each band reaches a quarter of an octave to both sides of its centre
WAVELENGTHS_KM = (1.0, 1.41, 2.0, 2.83, 4.0, 5.66, 8.0, 11.3, 16.0, 22.6, 32.0, 45.3, 64.0, 90.5, 128.0, 181.0, 256.0)
TAPER = 0.1  # fraction of the grid's shorter side: the distance to a missing pixel at which the weight reaches 1
CONSTANT = 1e-24  # variance / mean^2 up to which a field is constant but for rounding: float32 data cannot vary by less
MEMBERS_WITH_SPECTRA = 4  # of an ensemble: the others are drawn alike, and a spectrum takes as long as all other scores
KEPT_POWER = 0.5  # forecast / observed power below which a wavelength counts as lost


@dataclass(frozen=True, eq=False)
class SpectrumSums(Additive):
    """Sums of the power of forecast (f) and observation (o) by wavelength, (mm/h)^2. `num_pairs` counts pairs of pixels."""

    axis_parameters: ClassVar[Mapping[str, str]] = {"wavelength": "wavelengths_km"}

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
    """Fill in one lead time of one case, for several forecasts of the same observed field.

    totals: the sums to fill in, one for each forecast
    forecasts: fields (y, x) mm/h
    observed: (y, x) mm/h
    known: (y, x) bool, where pairs count
    spacing_km: (y, x) distance between cells

    The sums stay zero if the grid's spacing is unknown (NaN).
    """
    if not np.isfinite(spacing_km).all() or not known.any():
        return
    weight = taper(known)
    power_o = band_power(observed, weight, spacing_km)
    for total, forecast in zip(totals, forecasts, strict=True):
        total.num_cases[lead], total.num_pairs[lead] = 1, np.count_nonzero(known)
        total.power_o[lead], total.power_f[lead] = power_o, band_power(forecast, weight, spacing_km)


def add_member_spectra(
    total: SpectrumSums,
    lead: int,
    members: np.ndarray,
    observed: np.ndarray,
    known: np.ndarray,
    spacing_km: tuple[float, float],
) -> None:
    """Fill in one lead time of one case with the mean power of the first MEMBERS_WITH_SPECTRA members (member, y, x), mm/h."""
    if not np.isfinite(spacing_km).all() or not known.any():
        return
    weight = taper(known)
    total.num_cases[lead], total.num_pairs[lead] = 1, np.count_nonzero(known)
    total.num_whole_cases[...] = 1
    total.power_o[lead] = band_power(observed, weight, spacing_km)
    total.power_f[lead] = np.mean([band_power(each, weight, spacing_km) for each in members[:MEMBERS_WITH_SPECTRA]], axis=0)


def taper(known: np.ndarray) -> np.ndarray:
    """Return weights (y, x): 0 at missing pixels, rising as sin^2 to 1 over TAPER of the grid's shorter side."""
    inside = np.pad(known.astype(np.uint8), 1)  # outside the grid everything is missing
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    reach = 1 + TAPER * min(known.shape)
    # squared distances are whole numbers; rounding removes differences of float32 that depend on the number of threads
    squared = np.rint(np.square(np.minimum(distance, reach + 1))).astype(np.int32)
    return np.sin(np.pi / 2 * np.minimum(np.sqrt(np.arange(squared.max() + 1)) / reach, 1))[squared] ** 2


def band_power(field: np.ndarray, weight: np.ndarray, spacing_km: tuple[float, float]) -> np.ndarray:
    """Compute the power (variance) of a field in each band of WAVELENGTHS_KM.

    field: (y, x) mm/h, may be NaN where the weight is 0
    weight: (y, x) 0 to 1, from `taper`
    spacing_km: (y, x) distance between cells
    returns: (wavelength,) (mm/h)^2
    """
    values = np.where(weight > 0, field, 0) * weight
    mean, energy = values.sum() / weight.sum(), np.square(weight).sum()
    values -= mean * weight
    spectrum = fft.rfft2(values, overwrite_x=True)
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    bands, multiplicity = _bands(field.shape, spacing_km)
    power *= multiplicity
    if power.sum() <= CONSTANT * energy * mean**2 * field.size:
        return np.zeros(len(WAVELENGTHS_KM))
    by_band = np.bincount(bands, power.ravel(), minlength=len(WAVELENGTHS_KM) + 1)[:-1]
    return by_band / (field.size * energy)


@functools.lru_cache(maxsize=4)
def _bands(shape: tuple[int, int], spacing_km: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the band of each coefficient of a real Fourier transform, and how often the coefficients of a column count.

    returns: (y * (x // 2 + 1),) index into WAVELENGTHS_KM, len(WAVELENGTHS_KM) for no band
    returns: (x // 2 + 1,) 1 or 2

    Wavelengths shorter than two cells of the wider spacing exist in some directions only and are in no band.
    """
    frequency_y, frequency_x = fft.fftfreq(shape[0], spacing_km[0]), fft.rfftfreq(shape[1], spacing_km[1])
    frequency = np.hypot(frequency_y[:, None], frequency_x)  # waves per km
    none = len(WAVELENGTHS_KM)
    band = np.rint(-2 * np.log2(frequency, where=frequency > 0, out=np.full_like(frequency, np.inf)))
    outside = (frequency == 0) | (frequency > (1 + 1e-9) / (2 * max(spacing_km))) | (band < 0) | (band >= none)
    multiplicity = np.full(len(frequency_x), 2.0)  # a real transform leaves out the mirror image of these coefficients
    multiplicity[0] = 1
    if shape[1] % 2 == 0:
        multiplicity[-1] = 1
    return np.where(outside, none, band).astype(np.int64).ravel(), multiplicity


def spectrum_ratio(s: SpectrumSums) -> np.ndarray:
    """Compute forecast power / observed power (lead, wavelength) at each wavelength. Range 0 to infinity, best 1.

    Below 1 the forecast is smoother than the observation, above 1 rougher. Displacement does not change it. Also called: ratio
    of radially averaged power spectra (RAPSD). NaN where the observed power is 0 or the grid does not resolve the wavelength.
    Harris et al. (2001).
    """
    return ratio(s.power_f, s.power_o)


def effective_resolution(s: SpectrumSums) -> np.ndarray:
    """Compute the effective resolution (lead,), km: below this wavelength less than half of the observed power is forecast.

    Range 0 to infinity, smaller is better but no value is best. It lies between the shortest band with a ratio of power of at
    least KEPT_POWER and the next shorter one, interpolated: a longer wave that is weak by chance, while shorter ones are not,
    is no lack of detail. If the shortest band keeps enough power: its wavelength. If no band does: the longest. NaN where the
    observed power is 0. After Skamarock (2004).
    """
    kept = spectrum_ratio(s)[..., ::-1]
    octaves = np.log2(np.array(s.wavelengths_km[::-1], np.float64))
    known, position = ~np.isnan(kept), np.arange(len(octaves))
    none = len(octaves)
    first = np.where(known, position, none).min(axis=-1)
    resolved = np.where(kept >= KEPT_POWER, position, -1).max(axis=-1)
    following = np.where(known & (position > resolved[..., None]), position, none).min(axis=-1)
    before = np.minimum(np.where(resolved < 0, first, resolved), none - 1)  # the longest where none keeps enough
    after = np.where((resolved < 0) | (following == none), before, following)
    high, low = (np.take_along_axis(kept, at[..., None], axis=-1)[..., 0] for at in (before, after))
    fraction = ratio(high - KEPT_POWER, np.where(before == after, 0, high - low))
    crossing = octaves[before] + np.where(np.isnan(fraction), 0, fraction) * (octaves[after] - octaves[before])
    return np.where(first == none, np.nan, np.exp2(crossing))
