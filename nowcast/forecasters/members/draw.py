"""Draw members: noise with the structure of the rain, through a forecaster's own probabilities."""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from nowcast.forecasters.members.copula import Distributions
from nowcast.forecasters.members.noise import Noise, Spectrum, moved
from nowcast.forecasters.members.structure import FLOOR, structure
from nowcast.motion import motion, past_to_lagrangian, trace
from nowcast.scores.distribution import RATES

UNIT = 0.01  # mm/h, to which the newest frame is rounded where it tells one case from another


def members(
    past: np.ndarray, exceedance: Sequence[np.ndarray], num_members: int, seed: int, *, rates: Sequence[float] = RATES
) -> Iterator[np.ndarray]:
    """Draw the members of one case, lead by lead.

    past: (time, y, x) mm/h, newest frame last, NaN missing
    exceedance: for each lead (rate, y, x) chance of reaching each rate, 0 to 1, NaN missing
    seed: with the newest frame it decides the members; the first of many are those of fewer
    yields: (member, y, x) mm/h, float32, NaN missing
    """
    flow = motion(past)
    own = structure(past_to_lagrangian(past, flow))
    spectrum, case = Spectrum(own), zlib.crc32(np.rint(np.nan_to_num(past[-1], nan=-1) / UNIT).astype(np.int32))
    noises = [Noise(own, (seed, case, member)) for member in range(num_members)]
    is_dry, num_leads = not (past >= FLOOR).any(), len(exceedance)
    for chances, places, spread in zip(exceedance, trace(flow, num_leads), own.spread(num_leads), strict=True):
        drawn = np.empty((num_members, *chances.shape[1:]), np.float32)
        distributions = Distributions(chances, rates)
        if is_dry:
            drawn[:] = np.where(distributions.missing, np.nan, 0)
        else:
            spectrum.fit(distributions, places, spread)
            for member, noise in zip(drawn, noises, strict=True):
                noise.advance()
                member[:] = distributions.rain(moved(noise.field(spectrum.amplitude(spread)), places))
        yield drawn
