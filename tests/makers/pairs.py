"""Random pairs of forecast and observed fields, with missing values."""

import numpy as np
from hypothesis import strategies as st

LEVELS = [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.25, 5.0, 7.5, 10.0, 30.0]  # mm/h; dyadic: their sums are exact in any order


def random_case(rng, shape, *, missing=0.2, levels=LEVELS):
    """Draw (forecast, observed) float32 fields of these levels, NaN with probability `missing`."""
    pair = rng.choice(np.array(levels, np.float32), size=(2, *shape))
    pair[rng.random(pair.shape) < missing] = np.nan
    return pair[0], pair[1]


@st.composite
def cases(draw, num_cases=1, **options):
    """Draw a list of `num_cases` (forecast, observed) fields of one shape."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return [random_case(rng, shape, missing=draw(st.sampled_from([0.0, 0.2, 0.9])), **options) for _ in range(num_cases)]
