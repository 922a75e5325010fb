"""Counts in messages have their thing in the singular where it is one."""

from nowcast.dataset.windows import Account
from nowcast.errors import counted
from nowcast.forecasters.baselines import Persistence
from nowcast.forecasters.members.ensemble import Ensemble


def test_a_count_of_one_is_singular():
    assert [counted(number, "lead time") for number in (0, 1, 1200)] == ["0 lead times", "1 lead time", "1,200 lead times"]


def test_messages_count_one_thing_as_one():
    lines = Account(num_frames=1, num_candidates=2, num_windows=1, num_gap=1).lines()
    assert (lines[0], lines[1].split(":")[0]) == ("1 window in 1 frame", "  1 start time dropped")
    persistence = Persistence()
    assert persistence.describe()["what"] == "The newest frame, repeated exactly (1 past frame)"
    persistence.thresholds = (1.0,)
    assert Ensemble(persistence, 1).describe()["what"].endswith("1 member, seed 0")
