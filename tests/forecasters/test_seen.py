"""The periods that trained a network, from its checkpoint: those of the network that it started from are among them."""

import pytest

from nowcast.config.schema import Splits
from nowcast.forecasters.seen import spans_of_checkpoint

OWN, EARLIER = (["a", f"2020-06-0{day}T10:00:00Z", f"2020-06-0{day + 3}T03:00:00Z"] for day in (1, 5))


def test_the_weights_that_a_training_started_from_add_their_periods_to_training_alone():
    stretches = {"training": [OWN], "validation": [OWN, OWN]}
    metadata = {"stretches": stretches, "started_from": {"seen": [EARLIER]}, "spans": {"training": [EARLIER]}}
    assert spans_of_checkpoint(metadata, "training", Splits()) == [OWN, EARLIER]
    assert spans_of_checkpoint(metadata, "validation", Splits()) == [OWN, OWN]
    assert spans_of_checkpoint({"stretches": stretches}, "training", Splits()) == [OWN]


@pytest.mark.parametrize(("split", "days"), [("training", [1, 4]), ("validation", [3]), ("test", [2])])
def test_of_an_older_checkpoint_the_days_of_its_split_are_taken_from_its_span(split, days):
    """1 June 2020 is 18 414 days after 1 January 1970: day 2 of four."""
    metadata = {"spans": {name: [OWN] for name in ("training", "validation", "test")}}
    splits = Splits(by="days", every_days=4, training_days=(1, 2), validation_days=(0,), test_days=(3,))
    found = spans_of_checkpoint(metadata, split, splits)
    assert found == [["a", f"2020-06-0{day}T00:00:00Z", f"2020-06-0{day}T23:59:59Z"] for day in days]
    assert spans_of_checkpoint(metadata, split, Splits()) == [OWN]
    assert spans_of_checkpoint({}, split, splits) == []
