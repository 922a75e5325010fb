"""Adjust noise to the texture of a radar product: the power of rain at short wavelengths, which differs a hundredfold.

Noise measured on one radar would make the rain of another too rough or too smooth. So the power of short waves of the noise is
adjusted until a member at the first lead time has the spectrum of the newest frame, from which STEPS also takes the spectrum
of its noise (Bowler, Pierce & Seed 2006).
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import fft

from nowcast.forecasters.members.copula import Distributions
from nowcast.forecasters.members.noise import Noise, moved
from nowcast.forecasters.members.structure import NOISES, Structure, periodic_shape, wave_numbers, weights
from nowcast.motion import Places

ROUNDS = 6  # of correction
PER_OCTAVE = 2  # wavelength bins per octave
FULL_KM, NONE_KM = 8.0, 32.0  # km: shorter waves are corrected fully, longer ones not at all, those between in part
MOST_CHANGE = 8.0  # largest change of the logarithm of the power
OFFSET = np.float32(5)  # mm/h, in the logarithm of rain: of .5, 2 and 5 the one with the best spectra of rain


def with_texture(
    structure: Structure,
    newest: np.ndarray,
    first: Distributions,
    where: Places,
    seed: tuple[int, ...],
    *,
    km: float,
    minutes: float,
) -> Structure:
    """Correct the short waves of both noises of a structure, at all lead times, by the texture of the newest frame.

    newest: (y, x) mm/h, NaN missing
    first: distributions (y, x) at the first lead time
    where: positions (y, x) in the newest frame from which the rain at the first lead time comes
    seed: of the member that is compared
    km, minutes: cell size and time step
    """
    shape = periodic_shape(newest.shape)
    power = _relative_power(newest.shape, np.isfinite(newest) & ~first.missing)
    observed = power(newest)
    if not observed.any():  # a dry frame has no texture
        return structure
    lengths = km * 2.0 ** (1 + np.arange(len(observed)) / PER_OCTAVE)
    fraction = np.clip(np.log(NONE_KM / lengths) / np.log(NONE_KM / FULL_KM), 0, 1)
    noises = _first_noises(seed, shape)
    corrected = structure = structure.at_lengths(lengths)
    change, target = np.zeros(len(lengths)), None
    for _ in range(ROUNDS):
        amplitudes = [corrected.amplitudes(noise, shape, km, minutes) for noise in NOISES]
        moved_noises = (moved(noise.field(amplitude), where) for noise, amplitude in zip(noises, amplitudes, strict=True))
        drawn = power(first.rain(*moved_noises, corrected.shared))
        is_corrected = (observed > 0) & (drawn > 0) & (fraction > 0)
        if target is None:  # in a partial correction, between observed and uncorrected power
            target = np.where(is_corrected, observed**fraction * drawn ** (1 - fraction), drawn)
        change += np.log(np.divide(target, drawn, out=np.ones_like(drawn), where=is_corrected))
        change = change.clip(-MOST_CHANGE, MOST_CHANGE)
        corrected = replace(structure, power=structure.power + change)
    return corrected


def _first_noises(seed: tuple[int, ...], shape: tuple[int, int]) -> list[Noise]:
    """Return both noises of a member on a periodic grid of this shape (y, x), at the first lead time."""
    noises = [Noise((*seed, noise), shape) for noise in NOISES]
    for noise in noises:
        noise.advance(np.zeros(1, np.float32))
    return noises


def _relative_power(grid: tuple[int, int], known: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function: relative power (wave,) of the logarithm of rain (y, x), mm/h, in the cells of the mask `known`."""
    number, weight = wave_numbers(grid, PER_OCTAVE).ravel(), weights(grid).ravel()

    def power(rain: np.ndarray) -> np.ndarray:
        waves = fft.rfft2(np.log1p(np.where(known, rain, 0) / OFFSET)).ravel()
        sums = np.bincount(number[1:], (weight * (waves.real**2 + waves.imag**2))[1:], number.max() + 1)  # without the mean
        return sums / max(sums.sum(), np.finfo(np.float32).tiny)

    return power
