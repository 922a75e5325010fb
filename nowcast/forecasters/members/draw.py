"""Draw members: noise with a given structure, through a forecaster's own probabilities."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from nowcast.forecasters.members.copula import Distributions
from nowcast.forecasters.members.noise import Noise, moved
from nowcast.forecasters.members.structure import NOISES, USUAL_KM, USUAL_MINUTES, Structure, periodic_shape
from nowcast.forecasters.members.texture import with_texture
from nowcast.motion import Places, motion, trace
from nowcast.scores.distribution import RATES

DRY = 0.1  # mm/h: less is none
UNIT = 0.01  # mm/h, to which the newest frame is rounded where it tells one case from another


def members(
    past: np.ndarray,
    exceedance: Iterable[np.ndarray],
    num_leads: int,
    num_members: int,
    seed: int,
    structure: Structure,
    *,
    of_this_radar: bool = True,
    km: float = USUAL_KM,
    minutes: float = USUAL_MINUTES,
    rates: Sequence[float] = RATES,
) -> Iterator[np.ndarray]:
    """Draw the members of one case, lead by lead.

    past: (time, y, x) mm/h, newest frame last, NaN missing
    exceedance: for each lead (rate, y, x) chance of reaching each rate, 0 to 1, NaN missing
    seed: with the newest frame it decides the members; the first of many are those of fewer
    of_this_radar: whether the structure was measured on it; otherwise short waves follow the newest frame (texture.py)
    km, minutes: size of the cells and time step
    yields: (member, y, x) mm/h, float32, NaN missing
    """
    case = zlib.crc32(np.rint(np.nan_to_num(past[-1], nan=-1) / UNIT).astype(np.int32))
    seeds = [(seed, case, member) for member in range(num_members)]
    if not (past >= DRY).any():
        for chances in exceedance:
            yield np.where(np.isnan(chances[0]), np.nan, np.zeros((num_members, 1, 1), np.float32))
        return
    distributions = (Distributions(chances, rates, structure.largest) for chances in exceedance)
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
    for lead, (of_lead, where) in enumerate(zip(distributions, places, strict=True), 1):
        shape = periodic_shape(of_lead.shape)
        pairs = pairs or [tuple(Noise((*seed, noise), shape) for noise in NOISES) for seed in seeds]
        amplitudes = [structure.amplitudes(noise, shape, km, lead * minutes) for noise in NOISES]
        correlations = [structure.correlations(noise, shape, km, lead * minutes, minutes) for noise in NOISES]
        fields = np.empty((len(seeds), *of_lead.shape), np.float32)
        for field, noises in zip(fields, pairs, strict=True):
            for noise, correlation in zip(noises, correlations, strict=True):
                noise.advance(correlation)
            here = (moved(noise.field(amplitude), where) for noise, amplitude in zip(noises, amplitudes, strict=True))
            field[:] = of_lead.rain(*here, structure.shared)
        yield fields
