"""Cases with an absent frame are scored as they are trained on and forecast: past ones are missing, future ones not scored."""

import numpy as np
import pytest
from makers import rain, write_record
from makers.stored import open_one

from nowcast.errors import NotEnoughFrames
from nowcast.evaluation.evaluate import evaluate
from nowcast.forecasters.baselines import Extrapolation, Persistence
from nowcast.forecasters.forecaster import Forecaster
from nowcast.prediction.cases import Selection, read_past

START, STEP = np.datetime64("2020-06-01T00:00:00"), np.timedelta64(300, "s")
FIELDS = rain(frames=20, shape=(12, 16))


class Noting(Forecaster):
    """Persistence that needs a number of past frames, allows some absent ones, and notes what it was given."""

    name = "noting"

    def __init__(self, input_frames, *, max_absent=0, lead_frames=2):
        self.input_frames, self.max_absent, self.lead_frames = input_frames, max_absent, lead_frames
        self.given = []

    def forecast(self, past, num_leads):
        self.given.append(past[0])
        return np.repeat(past[:, -1:], num_leads, axis=1)


def record(folder, absent=(), empty=()):
    """Twenty frames but for those of some numbers; others are in the file, without a known cell."""
    kept, fields = np.delete(np.arange(20), list(absent)), FIELDS.copy()
    fields[list(empty)] = np.nan
    return open_one(write_record(folder / f"{len(list(folder.iterdir()))}.nc", fields[kept], times=START + kept * STEP))


def scored(folder, *forecasters, **options):
    """Evaluate, and return the numbers of the reference frames and the evaluation."""
    found = evaluate({f.name: f for f in forecasters}, [record(folder, **options)], selection=Selection(), thresholds=(1.0,))
    return [int((case.reference - START) // STEP) for case in found.cases], found


@pytest.mark.parametrize("how", ["absent", "empty"])
def test_cases_with_a_missing_frame_are_those_that_can_be_forecast(tmp_path, how):
    whole = set(range(3, 18))  # 4 past and 2 future frames
    network = Noting(4, max_absent=1)
    cases, _ = scored(tmp_path, network, **{how: [10]})
    assert set(cases) == whole - {10}
    strict, _ = scored(tmp_path, Noting(4, max_absent=0), **{how: [10]})
    assert set(strict) == whole - {10, 11, 12, 13}
    both, _ = scored(tmp_path, Noting(4, max_absent=1), Persistence(), Extrapolation(), **{how: [10]})
    assert set(both) == whole - {10, 11}  # extrapolation needs the newest two


def test_cases_that_no_forecaster_can_make_count_as_gaps(tmp_path):
    """They were called complete, and left out by a range or forecast files that nobody gave."""
    says = r"no complete case of 4 past and 2 future frames .*\n0 windows in 13 frames; 13 start times dropped: gap or end"
    with pytest.raises(NotEnoughFrames, match=says):
        scored(tmp_path, Noting(4, max_absent=0), absent=[2, 5, 8, 11, 14, 17, 19])


def test_each_forecaster_gets_the_past_that_forecasting_gives_it(tmp_path):
    network, other = Noting(4, max_absent=1), Noting(2)
    other.name, other.__class__ = "other", type("Long", (Noting,), {"most_past_frames": 4})
    cases, _ = scored(tmp_path, network, other, absent=[10])
    opened = record(tmp_path, absent=[10]).with_absent(1)
    for forecaster in (network, other):
        assert len(forecaster.given) == len(cases)
        for number, past in zip(cases, forecaster.given, strict=True):
            np.testing.assert_array_equal(past, read_past(opened, START + number * STEP, forecaster, STEP))
    assert {len(past) for past in other.given} == {2, 3, 4}


def test_nothing_is_scored_at_an_absent_future_frame(tmp_path):
    cases, found = scored(tmp_path, Persistence(), Noting(1), absent=[10])
    assert cases == [n for n in range(18) if n != 10]
    cells = FIELDS[0].size
    np.testing.assert_array_equal(found.total("persistence").num_pairs, [(len(cases) - 1) * cells] * 2)


def test_two_absent_frames_in_a_row_stay_a_gap(tmp_path):
    cases, _ = scored(tmp_path, Noting(4, max_absent=1), absent=[10, 11])
    assert cases == [3, 4, 5, 6, 7, 15, 16, 17]
    with pytest.raises(NotEnoughFrames):
        read_past(record(tmp_path, absent=[10]), START + 11 * STEP, Noting(2), STEP)
