"""Draw members: noise with a given structure, converted to rain by the probabilities of a forecaster."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from nowcast.forecasters.members.copula import Distributions
from nowcast.forecasters.members.noise import Noise, moved
from nowcast.forecasters.members.structure import DEFAULT_KM, DEFAULT_MINUTES, NOISES, Structure, periodic_shape
from nowcast.forecasters.members.texture import with_texture
from nowcast.motion import Places, motion, trace

DRY = 0.1  # mm/h; lower rates count as no rain
UNIT = 0.01  # mm/h; the newest frame is rounded to it before it enters the seed


def members(
    past: np.ndarray,
    exceedance: Iterable[np.ndarray],
    num_leads: int,
    num_members: int,
    seed: int,
    structure: Structure,
    *,
    of_this_radar: bool = True,
    km: float = DEFAULT_KM,
    minutes: float = DEFAULT_MINUTES,
) -> Iterator[np.ndarray]:
    """Draw the members of one case, lead by lead.

    past: (time, y, x) mm/h, newest frame last, NaN missing
    exceedance: for each lead (rate, y, x) probability of reaching each of RATES, 0 to 1, NaN missing
    seed: members depend on it and on the newest frame only; a larger ensemble begins with the same members
    of_this_radar: whether the structure was measured on this radar; if not, short waves follow the newest frame (texture.py)
    km, minutes: cell size and time step
    yields: (member, y, x) mm/h, float32, NaN missing
    """
    case = zlib.crc32(np.rint(np.nan_to_num(past[-1], nan=-1) / UNIT).astype(np.int32))
    seeds = [(seed, case, member) for member in range(num_members)]
    if not (past >= DRY).any():
        for probabilities in exceedance:
            yield np.where(np.isnan(probabilities[0]), np.nan, np.zeros((num_members, 1, 1), np.float32))
        return
    distributions = (Distributions(probabilities, structure.largest) for probabilities in exceedance)
    flow = motion(past)
    if not of_this_radar:
        first, where = next(distributions), next(iter(trace(flow, 1)))
        newest = np.where(past[-1] < DRY, 0, past[-1])  # NaN stays NaN
        structure = with_texture(structure, newest, first, where, seeds[0], km=km, minutes=minutes)
        distributions = chain([first], distributions)
    yield from drawn(distributions, trace(flow, num_leads), seeds, structure, km=km, minutes=minutes)


def drawn(
    distributions: Iterable[Distributions],
    places: Iterable[Places],
    seeds: Sequence[tuple[int, ...]],
    structure: Structure,
    *,
    km: float,
    minutes: float,
) -> Iterator[np.ndarray]:
    """Draw one member (y, x) for each seed at each lead time, as (member, y, x) mm/h."""
    pairs: list[tuple[Noise, ...]] = []
    for lead, (distribution, where) in enumerate(zip(distributions, places, strict=True), 1):
        shape = periodic_shape(distribution.shape)
        pairs = pairs or [tuple(Noise((*seed, noise), shape) for noise in NOISES) for seed in seeds]
        amplitudes = [structure.amplitudes(noise, shape, km, lead * minutes) for noise in NOISES]
        correlations = [structure.correlations(noise, shape, km, lead * minutes, minutes) for noise in NOISES]
        fields = np.empty((len(seeds), *distribution.shape), np.float32)
        for field, noises in zip(fields, pairs, strict=True):
            for noise, correlation in zip(noises, correlations, strict=True):
                noise.advance(correlation)
            moved_noises = (moved(noise.field(amplitude), where) for noise, amplitude in zip(noises, amplitudes, strict=True))
            field[:] = distribution.rain(*moved_noises, structure.shared)
        yield fields
