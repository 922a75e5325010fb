"""Units: every spelling that means the same gives the same rain rate."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.stored import edit, read_one, write

from nowcast.errors import DataError
from nowcast.netcdf.rain.units import meaning, to_rain_rate
from nowcast.quantity import DIMENSIONLESS, RAIN_RATE

# (what 1 of it is in mm/h, spellings)
_RATES = [
    (1, "mm h-1, mm/h, mm/hr, mm hr-1, mm h^-1, mm h**-1, mm/hour, mm per hour, millimeters per hour, mm h⁻¹, mm\u22c5h-1"),
    (1, "mm\u202fh\u22121, mm h^{-1}, mm.h-1, L m-2 h-1, kg m-2 h-1, mm/1h"),
    (1, "MM/HR, mm/Hr, mm/H, [mm/h], mmh-1, mmhr-1, Millimeters/Hour"),
    (3.6e6, "m s-1, m/s"),
    (3600, "kg m-2 s-1, kg m**-2 s**-1, kg/m2/s, mm s-1"),
    (1 / 24, "mm/day, mm d-1"),
    (25.4, "inches/hour, in/hr, inch h-1"),
    (0.1, "0.1 mm/h"),
    (10, "cm/h, kg m-2 / 360 s"),
    (12, "mm/5min, mm/5 min, mm / 5 minutes, mm per 5 minutes, mm/(5 min), mm (5 min)-1, mm 5min-1, mm 5 min-1, mm5min-1"),
    (6, "mm/10min, mm/10', mm/10′"),
    (0.12, "0.01 mm/5min, (mm/5 min)*100, mm/(5 min) * 100, mm/5' x 100"),
]
_AMOUNTS = [
    (1, "mm, millimeter, kg m-2, kg/m^2, l/m2, MM, KG/M2"),
    (1000, "m, m of water equivalent"),
    (0.1, "0.1 mm"),
    (0.01, "1/100 mm, 0.01mm"),
    (25.4, "in, inches"),
    (10, "cm"),
]
RATES = [(units, factor) for factor, spellings in _RATES for units in spellings.split(", ")]
AMOUNTS = [(units, factor) for factor, spellings in _AMOUNTS for units in spellings.split(", ")]


@pytest.mark.parametrize(("units", "factor"), RATES)
def test_every_spelling_of_a_rate_is_understood(units, factor):
    conversion = to_rain_rate(units)
    assert conversion.quantity == RAIN_RATE
    assert conversion(np.float32([0, 1, 2.5])) == pytest.approx([0, factor, 2.5 * factor], rel=1e-6)


@pytest.mark.parametrize(("units", "millimetres"), AMOUNTS)
def test_an_amount_is_divided_by_its_interval(units, millimetres):
    conversion = to_rain_rate(units, interval_seconds=360)
    assert conversion.describe == f"{units} per 360 s -> mm/h"
    assert conversion(np.float32([0, 1, 3])) == pytest.approx([0, 10 * millimetres, 30 * millimetres], rel=1e-6)


@pytest.mark.parametrize("units", ["dBZ", "dbz", "DBZ", "dBz", " dBZ ", "dBZe", "dBZh", "0.1 lg(re 1 mm^6 m^-3)"])
def test_reflectivity_follows_marshall_and_palmer(units):
    dbz = np.float32([10 * np.log10(200), 10 * np.log10(200 * 10**1.6), 23.01])
    rate = to_rain_rate(units)(dbz)
    assert rate == pytest.approx([1, 10, 1], rel=1e-4)


def test_reflectivity_takes_another_relation():
    conversion = to_rain_rate("dBZ", zr_a=223, zr_b=1.53)
    assert conversion(np.float64([10 * np.log10(223 * 5**1.53)])) == pytest.approx([5], rel=1e-6)
    assert conversion.describe == "dBZ -> mm/h (Z = 223 R^1.53)"


@pytest.mark.parametrize(
    "units",
    ["K", "Mm/h", "mm/timestep", "hPa", "mm Hg", "m3", "degC", "nonsense", "dB", "seconds since 1970-01-01", "mm2 h-1", "Mm",
     "lg(re 1 mm/h)", "ln(re mm h-1)", "lb(re 1 mm)", "0.1 lg(re 1 kg m-2 s-1)"],
)  # fmt: skip
def test_units_that_measure_no_rain_are_refused(units):
    assert meaning(units) is None
    message = rf'^f.nc: rr has units "{re.escape(units)}", which is no measure of rain\.\nExpected a rate'
    with pytest.raises(DataError, match=message):
        to_rain_rate(units, variable="f.nc: rr", interval_seconds=300)


def test_rain_cannot_be_dimensionless():
    told = r'has units "1", which is no measure of rain, as its standard_name rainfall_rate says that it is\.\nExpected a rate'
    with pytest.raises(DataError, match=told):
        to_rain_rate("1", standard_name="rainfall_rate")


@pytest.mark.parametrize(("units", "factor"), [("1", 1), ("fraction", 1), ("%", 0.01), ("percent", 0.01)])
def test_a_quantity_that_is_no_rain_may_be_dimensionless(units, factor):
    conversion = to_rain_rate(units)
    assert conversion.quantity == DIMENSIONLESS
    assert conversion(np.float32([0.5])) == pytest.approx([0.5 * factor])


@pytest.mark.parametrize("units", [None, "", "  "])
def test_missing_units_are_asked_for(units):
    with pytest.raises(DataError, match=r"^rr has no units attribute\.\nGive them by --units \(data.units\): a rate \(mm h-1"):
        to_rain_rate(units, standard_name="rainfall_rate", variable="rr")


def test_reflectivity_needs_no_units():
    assert to_rain_rate(None, standard_name="equivalent_reflectivity_factor").zr == (200, 1.6)


@pytest.mark.parametrize("interval", [None, 0, -300, np.nan])
def test_an_amount_over_no_interval_is_refused(interval):
    message = r'^rr is an accumulation \("mm"\) over an unknown interval\.\nExpected time bounds'
    with pytest.raises(DataError, match=message):
        to_rain_rate("mm", interval_seconds=interval, variable="rr")


def test_counts_reach_their_thresholds_exactly():
    counts = np.arange(20000, dtype=np.int16)
    rate = to_rain_rate("mm h-1").unpacking(0.01, 0.0)(counts)
    np.testing.assert_array_equal(rate, (counts / 100).astype(np.float32))


@given(
    value=st.floats(0, 500, width=32),
    units=st.sampled_from(RATES),
    scale=st.sampled_from([1, 0.01, 0.5, 2.0]),
    offset=st.sampled_from([0.0, -3.0, 100.0]),
)
@settings(max_examples=150)
def test_packing_and_unit_undo_each_other(value, units, scale, offset):
    name, factor = units
    stored = np.float64([value / factor - offset]) / scale
    assert to_rain_rate(name).unpacking(scale, offset)(stored) == pytest.approx([value], rel=1e-5, abs=1e-4)


@given(
    rate=st.floats(1e-3, 300),
    a=st.floats(50, 500),
    b=st.floats(1.2, 2.0),
    kind=st.sampled_from([np.float32, ">f4", np.float64]),
)
def test_reflectivity_is_inverted_for_any_relation(rate, a, b, kind):
    dbz = np.array([10 * np.log10(a * rate**b), np.nan], kind)
    out = to_rain_rate("dBZ", zr_a=a, zr_b=b)(dbz)
    assert out.dtype == np.dtype("=f4")
    assert out[0] == pytest.approx(rate, rel=1e-3)
    assert np.isnan(out[1])


@pytest.mark.parametrize(
    ("name", "units", "standard_name", "said"),
    [
        ("DBZH", "mm/h", "", 'a rate, by its units "mm/h", but its name is that of a reflectivity. One of the two is wrong'),
        ("rr", "mm/h", "equivalent_reflectivity_factor", 'a rate, by its units "mm/h", but its standard name equivalent_refl'),
        (
            "rr",
            "dBZ",
            "rainfall_rate",
            'a reflectivity, by its units "dBZ", but its standard name rainfall_rate is that of a r',
        ),
        ("rain_rate_from_reflectivity", "mm/h", "", ""),
        ("dbz", "dBZ", "", ""),
    ],
)
def test_a_name_of_a_reflectivity_with_other_units_is_doubted(tmp_path, caplog, name, units, standard_name, said):
    numbers = np.array([[[0, 10.0], [20, 30]]], "f4")
    path = write(tmp_path / "a.nc", numbers, name=name, units=units, standard_name=standard_name)
    rates = read_one(path, variable=name)
    expected = (10 ** (numbers / 10) / 200) ** (1 / 1.6) if units == "dBZ" else numbers
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert f"{path}: {name} is read as {said}" in caplog.text if said else not caplog.messages


THOUSANDTHS = np.arange(60_000).reshape(1, 200, 300) / 1000  # mm/h


@pytest.mark.parametrize(("units", "factor"), [(units, factor) for units, factor in RATES if factor != 1])
def test_rates_stored_in_single_precision_keep_to_their_side_of_thresholds(tmp_path, units, factor):
    """Many would be below it, and those at a threshold count as less."""
    path = write(tmp_path / "a.nc", (THOUSANDTHS / factor).astype("f4"), units=units, standard_name="rainfall_rate")
    np.testing.assert_array_equal(read_one(path), THOUSANDTHS.astype("f4"))


@pytest.mark.parametrize("dims", [*itertools.permutations(("time", "y", "x"))])
@pytest.mark.parametrize(("kind", "y_step"), [("<f4", -1), (">f4", 1)])
def test_so_do_those_of_turned_grids(tmp_path, dims, kind, y_step):
    order = [("time", "y", "x").index(dim) for dim in dims]
    stored = (THOUSANDTHS / 12).astype(kind).transpose(order)
    path = write(tmp_path / "a.nc", stored, dims=dims, units="mm/5min", standard_name="rainfall_rate")
    with edit(path) as file:
        file["y"][:] = y_step * np.arange(200.0)
    np.testing.assert_array_equal(read_one(path), THOUSANDTHS[:, ::-y_step].astype("f4"))


def test_other_rates_in_single_precision_stay_as_they_are(tmp_path):
    rates = np.random.default_rng(0).gamma(0.5, 4, (1, 200, 300))
    path = write(tmp_path / "a.nc", (rates / 12).astype("f4"), units="mm/5min", standard_name="rainfall_rate")
    np.testing.assert_allclose(read_one(path), rates, rtol=4e-7)
