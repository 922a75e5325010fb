"""Random ensembles, and one of a few pairs, beside what was observed."""

import numpy as np
from hypothesis import strategies as st

from nowcast.scores.ensemble import ensemble_sums

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
