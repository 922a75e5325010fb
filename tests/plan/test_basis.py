"""The recipe that a plan starts from follows from the quantity, the grids and the days with rain."""

import pytest
from makers.archives import made_up, series

from nowcast.plan.basis import RAINY_DAYS, choose_basis
from nowcast.quantity import DIMENSIONLESS


def days(number, *, name="a"):
    """A record with a run of five hours on each of so many days."""
    return series(*[60] * number, gap_hours=19, name=name)


def basis(parts, rainy, **facts):
    return choose_basis(made_up(parts, num_rainy_days=rainy, **facts))


@pytest.mark.parametrize(("rainy", "recipe"), [(RAINY_DAYS - 1, "radar"), (RAINY_DAYS, "archive")])
def test_days_with_rain_decide_for_the_archive_recipe(rainy, recipe):
    found = basis([days(60)], rainy)
    assert found.recipe == recipe
    assert f"about {rainy} days with rain" in found.reason
    assert found.frames.splits.by == "days", "sixty days are split by days for either recipe"


def test_two_weeks_are_split_by_days_for_the_archive_recipe_alone():
    weeks = [days(14)]
    assert basis(weeks, 12).frames.splits.by == "days"
    few = basis(weeks, 3)
    assert (few.recipe, few.frames.splits.by, few.has_few_events) == ("radar", "events", True)


def test_days_that_leave_no_validation_are_no_archive():
    eleven = series(*[40] * 11, gap_hours=240 - 40 / 12)  # every tenth day: all have the same number
    found = basis([eleven], 11)
    assert (found.recipe, found.frames.splits.by) == ("radar", "events")
    assert "no split by days" in found.reason


def test_several_grids_or_another_quantity_are_no_archive():
    several = basis([days(60), days(60, name="b")], 50)
    assert (several.recipe, several.reason) == ("radar", "2 grids: one network for all of them")
    assert not several.has_few_events
    other = basis([days(60)], 50, quantity=DIMENSIONLESS)
    assert (other.recipe, other.reason.split(":")[0]) == ("radar", "not rain rate")
