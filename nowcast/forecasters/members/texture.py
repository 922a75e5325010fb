"""The radar's own texture: how rough its rain is at short wavelengths, which differs a hundredfold between radar products.

Noise that was measured on one radar would make the rain of another too rough or too smooth. So short waves of the noise are
made weaker or stronger until a member of the first lead time is as rough as the newest frame, as STEPS takes the spectrum of
the newest frame for its noise (Bowler, Pierce & Seed 2006).
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
PER_OCTAVE = 2  # wavelengths that are corrected
WHOLE, NONE = 8.0, 32.0  # km: shorter waves are corrected as a whole, longer ones not; between them in part
MOST = 8.0  # change of the logarithm of the power
OFFSET = np.float32(5)  # mm/h, of the logarithm of rain: of .5, 2 and 5 that for which the rain itself came out as rough


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
    where: places (y, x) of the newest frame that the air of the first lead time comes from
    seed: of the member that is drawn to be compared
    km, minutes: size of the cells and time step
    """
    shape = periodic_shape(newest.shape)
    power = _power_of(newest.shape, np.isfinite(newest) & ~first.missing)
    observed = power(newest)
    if not observed.any():  # a dry frame has no texture
        return structure
    lengths = km * 2.0 ** (1 + np.arange(len(observed)) / PER_OCTAVE)
    share = np.clip(np.log(NONE / lengths) / np.log(NONE / WHOLE), 0, 1)
    noises = _begun(seed, shape)
    found = structure = structure.at_lengths(lengths)
    change, target = np.zeros(len(lengths)), None
    for _ in range(ROUNDS):
        amplitudes = [found.amplitudes(noise, shape, km, minutes) for noise in NOISES]
        here = (moved(noise.field(amplitude), where) for noise, amplitude in zip(noises, amplitudes, strict=True))
        drawn = power(first.rain(*here, found.shared))
        told = (observed > 0) & (drawn > 0) & (share > 0)
        if target is None:  # where it is corrected in part, lies between the observed and what is not corrected
            target = np.where(told, observed**share * drawn ** (1 - share), drawn)
        change += np.log(np.divide(target, drawn, out=np.ones_like(drawn), where=told))
        change = change.clip(-MOST, MOST)
        found = replace(structure, power=structure.power + change)
    return found


def _begun(seed: tuple[int, ...], shape: tuple[int, int]) -> list[Noise]:
    """Return both noises of a member on a periodic grid of this shape (y, x), at the first lead time."""
    noises = [Noise((*seed, noise), shape) for noise in NOISES]
    for noise in noises:
        noise.advance(np.zeros(1, np.float32))
    return noises


def _power_of(grid: tuple[int, int], known: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return what finds the shares (wave,) of the power of the logarithm of rain (y, x), mm/h, where it is known (y, x)."""
    number, weight = wave_numbers(grid, PER_OCTAVE).ravel(), weights(grid).ravel()

    def power(rain: np.ndarray) -> np.ndarray:
        waves = fft.rfft2(np.log1p(np.where(known, rain, 0) / OFFSET)).ravel()
        found = np.bincount(number[1:], (weight * (waves.real**2 + waves.imag**2))[1:], number.max() + 1)  # without the mean
        return found / max(found.sum(), np.finfo(np.float32).tiny)

    return power
