"""Arguments of nowcast in Python: of any kind that has one sense, else refused with a line that says what would be right."""

import numpy as np
import pytest
from makers import rain, write_record

import nowcast
from nowcast.errors import UsageError

OPTIONS = {"start": "2020-06-01T00:45", "device": "cpu"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_record(tmp_path_factory.mktemp("arguments") / "rain.nc", rain(frames=24, shape=(16, 20)))


@pytest.mark.parametrize(
    "wrong",
    [[np.nan], [-1], 0, [1, 1], [5, 1], np.inf, [], [[1, 5]], [1e7]],
    ids=["nan", "negative", "zero", "twice", "descending", "inf", "none", "nested", "large"],
)
def test_thresholds_are_checked_as_those_of_the_commands(file, wrong):
    with pytest.raises(UsageError, match=r"thresholds = .*: write ascending numbers above 0, in mm/h"):
        nowcast.evaluate("persistence", file, thresholds=wrong, **OPTIONS)
    with pytest.raises(UsageError, match=r"thresholds = .*: write ascending numbers above 0, in mm/h"):
        nowcast.load("extrapolation").probabilities(rain(frames=3), wrong)


def test_a_single_threshold_may_be_a_number(file):
    one, several = (nowcast.evaluate("persistence", file, thresholds=given, **OPTIONS) for given in (np.float32(1), [1, 5]))
    assert one.threshold.values.tolist() == [1]
    np.testing.assert_array_equal(one.csi.sel(threshold=1), several.csi.sel(threshold=1))
