"""Measure the structure of the noise on cases whose outcome is known.

What was observed is turned through the forecaster's own distributions into the two noises that would have given it, and so are
members. Where the waves of the one are stronger than those of the other, or last longer, the structure is corrected, and
members are drawn anew. Dry cells hide their noise, of both alike, which is why members are measured beside. How strong the
waves of the noise of intensity are is told by the rain itself: by how far its logarithm lies from what the forecaster expects,
so that sums over areas spread as they err.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft

from nowcast.forecasters.members.copula import Distributions
from nowcast.forecasters.members.draw import drawn
from nowcast.forecasters.members.structure import INTENSITY, NOISES, OCCURRENCE, Structure, wave_numbers, weights
from nowcast.motion import motion, trace

ROUNDS, MEMBERS = 6, 2  # of correction, and members of each case in a round
STEP = 0.8  # share of a difference that a round corrects
SMOOTH = (0.25, 0.5, 0.25)  # weights of a lead time and its neighbours in a correction
MOST_POWER = 20.0  # range of the logarithm of the power
CORRELATIONS = (-0.5, 0.998)  # that are measured for so much at least, and at most
STATES = (0.0, 4.0)  # inverse hyperbolic tangent of the correlation of the noise
LEAST_LARGEST = 60.0  # mm/h: at least so much rain is possible, even where none was observed
FIRST_SLOPE, FIRST_MEMORY = 2.5, 0.83  # of the power with wavelength, and the correlation, before the first round
SHARED = 0.5  # of the intensity with the first noise: .7 and .85 were no better on validation days (scripts/skill/members.md)
SURPRISE = len(NOISES)
FIELDS = *NOISES, SURPRISE  # whose waves are measured
OFFSET = 0.5  # mm/h, of the logarithm of rain, as in the transform of networks


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
    """Sums over cases: power of a field (lead, wave), and its product with that of the lead time before (lead - 1, wave)."""

    power: np.ndarray
    product: np.ndarray

    @classmethod
    def zeros(cls, num_leads: int, num_waves: int) -> "Waves":
        return cls(np.zeros((num_leads, num_waves)), np.zeros((num_leads - 1, num_waves)))

    def correlation(self) -> np.ndarray:
        """Return the correlation (lead - 1, wave) of lead times with those before."""
        scale = np.sqrt(self.power[:-1] * self.power[1:])
        return np.divide(self.product, scale, out=np.zeros_like(scale), where=scale > 0).clip(*CORRELATIONS)


def measure(
    cases: Callable[[], Iterator[Case]],
    grid: tuple[int, int],
    num_leads: int,
    *,
    km: float,
    minutes: float,
    rounds: int = ROUNDS,
) -> Structure:
    """Measure the structure on cases of one grid (y, x), whose iterator is opened again for each round.

    km, minutes: size of the cells and time step
    """
    number = wave_numbers(grid)
    num_waves = int(number.max()) + 1
    lengths = km * 2.0 ** (1 + np.arange(num_waves))
    found = Structure(
        minutes * np.arange(1, num_leads + 1),
        lengths,
        np.tile(FIRST_SLOPE * np.log(lengths), (len(NOISES), num_leads, 1)),
        np.full((len(NOISES), num_leads, num_waves), FIRST_MEMORY),
        SHARED,
    )
    seen = max((float(np.nan_to_num(case.observed).max()) for case in cases()), default=0)
    found = replace(found, largest=max(seen, LEAST_LARGEST))
    observed = [Waves.zeros(num_leads, num_waves) for _ in FIELDS]
    for case in cases():
        _add_observed(observed, case, number, found.largest)
    for _ in range(rounds):
        members = [Waves.zeros(num_leads, num_waves) for _ in FIELDS]
        for seed, case in enumerate(cases()):
            _add_members(members, case, number, seed, found, km=km, minutes=minutes)
        found = corrected(found, observed, members)
    return found


def _add_observed(sums: Sequence[Waves], case: Case, number: np.ndarray, largest: float) -> None:
    """Add the waves of what was observed in a case to the sums of each of FIELDS."""
    distributions = (Distributions(chances, largest=largest) for chances in case.exceedance)
    leads = [
        _fields(of_lead, of_lead.expected(_logarithm), rain) for of_lead, rain in zip(distributions, case.observed, strict=True)
    ]
    for waves, fields in zip(sums, zip(*leads, strict=True), strict=True):
        _add_waves(waves, fields, number, 1)


def _add_members(
    sums: Sequence[Waves], case: Case, number: np.ndarray, seed: int, structure: Structure, *, km: float, minutes: float
) -> None:
    """Add the waves of members of a case, where it was observed, to the sums of each of FIELDS."""
    distributions = [Distributions(chances, largest=structure.largest) for chances in case.exceedance]
    places = trace(motion(case.past), len(distributions))
    seeds = [(seed, member) for member in range(MEMBERS)]
    found: list[list[tuple[np.ndarray, ...]]] = [[] for _ in seeds]
    leads = drawn(distributions, places, seeds, structure, km=km, minutes=minutes)
    for of_lead, members, observed in zip(distributions, leads, case.observed, strict=True):
        expected = of_lead.expected(_logarithm)
        for own, member in zip(found, members, strict=True):
            own.append(_fields(of_lead, expected, np.where(np.isnan(observed), np.nan, member)))
    for own in found:
        for waves, fields in zip(sums, zip(*own, strict=True), strict=True):
            _add_waves(waves, fields, number, MEMBERS)


def _fields(distributions: Distributions, expected: np.ndarray, rain: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return FIELDS (y, x) of rain (y, x), mm/h: the noises that give it, and its logarithm less the expected one (y, x)."""
    return *distributions.noise(rain), np.nan_to_num(_logarithm(rain) - expected, nan=0.0)


def _logarithm(rain: np.ndarray) -> np.ndarray:
    return np.log1p(rain / np.float32(OFFSET))


def _add_waves(sums: Waves, fields: Sequence[np.ndarray], number: np.ndarray, parts: int) -> None:
    """Add the waves of fields (lead, y, x), divided by the number of parts that are added."""
    weight = (weights(fields[0].shape) / parts).ravel()
    before = None
    for lead, field in enumerate(fields):
        waves = fft.rfft2(field)
        sums.power[lead] += np.bincount(number.ravel(), weight * (waves.real**2 + waves.imag**2).ravel(), sums.power.shape[1])
        if before is not None:
            both = (waves * before.conj()).real.ravel()
            sums.product[lead - 1] += np.bincount(number.ravel(), weight * both, sums.power.shape[1])
        before = waves


def corrected(structure: Structure, observed: Sequence[Waves], members: Sequence[Waves]) -> Structure:
    """Correct a structure by the waves, of each of FIELDS, of what was observed and of the members that were drawn with it."""
    told_by = {OCCURRENCE: OCCURRENCE, INTENSITY: SURPRISE}  # the field that tells how strong the waves of a noise are
    power, memory = [], []
    for noise in NOISES:
        lack = _lack(observed[told_by[noise]], members[told_by[noise]])
        power.append(_stronger(structure.power[noise], lack))
        memory.append(_lasting(structure.memory[noise], observed[noise], members[noise]))
    return replace(structure, power=np.stack(power), memory=np.stack(memory))


def _lack(observed: Waves, members: Waves) -> np.ndarray:
    """Return the logarithm of the power observed ÷ that of members (lead, wave); 0 where one of them has none."""
    told = (observed.power > 0) & (members.power > 0)
    return np.log(np.divide(observed.power, members.power, out=np.ones_like(members.power), where=told))


def _stronger(power: np.ndarray, lack: np.ndarray) -> np.ndarray:
    """Return the logarithm of the power (lead, wave) of a noise, corrected by what it lacks."""
    power = power + STEP * _smoothed(lack)
    return np.clip(power - power.max(axis=1, keepdims=True), -MOST_POWER, 0)


def _lasting(memory: np.ndarray, observed: Waves, members: Waves) -> np.ndarray:
    """Return the memory (lead, wave) of a noise, corrected."""
    state = np.arctanh(np.minimum(memory, np.tanh(STATES[1])))
    if len(state) > 1:
        state[1:] += STEP * _smoothed(np.arctanh(observed.correlation()) - np.arctanh(members.correlation()))
        state[0] = state[1]
    return np.tanh(state.clip(*STATES))


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Smooth (lead, …) over lead times."""
    padded = np.concatenate([values[:1], values, values[-1:]])
    return sum(weight * padded[n : n + len(values)] for n, weight in enumerate(SMOOTH))
