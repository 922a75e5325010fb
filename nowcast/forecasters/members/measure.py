"""Measure the structure of the noise on cases whose outcome is known.

Observed rain and members are both converted to noise by the distributions of the forecaster. If the waves of one are stronger
or last longer than those of the other, the structure is corrected and members are drawn again. Comparing with members cancels
the effect of dry cells, whose noise is unknown. The power of the noise of intensity is corrected by the error of the logarithm
of the rain against its expected value, so that the spread of area sums matches their error.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft

from nowcast.forecasters.members.copula import Distributions
from nowcast.forecasters.members.draw import drawn
from nowcast.forecasters.members.structure import INTENSITY, NOISES, OCCURRENCE, Structure, wave_numbers, weights
from nowcast.motion import motion, trace

ROUNDS, MEMBERS = 6, 2  # rounds of correction, and members per case and round
CORRECTED_FRACTION = 0.8  # of a difference, in each round
SMOOTHING = (0.25, 0.5, 0.25)  # weights of the previous, the same and the next lead time in a correction
POWER_RANGE = 20.0  # largest range of the logarithm of the power
CORRELATION_RANGE = (-0.5, 0.998)  # limits of measured correlations
STATE_RANGE = (0.0, 4.0)  # limits of the inverse hyperbolic tangent of the correlation of the noise
LEAST_LARGEST_RATE = 60.0  # mm/h; the largest rate of members is at least this
FIRST_SLOPE, FIRST_MEMORY = 2.5, 0.83  # first guess: slope of the power with wavelength, and correlation
SHARED = 0.5  # correlation of intensity and occurrence: .7 and .85 were no better on validation days (scripts/skill/members.md)
LOG_ERROR = len(NOISES)
MEASURED = *NOISES, LOG_ERROR  # fields whose waves are measured
OFFSET = 0.5  # mm/h, in the logarithm of rain, as in the transform of networks


@dataclass(frozen=True)
class Case:
    """A forecast and the observations.

    past: (time, y, x) mm/h, NaN missing
    observed: (lead, y, x) mm/h, NaN missing
    exceedance: (lead, rate, y, x) probabilities of RATES
    """

    past: np.ndarray
    observed: np.ndarray
    exceedance: np.ndarray


@dataclass
class Waves:
    """Sums over cases: power of a field (lead, wave), and cross power with the previous lead time (lead - 1, wave).

    Only their ratios matter, up to a factor for all waves: the number of cases or members cancels.
    """

    power: np.ndarray
    product: np.ndarray

    @classmethod
    def zeros(cls, num_leads: int, num_waves: int) -> "Waves":
        return cls(np.zeros((num_leads, num_waves)), np.zeros((num_leads - 1, num_waves)))

    def correlation(self) -> np.ndarray:
        """Return the correlation (lead - 1, wave) of lead times with the previous ones."""
        scale = np.sqrt(self.power[:-1] * self.power[1:])
        return np.divide(self.product, scale, out=np.zeros_like(scale), where=scale > 0).clip(*CORRELATION_RANGE)


def measure(
    cases: Callable[[], Iterator[Case]],
    grid: tuple[int, int],
    num_leads: int,
    *,
    km: float,
    minutes: float,
    rounds: int = ROUNDS,
) -> Structure:
    """Measure the structure on cases of one grid (y, x); `cases` is called again in each round.

    km, minutes: cell size and time step
    """
    number = wave_numbers(grid)
    num_waves = int(number.max()) + 1
    lengths = km * 2.0 ** (1 + np.arange(num_waves))
    structure = Structure(
        minutes * np.arange(1, num_leads + 1),
        lengths,
        np.tile(FIRST_SLOPE * np.log(lengths), (len(NOISES), num_leads, 1)),
        np.full((len(NOISES), num_leads, num_waves), FIRST_MEMORY),
        SHARED,
    )
    highest = max((float(np.nan_to_num(case.observed).max()) for case in cases()), default=0)
    structure = replace(structure, largest=max(highest, LEAST_LARGEST_RATE))
    observed = [Waves.zeros(num_leads, num_waves) for _ in MEASURED]
    for case in cases():
        _add_observed(observed, case, number, structure.largest)
    for _ in range(rounds):
        members = [Waves.zeros(num_leads, num_waves) for _ in MEASURED]
        for seed, case in enumerate(cases()):
            _add_members(members, case, number, seed, structure, km=km, minutes=minutes)
        structure = corrected(structure, observed, members)
    return structure


def _add_observed(sums: Sequence[Waves], case: Case, number: np.ndarray, largest: float) -> None:
    """Add the waves of the observations of a case to the sums of each of MEASURED."""
    distributions = (Distributions(probabilities, largest=largest) for probabilities in case.exceedance)
    leads = [_fields(lead, lead.expected(_logarithm), rain) for lead, rain in zip(distributions, case.observed, strict=True)]
    for waves, fields in zip(sums, zip(*leads, strict=True), strict=True):
        _add_waves(waves, fields, number)


def _add_members(
    sums: Sequence[Waves], case: Case, number: np.ndarray, seed: int, structure: Structure, *, km: float, minutes: float
) -> None:
    """Add the waves of members of a case, in observed cells, to the sums of each of MEASURED."""
    distributions = [Distributions(probabilities, largest=structure.largest) for probabilities in case.exceedance]
    places = trace(motion(case.past), len(distributions))
    seeds = [(seed, member) for member in range(MEMBERS)]
    fields_of_members: list[list[tuple[np.ndarray, ...]]] = [[] for _ in seeds]
    leads = drawn(distributions, places, seeds, structure, km=km, minutes=minutes)
    for distribution, members, observed in zip(distributions, leads, case.observed, strict=True):
        expected = distribution.expected(_logarithm)
        for of_member, member in zip(fields_of_members, members, strict=True):
            of_member.append(_fields(distribution, expected, np.where(np.isnan(observed), np.nan, member)))
    for of_member in fields_of_members:
        for waves, fields in zip(sums, zip(*of_member, strict=True), strict=True):
            _add_waves(waves, fields, number)


def _fields(distributions: Distributions, expected: np.ndarray, rain: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return MEASURED (y, x) of rain (y, x), mm/h: both noises, and the logarithm minus its expected value (y, x)."""
    return *distributions.noise(rain), np.nan_to_num(_logarithm(rain) - expected, nan=0.0)


def _logarithm(rain: np.ndarray) -> np.ndarray:
    return np.log1p(rain / np.float32(OFFSET))


def _add_waves(sums: Waves, fields: Sequence[np.ndarray], number: np.ndarray) -> None:
    """Add the waves of fields (lead, y, x)."""
    weight = weights(fields[0].shape).ravel()
    before = None
    for lead, field in enumerate(fields):
        waves = fft.rfft2(field)
        sums.power[lead] += np.bincount(number.ravel(), weight * (waves.real**2 + waves.imag**2).ravel(), sums.power.shape[1])
        if before is not None:
            cross = (waves * before.conj()).real.ravel()
            sums.product[lead - 1] += np.bincount(number.ravel(), weight * cross, sums.power.shape[1])
        before = waves


def corrected(structure: Structure, observed: Sequence[Waves], members: Sequence[Waves]) -> Structure:
    """Correct a structure by the waves of the observations and of the members drawn with it, of each of MEASURED."""
    field_of_power = {OCCURRENCE: OCCURRENCE, INTENSITY: LOG_ERROR}  # noise -> field whose power corrects it
    power, memory = [], []
    for noise in NOISES:
        log_ratio = _log_power_ratio(observed[field_of_power[noise]], members[field_of_power[noise]])
        power.append(_corrected_power(structure.power[noise], log_ratio))
        memory.append(_corrected_memory(structure.memory[noise], observed[noise], members[noise]))
    return replace(structure, power=np.stack(power), memory=np.stack(memory))


def _log_power_ratio(observed: Waves, members: Waves) -> np.ndarray:
    """Return the logarithm of observed power / power of members (lead, wave); 0 where one of them is 0."""
    both = (observed.power > 0) & (members.power > 0)
    return np.log(np.divide(observed.power, members.power, out=np.ones_like(members.power), where=both))


def _corrected_power(power: np.ndarray, log_ratio: np.ndarray) -> np.ndarray:
    """Return the logarithm of the power (lead, wave) of a noise, corrected."""
    power = power + CORRECTED_FRACTION * _smoothed(log_ratio)
    return np.clip(power - power.max(axis=1, keepdims=True), -POWER_RANGE, 0)


def _corrected_memory(memory: np.ndarray, observed: Waves, members: Waves) -> np.ndarray:
    """Return the memory (lead, wave) of a noise, corrected."""
    state = np.arctanh(np.minimum(memory, np.tanh(STATE_RANGE[1])))
    if len(state) > 1:
        state[1:] += CORRECTED_FRACTION * _smoothed(np.arctanh(observed.correlation()) - np.arctanh(members.correlation()))
        state[0] = state[1]
    return np.tanh(state.clip(*STATE_RANGE))


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Smooth values (lead, …) over lead times."""
    padded = np.concatenate([values[:1], values, values[-1:]])
    return sum(weight * padded[n : n + len(values)] for n, weight in enumerate(SMOOTHING))
