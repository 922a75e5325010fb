"""Times of frames at multiples of five minutes, and hypothesis strategies for records and windows of them."""

import numpy as np
from hypothesis import strategies as st

START = np.datetime64("2020-06-01T00:00:00")
MINUTE = np.timedelta64(60, "s")
FIVE = 5 * MINUTE


def times_at(slots) -> np.ndarray:
    """Return the times of these five-minute slots, counted from START, as datetime64[s]."""
    return START + np.asarray(slots, np.int64) * FIVE


@st.composite
def records(draw):
    """Draw sorted times with gaps at multiples of 5 minutes, and fractions per frame whose float sums are exact."""
    absent = draw(st.sets(st.integers(0, 60), max_size=6))
    slots = [slot for slot in range(draw(st.integers(0, 60))) if slot not in absent]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    missing = rng.choice([0.0, 0.25, 0.5, 1.0], p=[0.7, 0.1, 0.1, 0.1], size=len(slots))
    wet = rng.choice([0.0, 0.25, 0.5, 1.0, np.nan], size=len(slots))
    return times_at(slots), missing, wet


lengths = st.fixed_dictionaries(
    {
        "input_frames": st.integers(1, 4),
        "lead_frames": st.integers(1, 4),
        "time_step": st.integers(1, 3).map(lambda n: n * FIVE),
        "stride": st.integers(1, 6),
    }
)
shares = st.sampled_from([(0.6, 0.2, 0.2), (0.75, 0.25, 0.0), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0), (0.0, 0.1, 0.9)])
