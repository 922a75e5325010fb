"""A window may have an absent frame: missing as a whole, never its newest past frame. Longer gaps stay gaps."""

import numpy as np
import pytest
from makers import rain, write_record
from makers.stored import open_one

from nowcast import motion
from nowcast.config.schema import Data
from nowcast.dataset.archive import open_archive
from nowcast.dataset.windows import find_windows
from nowcast.errors import NotEnoughFrames
from nowcast.forecasters.baselines import Persistence
from nowcast.prediction.cases import Selection, read_past, references_of

START = np.datetime64("2020-06-01T00:00:00")
STEP = np.timedelta64(300, "s")
FIELDS = rain(frames=30, shape=(40, 44))


def record(folder, absent):
    """Thirty frames but for those of these numbers."""
    kept = np.delete(np.arange(30), absent)
    name = "-".join(["without", *map(str, absent)])
    return open_one(write_record(folder / f"{name}.nc", FIELDS[kept], times=START + kept * STEP))


def test_absent_frames_are_put_in_between_others_and_are_missing(tmp_path):
    whole = record(tmp_path, [5, 12, 13, 20, 22]).with_absent(1)
    assert ((whole.times - START) // STEP).tolist() == np.delete(np.arange(30), [12, 13]).tolist()
    assert ((whole.times - START) // STEP)[whole.is_absent].tolist() == [5, 20, 22]
    fields = whole.read(range(len(whole)))
    assert np.isnan(fields[whole.is_absent]).all()
    np.testing.assert_array_equal(fields[~whole.is_absent], np.delete(FIELDS, [5, 12, 13, 20, 22], axis=0))
    assert len(record(tmp_path, [5, 12, 13]).with_absent(2)) == 30
    same = record(tmp_path, [])
    assert same.with_absent(1) is same
    assert same.with_absent(0) is same


@pytest.mark.parametrize(
    ("absent", "most", "expected"),
    [
        ([], 1, 27),  # 3 + 1 frames: references 2 to 28
        ([10], 0, 23),
        ([10], 1, 26),  # all but that from the absent frame
        ([10, 12], 1, 24),  # nor those that hold both, from 11, or from 12 itself
        ([10, 12], 2, 25),
        ([10, 11], 1, 22),  # a gap of two stays a gap
    ],
)
def test_windows_may_have_as_many_absent_frames(tmp_path, absent, most, expected):
    whole = record(tmp_path, absent).with_absent(most)
    options = {"input_frames": 3, "lead_frames": 1, "time_step": STEP, "absent": whole.is_absent, "max_absent": most}
    windows = find_windows(whole.times, **options)
    numbers = ((whole.times - START) // STEP)[windows.positions]
    brute = [
        n
        for n in range(2, 29)
        if n not in absent and sum(k in absent for k in range(n - 2, n + 2)) <= most and (most or n not in absent)
    ]
    if absent == [10, 11]:
        brute = [n for n in brute if not {10, 11} & set(range(n - 2, n + 2))]
    assert numbers[:, 2].tolist() == brute
    assert len(windows) == expected
    assert windows.account.num_frames == 30 - len(absent)
    assert windows.account.num_gap == 30 - len(absent) - len(windows)


def test_an_archive_trains_on_windows_with_an_absent_frame(tmp_path):
    path = record(tmp_path, [10]).paths[0]
    counts = {}
    for most in (0, 1):
        data = Data(records=(str(path),), input_frames=3, lead_frames=2, max_absent=most)
        counts[most] = open_archive(data).account.num_windows
    assert counts == {0: 21, 1: 25}


def test_the_motion_passes_over_a_missing_frame():
    past = FIELDS[4:8].copy()
    whole = motion.motion(past)
    for missing in ([1], [2], [0, 2]):
        holed = past.copy()
        holed[missing] = np.nan
        found = motion.motion(holed)
        wet = past[-1] > 1
        assert np.abs(found - whole)[:, wet].mean() < 0.25
    assert np.isfinite(motion.motion(np.full((4, 40, 44), np.nan))).all()


class Tolerant(Persistence):
    name, input_frames, most_past_frames, max_absent = "tolerant", 4, 4, 1


def test_a_forecast_may_start_from_a_past_with_an_absent_frame(tmp_path):
    whole = record(tmp_path, [10, 20, 22]).with_absent(1)
    past = read_past(whole, START + 12 * STEP, Tolerant(), STEP)
    assert np.isnan(past[1]).all()
    np.testing.assert_array_equal(past[[0, 2, 3]], FIELDS[[9, 11, 12]])
    for reference, names in ((10, "00:50"), (23, "01:40:00Z, 2020-06-01T01:50")):
        with pytest.raises(NotEnoughFrames, match=rf"Missing as a whole: 2020-06-01T{names}"):
            read_past(whole, START + reference * STEP, Tolerant(), STEP)
    chosen = references_of(open_one(whole.paths[0]), Selection(every=5), 4, STEP, 1)
    left_out = {0, 1, 2, 10, 20, 22, 23}
    assert [int((time - START) // STEP) for time in chosen] == [n for n in range(30) if n not in left_out]
