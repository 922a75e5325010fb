"""Measure the structure of the noise on cases whose outcome is known.

What was observed is turned through the forecaster's own distributions into the noise that would have given it, and so are
members. Where the waves of the one are stronger than those of the other, or last longer, the structure is corrected, and
members are drawn anew. Dry cells hide most of their noise, of both alike, which is why members are measured beside.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft

from nowcast.forecasters.members.copula import Distributions
from nowcast.forecasters.members.draw import drawn
from nowcast.forecasters.members.structure import Structure, frequencies, weights
from nowcast.motion import motion, trace

ROUNDS, MEMBERS = 6, 2  # of correction, and members of each case in a round
STEP = 0.8  # share of a difference that a round corrects
SMOOTH = (0.25, 0.5, 0.25)  # weights of a lead time and its neighbours in a correction
MOST_POWER = 20.0  # range of the logarithm of the power
CORRELATIONS = (-0.5, 0.998)  # that are measured for so much at least, and at most
STATES = (0.0, 4.0)  # inverse hyperbolic tangent of the correlation of the noise
LEAST_LARGEST = 60.0  # mm/h: at least so much rain is possible, even where none was observed
FIRST_SLOPE, FIRST_MEMORY = 2.5, 0.83  # of the power with wavelength, and the correlation, before the first round


@dataclass(frozen=True)
class Case:
    """A forecast and what came.

    past: (time, y, x) mm/h, NaN missing
    observed: (lead, y, x) mm/h, NaN missing
    exceedance: (lead, rate, y, x) chances of RATES
    """

    past: np.ndarray
    observed: np.ndarray
    exceedance: np.ndarray


@dataclass
class Waves:
    """Sums over cases: power of the noise (lead, wave), and its product with that of the lead time before (lead - 1, wave)."""

    power: np.ndarray
    product: np.ndarray

    def correlation(self) -> np.ndarray:
        """Return the correlation (lead - 1, wave) of lead times with those before."""
        scale = np.sqrt(self.power[:-1] * self.power[1:])
        return np.divide(self.product, scale, out=np.zeros_like(scale), where=scale > 0).clip(*CORRELATIONS)


def wave_numbers(grid: tuple[int, int]) -> np.ndarray:
    """Number the coefficients (y, x // 2 + 1) of a grid by octave of wavelength: 0 from 2 cells on, up to that of the mean."""
    return np.floor(np.log2(1 / frequencies(grid)) + 0.5).clip(1).astype(int) - 1


def measure(
    cases: Callable[[], Iterator[Case]],
    grid: tuple[int, int],
    num_leads: int,
    *,
    km: float,
    minutes: float,
    rounds: int = ROUNDS,
) -> Structure:
    """Measure the structure on cases of one grid (y, x), whose iterator is opened once for each round.

    km, minutes: size of the cells and time step
    """
    number = wave_numbers(grid)
    num_waves = int(number.max()) + 1
    lengths = km * 2.0 ** (1 + np.arange(num_waves))
    found = Structure(
        minutes * np.arange(1, num_leads + 1),
        lengths,
        np.tile(FIRST_SLOPE * np.log(lengths), (num_leads, 1)),
        np.full((num_leads, num_waves), FIRST_MEMORY),
    )
    seen = max((float(np.nan_to_num(case.observed).max()) for case in cases()), default=0)
    found = replace(found, largest=max(seen, LEAST_LARGEST))
    for _ in range(rounds):
        sums = [Waves(np.zeros((num_leads, num_waves)), np.zeros((num_leads - 1, num_waves))) for _ in range(2)]
        for seed, case in enumerate(cases()):
            _add(case, seed, found, number, sums, km=km, minutes=minutes)
        found = corrected(found, *sums)
    return found


def _add(
    case: Case, seed: int, structure: Structure, number: np.ndarray, sums: Sequence[Waves], *, km: float, minutes: float
) -> None:
    """Add the waves of what was observed in a case, and those of members, to two sums."""
    observed, found = ([], [[] for _ in range(MEMBERS)])
    distributions = [Distributions(chances, largest=structure.largest) for chances in case.exceedance]
    places = trace(motion(case.past), len(distributions))
    seeds = [(seed, member) for member in range(MEMBERS)]
    fields = drawn(distributions, places, seeds, structure, km=km, minutes=minutes)
    for of_lead, of_members, came in zip(distributions, fields, case.observed, strict=True):
        observed.append(of_lead.noise(came))
        for own, member in zip(found, of_members, strict=True):
            own.append(of_lead.noise(np.where(np.isnan(came), np.nan, member)))
    _add_waves(sums[0], observed, number, 1)
    for own in found:
        _add_waves(sums[1], own, number, MEMBERS)


def _add_waves(sums: Waves, noise: Sequence[np.ndarray], number: np.ndarray, parts: int) -> None:
    """Add the waves of noise (lead, y, x), divided by the number of parts that are added."""
    weight = (weights(noise[0].shape) / parts).ravel()
    before = None
    for lead, field in enumerate(noise):
        waves = fft.rfft2(field)
        sums.power[lead] += np.bincount(number.ravel(), weight * (waves.real**2 + waves.imag**2).ravel(), sums.power.shape[1])
        if before is not None:
            both = (waves * before.conj()).real.ravel()
            sums.product[lead - 1] += np.bincount(number.ravel(), weight * both, sums.power.shape[1])
        before = waves


def corrected(structure: Structure, observed: Waves, found: Waves) -> Structure:
    """Correct a structure by the waves of what was observed and of the members that were drawn with it."""
    told = (observed.power > 0) & (found.power > 0)
    lack = np.log(np.divide(observed.power, found.power, out=np.ones_like(found.power), where=told))
    power = structure.power + STEP * _smoothed(lack)
    power = np.clip(power - power.max(axis=1, keepdims=True), -MOST_POWER, 0)
    state = np.arctanh(np.minimum(structure.memory, np.tanh(STATES[1])))
    if len(state) > 1:
        state[1:] += STEP * _smoothed(np.arctanh(observed.correlation()) - np.arctanh(found.correlation()))
        state[0] = state[1]
    return replace(structure, power=power, memory=np.tanh(state.clip(*STATES)))


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Smooth (lead, wave) over lead times."""
    padded = np.pad(values, ((1, 1), (0, 0)), mode="edge")
    return sum(weight * padded[n : n + len(values)] for n, weight in enumerate(SMOOTH))
