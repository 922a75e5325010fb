"""Dry that is stored as a number of its own is dry; where nothing can tell, a warning says so."""

import numpy as np
import pytest
from makers.stored import edit, read_one, write

from nowcast.netcdf.forecast_reader import read_forecast

WET = np.linspace(0.2, 40, 48 * 60, dtype="f4").reshape(2, 24, 60)  # mm/h
DRY = np.arange(2 * 24 * 60).reshape(2, 24, 60) % 2 == 0
ABSENT = np.arange(2 * 24 * 60).reshape(2, 24, 60) % 12 < 2  # half of them dry
TRUTH = np.where(ABSENT, np.nan, np.where(DRY, 0, WET))
DBZ = 10 * np.log10(200 * WET**1.6)


def stored(values, dry, absent, kind="f4"):
    return np.where(ABSENT, absent, np.where(DRY, dry, values)).astype(kind)


def packed(values, dry, absent):
    return stored(np.clip(np.round((values + 32) * 2), 1, 254), dry, absent, "u1")


SAID = " is taken as dry, and the other codes as missing"
PACKED = {"units": "dBZ", "scale_factor": 0.5, "add_offset": -32.0}
KINDS = {  # stored numbers, what is told, and attributes
    "_Undetect": (stored(WET, -8888000, -9999000, "f8"), "", {"fill": -9999000.0, "_Undetect": -8888000.0}),
    "_Undetect of bytes": (packed(DBZ, 0, 255), "", {"fill": np.uint8(255), "_Undetect": np.uint8(0), **PACKED}),
    "gain, offset, nodata and undetect of ODIM": (packed(DBZ, 0, 255), "", {
        "units": "dBZ", "gain": 0.5, "offset": -32.0, "nodata": 255.0, "undetect": 0.0}),
    "these attributes as they are in groups": (packed(DBZ, 0, 255), "", {
        "units": "dBZ", "what_gain": "0.5", "what_offset": "-32", "what_nodata": 255.0, "what_undetect": 0.0}),
    "slope and intercept": (packed(DBZ, 0, 255), "", {
        "fill": np.uint8(255), "units": "dBZ", "slope": 0.5, "intercept": -32.0, "undetect": np.uint8(0)}),
    "undetect in the valid range's place": (packed(DBZ, 0, 255), "", {
        "fill": np.uint8(255), "undetect": np.uint8(0), "valid_min": np.uint8(1), **PACKED}),
    "flags": (packed(DBZ, 251, 252), "", {
        "flag_values": np.uint8([251, 252]), "flag_meanings": "no_echo outside_coverage", **PACKED}),
    "flags beside a fill": (packed(DBZ, 0, 250), "", {
        "fill": np.uint8(255), "flag_values": np.uint8([0, 250]), "flag_meanings": "below_detection clutter", **PACKED}),
    "-99 mm/h beside NaN": (stored(WET, -99, np.nan), f"-99{SAID}", {}),
    "-99 dBZ beside NaN": (stored(DBZ, -99, np.nan), f"-99{SAID}", {"units": "dBZ"}),
    "-99 dBZ beside -999": (stored(DBZ, -99, -999), f"-99{SAID}", {"units": "dBZ"}),
    "-0.099 m beside NaN": (stored(WET / 1000, -0.099, np.nan), f"-0.099{SAID}", {"units": "m", "accutime": 60.0}),
    "-1 beside a fill": (stored(WET, -1, -9999), f"-1{SAID}", {"fill": np.float32(-9999)}),
    "both undeclared": (stored(WET, -8888000, -9999000, "f8"), f"-8.888e+06{SAID}", {}),
    "a range that excludes 0": (stored(WET, 0, -9999), f"0{SAID}", {
        "fill": np.float32(-9999), "valid_min": np.float32(0.1)}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_dry_is_dry_and_missing_is_missing(tmp_path, caplog, kind):
    numbers, told, attributes = KINDS[kind]
    path = write(tmp_path / "a.nc", numbers, standard_name="", **attributes)
    fields = read_one(path, variable="rr")
    np.testing.assert_array_equal(np.isnan(fields), np.isnan(TRUTH))
    np.testing.assert_array_equal(fields == 0, TRUTH == 0)
    np.testing.assert_allclose(fields, TRUTH, rtol=0.06 if numbers.dtype == np.uint8 else 1e-5)
    assert caplog.messages == ([f"{path}: rr: {told}"] if told else [])


def test_a_number_beyond_any_rain_is_missing_beside_one_for_dry(tmp_path):
    fields = read_one(write(tmp_path / "a.nc", stored(WET, -1, 1e20)))
    np.testing.assert_array_equal(fields == 0, TRUTH == 0)
    np.testing.assert_array_equal(np.isnan(fields), np.isnan(TRUTH))


def test_negative_numbers_beside_dry_zeros_stay_missing(tmp_path, caplog):
    numbers = np.where(ABSENT, np.where(DRY, -1, -3), np.where(DRY, 0, WET)).astype("f4")
    fields = read_one(write(tmp_path / "a.nc", numbers))
    np.testing.assert_array_equal(fields, np.where(ABSENT, np.nan, np.where(DRY, 0, WET)).astype("f4"))
    assert not caplog.messages


def test_a_lone_number_that_could_be_dry_or_missing_is_told(tmp_path, caplog):
    path = write(tmp_path / "a.nc", stored(WET, -99, -99))
    assert np.isnan(read_one(path)).mean() > 0.4
    (said,) = caplog.messages
    assert said == (
        f"{path}: rr: no known cell is dry, and -99 is taken as missing. "
        "If it means dry, state that by an attribute _Undetect = -99"
    )
    assert not np.isnan(read_one(write(tmp_path / "b.nc", stored(WET, -99, -99), _Undetect=np.float32(-99)))).any()


def test_a_record_without_any_dry_cell_is_told(tmp_path, caplog):
    path = write(tmp_path / "a.nc", stored(WET, np.nan, np.nan))
    read_one(path)
    doubt = "if dry cells are stored as missing, scores and training cover rainy cells only"
    assert caplog.messages == [f"{path}: rr: no known cell is dry: {doubt}"]


@pytest.mark.parametrize(
    ("attributes", "rate"),
    [({"units": "dBZ", "scale_factor": 0.4, "add_offset": -30.0}, 1153), ({"units": "mm/h", "scale_factor": 0.1}, 25.5)],
)
def test_the_largest_byte_is_missing_if_it_is_frequent_or_incredible(tmp_path, caplog, attributes, rate):
    numbers = np.where(ABSENT, 255, np.arange(48 * 60).reshape(2, 24, 60) % 150).astype("u1")
    path = write(tmp_path / "a.nc", numbers, **attributes)
    np.testing.assert_array_equal(np.isnan(read_one(path)), ABSENT)
    share = f"{100 * ABSENT.mean():.3g}"
    assert caplog.messages == [f"{path}: rr: 255, which would be {rate} mm/h in {share} % of the cells, is taken as missing"]


def test_a_largest_byte_that_is_one_of_many_values_is_rain(tmp_path, caplog):
    numbers = (np.arange(48 * 60) % 256).astype("u1").reshape(2, 24, 60)
    fields = read_one(write(tmp_path / "a.nc", numbers, scale_factor=0.1))
    np.testing.assert_allclose(fields, numbers * 0.1, rtol=1e-6)
    assert not caplog.messages


NEAR, FAR = np.where(DRY, 0, WET), ABSENT & DRY  # cells that hold the number in question
LARGEST = {  # stored numbers, what is told, and attributes
    "65534 beside a declared 65535": (
        np.where(FAR, 65534, np.round(NEAR * 100)).astype("u2"), "65534, which would be 655.3 mm/h", {
        "fill": np.uint16(65535), "scale_factor": 0.01}),
    "32767": (
        np.where(FAR, 32767, np.round(NEAR * 100)).astype("i2"), "32767, which would be 327.7 mm/h", {"scale_factor": 0.01}),
    "254 beside a declared 255": (np.where(FAR, 254, np.round(NEAR)).astype("u1"), "254, which would be 254 mm/h", {
        "fill": np.uint8(255)}),
    "99999 of 32 bits": (
        np.where(FAR, 99999, np.round(NEAR * 100)).astype("i4"), "99999, which would be 1000 mm/h", {"scale_factor": 0.01}),
    "99 dBZ": (
        np.where(FAR, 99, 10 * np.log10(200 * NEAR.clip(0.01) ** 1.6)).astype("f4"),
        "99, which would be more than 10000 mm/h", {"units": "dBZ"}),
    **{
        f"{number} of floats": (np.where(FAR, number, NEAR).astype("f4"), f"{number}, which would be {rate} mm/h", {})
        for number, rate in (
            (255, 255), (99.9, 99.9), (999.9, 999.9), (327.67, 327.7), (9999.99, "10000"), (65535, "more than 10000"),
            (1e20, "more than 10000"))
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", LARGEST)
def test_a_frequent_number_beyond_credible_rain_is_missing(tmp_path, caplog, kind):
    numbers, told, attributes = LARGEST[kind]
    path = write(tmp_path / "a.nc", numbers, **attributes)
    fields = read_one(path)
    np.testing.assert_array_equal(np.isnan(fields), FAR)
    np.testing.assert_allclose(fields[~FAR], NEAR[~FAR], atol=0.6)
    assert caplog.messages == [f"{path}: rr: {told} in {100 * FAR.mean():.3g} % of the cells, is taken as missing"]


def test_a_share_of_nearly_all_cells_is_told_in_plain_digits(tmp_path, caplog):
    numbers = np.full((2, 24, 60), 999.9, np.float32)
    numbers[0, :2, :2] = 1
    read_one(path := write(tmp_path / "a.nc", numbers))
    assert caplog.messages == [f"{path}: rr: 999.9, which would be 999.9 mm/h in 99.9 % of the cells, is taken as missing"]


def test_several_codes_are_missing_and_few_cells_of_nines_suffice(tmp_path, caplog):
    numbers = np.where(FAR, 65535, NEAR)
    numbers[0, :2, :10] = 9999.9
    path = write(tmp_path / "a.nc", numbers.astype("f4"))
    np.testing.assert_array_equal(np.isnan(read_one(path)), numbers > 100)
    assert "rr: 65535, which would be more than 10000 mm/h in" in caplog.text
    assert "and 9999.9, which would be 10000 mm/h in 0.694 % of the cells, are taken as missing" in caplog.text


def test_rare_and_varied_high_rates_are_rain(tmp_path, caplog):
    few = NEAR.copy()
    few[0, 0, :10] = 255
    many = np.where(FAR, 250 + 5 * np.random.default_rng(0).random(FAR.shape), NEAR)
    for name, values in (("few", few), ("many", many)):
        np.testing.assert_array_equal(read_one(write(tmp_path / f"{name}.nc", values.astype("f4"))), values.astype("f4"))
    told = f"{100 * FAR.mean():.0f} % of the known cells would have 200 mm/h or more. Are its units right?"
    assert caplog.messages == [f"{tmp_path / 'many.nc'}: rr: {told}"]


@pytest.mark.parametrize(("units", "share"), [("mm/h", None), ("m/h", 49), ("mm/min", 34), ("cm/h", None)])
def test_units_that_would_make_too_much_rain_are_doubted(tmp_path, caplog, units, share):
    """Rates of 0.05 to 10, half of the cells dry."""
    path = write(tmp_path / "a.nc", np.where(DRY, 0, WET / 4).astype("f4"), units=units, standard_name="")
    read_one(path, variable="rr")
    doubts = [text for text in caplog.messages if text.endswith("mm/h or more. Are its units right?")]
    doubt = f"{path}: rr: {share} % of the known cells would have 200 mm/h or more. Are its units right?"
    assert doubts == ([] if share is None else [doubt])


def test_units_in_a_relative_path_are_doubted_once(tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read_one(write("a.nc", np.where(DRY, 0, WET / 4).astype("f4"), units="m/h", standard_name=""), variable="rr")
    assert [text for text in caplog.messages if "200 mm/h" in text] == [
        "a.nc: rr: 49 % of the known cells would have 200 mm/h or more. Are its units right?"
    ]


def forecast_of(path, numbers, **attributes):
    """A forecast of two lead times, from 300 s before the first."""
    write(path, numbers, **attributes)
    with edit(path) as file:
        start = file.createVariable("forecast_reference_time", "i4")
        start.setncatts({"standard_name": "forecast_reference_time", "units": "seconds since 1970-01-01"})
        start[...] = file["time"][0] - 300
    return path


@pytest.mark.parametrize("kind", ["-99 mm/h beside NaN", "-99 dBZ beside -999", "a range that excludes 0"])
def test_dry_is_dry_in_forecasts_of_others(tmp_path, caplog, kind):
    numbers, told, attributes = KINDS[kind]
    path = forecast_of(tmp_path / "f.nc", numbers, **attributes)
    np.testing.assert_allclose(read_forecast(path).read(0), TRUTH, rtol=1e-5)
    assert caplog.messages == [f"{path}: rr: {told}"]


def test_forecasts_a_little_below_0_are_dry(tmp_path, caplog):
    below = -np.linspace(0, 0.8, WET.size, dtype="f4").reshape(WET.shape)
    fields = read_forecast(forecast_of(tmp_path / "f.nc", stored(WET, below, np.nan))).read(0)
    np.testing.assert_array_equal(fields, TRUTH)
    assert not caplog.messages
    assert np.isnan(
        read_forecast(forecast_of(tmp_path / "one.nc", np.where(ABSENT, -1, WET).astype("f4"))).read(0)[ABSENT]
    ).all()


@pytest.mark.parametrize("scale", [0.1, 0.05])
def test_a_packed_1_below_0_stays_missing_in_forecasts(tmp_path, scale):
    numbers = np.where(ABSENT, -1, np.where(DRY, 0, np.round(WET / scale))).astype("i2")
    path = forecast_of(tmp_path / "f.nc", numbers, scale_factor=scale)
    np.testing.assert_array_equal(np.isnan(read_forecast(path).read(0)), ABSENT)


@pytest.mark.parametrize(("lowest", "told"), [(-0.8, True), (-0.005, False)])
def test_many_numbers_below_0_are_told(tmp_path, caplog, lowest, told):
    below = np.linspace(lowest, 0.05, WET.size, dtype="f4").reshape(WET.shape)
    path = write(tmp_path / "a.nc", stored(WET, below, np.nan))
    fields = read_one(path)
    share = (DRY & ~ABSENT & (below < -0.01)).mean()
    assert np.isnan(fields).mean() == pytest.approx(ABSENT.mean() + share)
    least = below[DRY & ~ABSENT].min()
    doubt = f"{path}: rr: {100 * share:.0f} % of the cells are below 0, down to {least:g} mm/h, and taken as missing. Is it"
    assert [text.startswith(doubt) for text in caplog.messages] == ([True] if told else [])


def test_a_largest_byte_is_missing_in_forecasts_of_others(tmp_path):
    numbers = np.where(ABSENT, 255, np.round(NEAR)).astype("u1")
    np.testing.assert_array_equal(np.isnan(read_forecast(forecast_of(tmp_path / "f.nc", numbers)).read(0)), ABSENT)


def test_a_gain_of_decoded_numbers_is_not_applied_again(tmp_path):
    path = write(tmp_path / "a.nc", NEAR.astype("f4"), gain=0.5, offset=-32.0)
    np.testing.assert_array_equal(read_one(path), NEAR.astype("f4"))
    both = write(tmp_path / "b.nc", np.round(NEAR).astype("i2"), gain=0.5, offset=-32.0, scale_factor=2.0)
    np.testing.assert_array_equal(read_one(both), 2 * np.round(NEAR))


@pytest.mark.parametrize(
    ("numbers", "attributes", "told"),
    [
        (WET, {"valid_max": np.float32(30)}, "25 % of the rain, 30 to 40 mm/h,"),
        (
            np.round(WET * 100).astype("i2"),
            {"scale_factor": 0.01, "valid_range": np.int16([0, 150])},
            "97 % of the rain, 1.51 to 40 mm/h,",
        ),
        (DBZ, {"units": "dBZ", "valid_max": np.float32(45)}, "41 % of the rain, 23.7 to 40 mm/h,"),
        (np.where(DRY, 200, WET), {"valid_max": np.float32(150)}, ""),
        (WET, {"valid_range": np.float32([0, 150])}, ""),
    ],
    ids=["too small", "unpacked limits of packed numbers", "of reflectivity", "a code outside", "fits"],
)
def test_rain_outside_of_the_declared_range_is_missing_and_told(tmp_path, caplog, numbers, attributes, told):
    path = write(tmp_path / "a.nc", np.where(ABSENT, 0, numbers).astype(numbers.dtype), **attributes)
    read_one(path)
    expected = f"{path}: rr: {told} is outside of the declared valid range and taken as missing. "
    assert caplog.messages == ([f"{expected}Is the range right? In CF it is in stored numbers"] if told else [])
