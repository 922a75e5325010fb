"""The rain rate has a unit and its own events; whatever else goes from 0 to 1, and is known by its name."""

import pickle
import subprocess
import sys

from nowcast.quantity import DIMENSIONLESS, RAIN_RATE, Quantity, are_thresholds


def test_the_name_that_files_keep_gives_the_quantity_again():
    for quantity in (RAIN_RATE, DIMENSIONLESS):
        assert Quantity.named(str(quantity)) == quantity == pickle.loads(pickle.dumps(quantity))


def test_only_rain_rate_is_rain():
    assert RAIN_RATE.is_rain
    assert not Quantity.named("cloud_area_fraction").is_rain


def test_another_quantity_goes_from_0_to_1_without_a_unit():
    other = Quantity.named("cloud_area_fraction")
    assert (other.units, other.unit, other.label) == ("1", "", "")
    assert (other.thresholds, other.data_range) == ((0.5,), 1.0)


def test_thresholds_are_ascending_numbers_above_0():
    assert are_thresholds((0.5, 1, 5.0))
    assert are_thresholds([2.5])
    for wrong in ((), (5, 1), (1, 1), (0, 1), (-1,), (1e6,), (float("nan"), 1), (float("inf"),), ([1, 5],), ("1",), (None,)):
        assert not are_thresholds(wrong)


def test_it_needs_the_standard_library_alone():
    program = "import sys, nowcast.quantity; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
