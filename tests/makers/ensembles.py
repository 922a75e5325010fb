"""Random ensembles beside an observation, and an ensemble of a few given pairs."""

import numpy as np
from hypothesis import strategies as st

from nowcast.scores.distribution import RateSums, add_ensemble
from nowcast.scores.ensemble import EnsembleSums, add_members
from nowcast.scores.exceedance import ExceedanceSums, add_probabilities
from nowcast.scores.pixels import THRESHOLDS
from nowcast.scores.sums import Tally

NAN = np.nan


LEVELS = [0.0, 0.0, 0.0, 0.25, 0.5, 1.0, 2.25, 5.0, 7.5, 10.0]


def ensemble(seed, shape=(2, 6, 7), *, members=5, missing=0.1, levels=LEVELS):
    """(members, observed) float32 of these levels (None: any), NaN with probability `missing`."""
    rng = np.random.default_rng(seed)
    values = (
        rng.choice(np.array(levels, np.float32), (members + 1, *shape)) if levels else rng.gamma(0.5, 4, (members + 1, *shape))
    )
    values[rng.random(values.shape) < missing] = NAN
    return values[:-1], values[-1]


ensembles = st.builds(
    ensemble,
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    members=st.integers(1, 7),
    missing=st.sampled_from([0.0, 0.05, 0.5]),
)


def single(members, observed, thresholds=(1.0,)):
    """One lead and one row of pairs: members (member, pair)."""
    members, observed = np.array(members, np.float32), np.array(observed, np.float32)
    return ensemble_sums(members[:, None, None], observed[None, None], thresholds=thresholds)


def ensemble_sums(members, observed, mask=None, thresholds=THRESHOLDS, *, most_members=None):
    """The sums of one case of an ensemble: members (member, lead, y, x), observed and mask (lead, y, x), in mm/h."""
    members, observed = np.asarray(members), np.asarray(observed)
    exceedance = ExceedanceSums.zeros(len(observed), thresholds)
    sums = EnsembleSums.zeros(len(observed), most_members=most_members or len(members))
    rates = RateSums.zeros(len(observed))
    for lead, known in enumerate(_known(members, observed, mask)):
        add_members(exceedance, sums, lead, members[:, lead], observed[lead], known)
        add_ensemble(rates, lead, members[:, lead], observed[lead], known)
    return Tally({"probabilities": exceedance, "members": sums, "distribution": rates})


def exceedance_sums(probabilities, observed, mask=None, thresholds=THRESHOLDS, *, columns=None):
    """The sums of one case of probabilities (threshold, lead, y, x) of the thresholds at `columns` (default: all)."""
    probabilities, observed = np.asarray(probabilities), np.asarray(observed)
    columns = range(len(thresholds)) if columns is None else columns
    sums = ExceedanceSums.zeros(len(observed), thresholds)
    for lead, known in enumerate(_known(probabilities, observed, mask)):
        add_probabilities(sums, lead, probabilities[:, lead], observed[lead], known, columns)
    return Tally({"probabilities": sums})


def _known(forecast, observed, mask):
    """(lead, y, x), where the mask is True and neither the observation nor any field of the forecast is NaN."""
    known = ~np.isnan(observed) & ~np.isnan(forecast).any(axis=0)
    return known if mask is None else known & mask
