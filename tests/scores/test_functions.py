"""The scores as functions of arrays: by hand, and of DataArrays with other times, rows and units."""

import numpy as np
import pytest
import xarray as xr
from makers import rain

from nowcast import scores
from nowcast.errors import DataError, UsageError

FORECAST = np.array([[[0, 2, 2, 0]], [[2, 2, 0, np.nan]]])
OBSERVED = np.array([[[0, 2, 0, 2]], [[2, np.nan, 0, 2]]])


def test_a_contingency_score_by_hand():
    assert scores.csi(FORECAST, OBSERVED) == 2 / 4
    assert scores.csi(FORECAST, OBSERVED, threshold=1.0, by_lead=True).tolist() == [1 / 3, 1]
    assert scores.pod(FORECAST, OBSERVED, [1, 2]).tolist() == [2 / 3, 2 / 3]
    assert scores.mae(FORECAST, OBSERVED) == 4 / 6
    many = np.stack([FORECAST, FORECAST]), np.stack([OBSERVED, OBSERVED])
    assert scores.csi(*many) == scores.csi(FORECAST, OBSERVED)


def test_every_score_is_a_function_with_help():
    assert {name for name, score in scores.SCORES.items() if score.kind in scores.ARRAY_KINDS} <= set(dir(scores))
    assert "threshold: mm/h" in scores.csi.__doc__
    assert scores.csi.__doc__.startswith("Compute the critical success index")
    with pytest.raises(AttributeError):
        _ = scores.cis
    with pytest.raises(AttributeError):
        _ = scores.sum_60_min_crps_fair  # arrays do not say their time step


def test_scores_of_windows_probabilities_and_members():
    observed, forecast = rain(frames=3), rain(frames=3, motion=(0, 1))
    perfect = scores.fss(observed, observed, 1.0, scale_km=[5, 20], spacing_km=1.0)
    assert perfect.tolist() == [1, 1]
    assert 0 < scores.fss(forecast, observed, 1.0, spacing_km=1.0) < 1
    with pytest.raises(DataError, match="fss needs the distance between cells"):
        scores.fss(forecast, observed)
    certain = (observed >= 1).astype(float)
    assert scores.brier(certain, observed, 1.0) == 0
    assert scores.brier(np.stack([certain, 1 - certain]), observed, [1.0, 1.0 + 1e-9]).tolist() == [0, 1]
    members = np.stack([observed - 1, observed + 1])
    assert scores.crps_ecdf(members, observed) == pytest.approx(0.5, abs=1e-5)
    assert scores.crps(observed[None], observed) == 0
    assert 0.2 < scores.crps(members, observed) < 0.8


def labelled(fields, *, start=0, units="mm h-1"):
    times = np.datetime64("2020-06-01T00:00:00") + (start + np.arange(len(fields))) * np.timedelta64(300, "s")
    metres = {"units": "m"}
    coordinates = {"time": times, "y": ("y", 1000.0 * np.arange(fields.shape[1])[::-1], metres),
                   "x": ("x", 1000.0 * np.arange(fields.shape[2]), metres)}  # fmt: skip
    return xr.DataArray(fields, coordinates, ("time", "y", "x"), "rain", {"units": units})


def test_data_arrays_are_paired_by_time_and_place_and_converted():
    observed = np.maximum(rain(frames=8), 0.1)
    forecast = labelled(observed[3:6], start=3)[:, ::-1]  # rows from the south
    dbz = labelled(10 * np.log10(200 * observed**1.6), units="dBZ")
    assert scores.mae(forecast, dbz) < 1e-4
    assert scores.csi(forecast, dbz, threshold=1.05) == 1
    assert scores.fss(forecast, dbz, threshold=1.05) == pytest.approx(1)
    chances = xr.concat([(forecast >= 1.05).astype("f4")], "threshold").transpose("threshold", ...).assign_attrs(units="1")
    assert scores.brier(chances.rename("p"), dbz, [1.05]) == 0
    with pytest.raises(DataError, match="no frame at any time of the forecast, 2020-06-01T01:15:00Z"):
        scores.mae(labelled(observed[:3], start=15), dbz)
    with pytest.raises(DataError, match="on another grid than the observation: 47 × 56 cells in place of 48 × 56"):
        scores.mae(forecast[:, 1:], dbz)


def test_two_quantities_are_not_compared():
    observed = rain(frames=3)
    with pytest.raises(DataError, match=r"^the forecast holds dimensionless and the observation rain_rate$"):
        scores.mae(labelled(observed, units="1"), labelled(observed))


def test_probabilities_are_taken_by_the_name_of_their_threshold():
    observed = rain(frames=4)
    fields = [labelled((observed >= level) * np.float32(0.9), units="1") for level in (1.0, 5.0)]
    chances = xr.concat(fields, xr.DataArray([1.0, 5.0], dims="threshold", name="threshold")).rename("p")
    truth = labelled(observed)
    one, five = (scores.brier(chances.values[n : n + 1], observed, level) for n, level in enumerate((1.0, 5.0)))
    assert one != five
    np.testing.assert_allclose(scores.brier(chances, truth, [5, 1]), [five, one])
    np.testing.assert_allclose(scores.brier(chances[::-1], truth, [1, 5]), [one, five])
    np.testing.assert_allclose(scores.brier(chances, truth), [one, five])  # those that it has
    assert scores.brier(chances, truth, 5) == pytest.approx(five)
    assert (
        scores.brier(chances.sel(threshold=5), truth, 5) == scores.brier(chances.sel(threshold=5), truth) == pytest.approx(five)
    )
    for near in (1.02, 0.98):
        with pytest.raises(UsageError, match=f"no probabilities of {near} mm/h"):
            scores.brier(chances, truth, near)
    rounded = chances.assign_coords(threshold=np.array([0.1, 0.7], np.float32))
    np.testing.assert_allclose(scores.brier(rounded, truth, [0.1, 0.7]), scores.brier(rounded, truth))
    for part in (chances, chances.sel(threshold=1)):
        with pytest.raises(UsageError, match=r"roc_area: the forecast has no probabilities of 2 mm/h\.\nIt has those of 1"):
            scores.roc_area(part, truth, 2)
        with pytest.raises(UsageError, match="no probabilities of 2 mm/h"):
            scores.roc_area(part, truth, [1, 2])


def test_units_tell_probabilities_from_rain():
    observed = np.minimum(rain(frames=4), 20)
    truth, fields = labelled(observed), (observed >= 1) * np.float32(0.9)
    expected = scores.brier(fields, observed, 1)
    of_one, name = labelled(fields, units="1").rename("p"), "probability_of_rainfall_rate_above_threshold"
    in_percent = (of_one * np.float32(100)).assign_attrs(units="%")
    named, without = of_one.drop_attrs().rename(name), of_one.drop_attrs()
    compared = of_one.assign_attrs(standard_name="rainfall_rate")  # xarray keeps that of the rain
    unit = without.assign_attrs(unit="1")
    for chances in (of_one, in_percent, named, without.assign_attrs(long_name=name), compared, unit):
        assert scores.brier(chances, truth, 1) == pytest.approx(expected)
    assert scores.brier(truth >= 1, truth, 1) == 0  # bool, in whose attributes "mm h-1" stands
    assert compared.attrs == {"units": "1", "standard_name": "rainfall_rate"}
    for units in ("mm h-1", "kg m-2 s-1", "mm", "dBZ", "K"):
        with pytest.raises(DataError, match=f'^"p" has the units "{units}", which are not those of probabilities'):
            scores.brier(of_one.assign_attrs(units=units), truth, 1)
        with pytest.raises(DataError, match=f'^"{name}" has the units "{units}", which are not those of probabilities'):
            scores.brier(named.assign_attrs(units=units), truth, 1)
    with pytest.raises(DataError, match=r'^"p" has no units\.\nExpected probabilities in units of "1" or "%", such as'):
        scores.roc_area(without, truth, 1)
    for below in ("below", "Below"):
        with pytest.raises(DataError, match=r"probabilities of values below the threshold\.\nExpected those of reaching it"):
            scores.brier(of_one.rename(name.replace("above", below)), truth, 1)


def test_a_quantity_that_is_no_rain_needs_its_own_threshold_and_range():
    values = rain(frames=3) / np.float32(60)  # 0 to 1
    forecast, observed = labelled(values[:, :, ::-1].copy(), units="1"), labelled(values, units="1")
    with pytest.raises(UsageError, match='csi needs a threshold for values in units "1", which are no rain'):
        scores.csi(forecast, observed)
    assert scores.csi(observed, observed, 0.05) == 1
    with pytest.raises(UsageError, match='crps is integrated over rain rates, but the arrays hold values in units "1"'):
        scores.crps(xr.concat([forecast, observed], "realization"), observed)
    as_rain = scores.ssim(labelled(forecast.values * 30), labelled(values * 30))  # of the range 30 mm/h
    assert as_rain < 0.99
    assert scores.ssim(forecast, observed) == pytest.approx(as_rain, rel=1e-5)


def test_thresholds_are_read_in_their_units():
    observed = rain(frames=4)
    chances = labelled((observed >= 1) * np.float32(0.9), units="1").rename("p")
    truth, expected = labelled(observed), scores.brier((observed >= 1)[None] * np.float32(0.9), observed, 1)
    of_one = chances.assign_coords(threshold=((), 1 / 3.6e6, {"units": "m s-1"}))
    assert scores.brier(of_one, truth) == scores.brier(of_one, truth, 1) == pytest.approx(expected)
    with pytest.raises(UsageError, match=r"no probabilities of 5 mm/h\.\nIt has those of 1 mm/h"):
        scores.brier(of_one, truth, 5)
    for value, units in (("1", "mm h-1"), (np.nan, "mm h-1"), (1.0, "K"), (1.0, "mm"), (1.0, "dBZ")):
        with pytest.raises(UsageError, match=r"the thresholds of the forecast are .*\nExpected rain rates"):
            scores.brier(chances.assign_coords(threshold=((), value, {"units": units})), truth)


def test_a_forecast_that_states_its_start_is_scored_without_a_warning(caplog):
    observed = rain(frames=6)
    forecast = labelled(observed[3:], start=3)
    start = ((), forecast.time.values[0] - np.timedelta64(300, "s"), {"standard_name": "forecast_reference_time"})
    assert scores.mae(forecast.assign_coords(forecast_reference_time=start), labelled(observed)) < 1e-4
    assert not caplog.text


def test_times_of_a_forecast_that_are_not_observed_are_told(caplog):
    observed = rain(frames=8)
    error = scores.mae(labelled(observed[3:6] + 1, start=3), labelled(observed[:5]))
    assert error == pytest.approx(1, abs=1e-5), "of the times that are observed"
    assert caplog.messages == ["the observation has no frame at 1 of 3 times of the forecast, the first 2020-06-01T00:25:00Z"]


def test_frames_of_a_forecast_and_an_observation_may_be_some_seconds_apart():
    observed = labelled(rain(frames=6))
    for seconds in (-10, 10):
        forecast = observed[2:5].assign_coords(time=observed.time.values[2:5] + np.timedelta64(seconds, "s"))
        assert scores.mae(forecast, observed) == 0


def test_one_frame_is_scored_and_times_that_are_none_are_refused():
    observed = labelled(rain(frames=6))
    assert scores.mae(observed[:1], observed[:1]) == 0
    absent = observed.assign_coords(time=[*observed.time.values[:5], np.datetime64("NaT")])
    for forecast, truth in ((absent, observed), (observed, absent)):
        with pytest.raises(DataError, match="has missing times"):
            scores.mae(forecast, truth)
    with pytest.raises(DataError, match=r"^rain has no times\.\nExpected a time"):
        scores.mae(observed.drop_vars("time"), observed)
    for start in (15, 1000):
        with pytest.raises(DataError, match=r"no frame at any time of the forecast.*\nIt goes from 2020-06-01T00:00:00Z to"):
            scores.mae(labelled(observed.values, start=start), observed)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"csi: the forecast has the shape \(2, 1, 4\) and the observation \(1, 1, 4\)"):
        scores.csi(FORECAST, OBSERVED[:1])
    with pytest.raises(UsageError, match="mae takes no threshold"):
        scores.mae(FORECAST, OBSERVED, 1.0)
    with pytest.raises(UsageError, match=r"Expected a forecast \(threshold, time, y, x\) with 2 thresholds"):
        scores.brier(FORECAST, OBSERVED, [1, 2])
    with pytest.raises(UsageError, match="'one' is not a number"):
        scores.csi(FORECAST, OBSERVED, "one")
    with pytest.raises(UsageError, match="the scores take DataArrays: give a variable of the Dataset"):
        scores.mae(labelled(FORECAST).to_dataset(name="rain"), labelled(OBSERVED))
    with pytest.raises(UsageError, match=r"the observation \('y', 'x'\)\.\nExpected \(time, y, x\)"):
        scores.mae(labelled(FORECAST), labelled(OBSERVED)[0])


def test_one_data_array_and_one_numpy_array_are_refused():
    observed = rain(frames=3)
    for pair, says in (
        ((labelled(observed), observed), "the forecast is a DataArray but the observation is not"),
        ((observed, labelled(observed)), "the observation is a DataArray but the forecast is not"),
    ):
        with pytest.raises(UsageError, match=rf"^{says}, .*\nExpected two DataArrays, or two NumPy"):
            scores.mae(*pair)


def test_arrays_that_would_lose_their_units_are_refused():
    observed = labelled(rain(frames=3), units="dBZ")
    with pytest.raises(UsageError, match=r"^the forecast is a list of arrays of xarray\.\nExpected one DataArray, such as"):
        scores.mae(list(observed), list(observed))
    with pytest.raises(UsageError, match=r"^the forecast and the observation are Variable and DataArray\.\nExpected two"):
        scores.mae(observed.variable, observed)


def test_numbers_that_are_none_are_refused():
    observed = rain(frames=3)
    for scale in (0, -5, [10, 0]):
        with pytest.raises(UsageError, match=r"^scale_km = .*: write the side of the windows of fss"):
            scores.fss(observed, observed, scale_km=scale, spacing_km=1)
    for threshold in (0, -1, [1, np.inf], [-0.5, 5]):
        with pytest.raises(UsageError, match=r"^threshold = .*: write a number above 0, such as 1, or several"):
            scores.csi(observed, observed, threshold)
    for threshold in ([[1, 5]], np.nan, [1, None], [], True):
        with pytest.raises(UsageError, match="is not a number: write a number or a list of numbers"):
            scores.csi(observed, observed, threshold)
    for spacing in (-1, 0, [1, 2, 3], np.nan):
        with pytest.raises(UsageError, match=r"write the distance between cells|is not a number"):
            scores.fss(observed, observed, spacing_km=spacing)
    with pytest.raises(UsageError, match="the forecast is an array of object"):
        scores.mae(observed.astype(object), observed)
    for percent in (30.0, -0.2):
        says = rf"the forecast has {percent:g} as a probability\.\nExpected 0 to 1: divide percentages by 100"
        with pytest.raises(UsageError, match=says):
            scores.brier(np.full((3, 48, 56), percent), observed)


def test_a_forecast_a_little_below_0_is_dry_and_keeps_its_misses():
    observed = rain(frames=4)
    forecast = np.where(observed > 3, np.float32(-0.2), observed)
    expected = scores.pod(np.maximum(forecast, 0), observed, 1)
    assert expected < 1
    assert scores.pod(labelled(forecast), labelled(observed), 1) == scores.pod(forecast, observed, 1) == expected
    flux = labelled(forecast / 3600, units="kg m-2 s-1")
    assert scores.pod(flux, labelled(observed), 1) == pytest.approx(expected)
    amounts = labelled(forecast / 12, units="mm")  # of 5 minutes
    assert scores.pod(amounts, labelled(observed), 1) == pytest.approx(expected)
    for number, units in ((-9999, "mm h-1"), (-1, "0.1 mm h-1"), (-0.5, "mm")):  # stay missing: -0.5 mm are -6 mm/h
        factor = {"mm h-1": 1, "0.1 mm h-1": 10, "mm": 1 / 12}[units]
        missing = np.where(observed > 3, np.float32(number), observed * np.float32(factor))
        assert scores.pod(labelled(missing, units=units), labelled(observed), 1) == pytest.approx(1)


def test_times_with_a_zone_are_compared_in_utc():
    observed = labelled(rain(frames=6))
    there = observed.assign_coords(time=observed.indexes["time"].tz_localize("UTC").tz_convert("Europe/Berlin"))
    assert scores.mae(observed[2:4], there) == scores.mae(there[2:4], observed) == 0


def test_members_and_thresholds_are_found_wherever_they_are():
    observed = rain(frames=4)
    members = xr.concat([labelled(observed * factor) for factor in (0.5, 2)], "realization")
    expected = scores.crps_fair(members, labelled(observed))
    for dims in (("time", "realization", "y", "x"), ("y", "x", "time", "realization")):
        assert scores.crps_fair(members.transpose(*dims), labelled(observed)) == pytest.approx(expected)
    chances = (members >= 1).astype("f4").rename(realization="threshold").rename("p").assign_attrs(units="1")
    chances = chances.assign_coords(threshold=[1.0, 2.0])
    moved = chances.transpose("time", "threshold", ...)
    np.testing.assert_allclose(scores.brier(moved, labelled(observed)), scores.brier(chances, labelled(observed)))


def test_members_are_not_scored_as_cases_nor_cases_as_members():
    observed = labelled(rain(frames=4))
    several = xr.concat([observed * factor for factor in (0.5, 2)], "realization")
    numbered = several.rename(realization="run").assign_coords(run=("run", [0, 1], {"standard_name": "realization"}))
    for forecast in (several, several.rename(realization="member"), numbered, several.quantile([0.1, 0.9], "realization")):
        for score in (scores.csi, scores.mae, scores.fss):
            with pytest.raises(UsageError, match=f'the dimension "{forecast.dims[0]}", whose members or quantiles'):
                score(forecast.transpose("time", ...) if score is scores.mae else forecast, observed)
    assert scores.mae(several.mean("realization"), observed) == pytest.approx(float((observed / 4).mean()), rel=1e-3)
    starts = np.array(["2020-05-31T23:55", "2020-06-01T00:00"], "datetime64[ns]")
    cases = several.rename(realization="forecast_reference_time").assign_coords(forecast_reference_time=starts)
    named = several.rename(realization="case").assign_coords(forecast_reference_time=("case", starts))
    for forecast in (cases, named):
        with pytest.raises(UsageError, match=f'the forecast has times along "{forecast.dims[0]}": it holds several cases'):
            scores.crps_fair(forecast, observed)


def test_quantiles_are_not_scored_as_members():
    observed = labelled(rain(frames=4))
    quantiles = xr.concat([observed * factor for factor in (0.5, 2)], "realization").quantile([0.1, 0.9], "realization")
    for score, forecast in ((scores.crps_fair, quantiles), (scores.crps, quantiles.rename(quantile="percentile"))):
        with pytest.raises(UsageError, match=f'the dimension "{forecast.dims[0]}", whose quantiles this score would take'):
            score(forecast, observed)
    assert scores.mae(quantiles[0], observed) > 0


def test_lagged_members_and_a_single_member_are_scored():
    """Lagged members have reference times of their own, but the same valid times."""
    observed = labelled(rain(frames=4))
    members = xr.concat([observed * factor for factor in (0.5, 2)], "realization")
    starts = np.array(["2020-05-31T23:50", "2020-05-31T23:55"], "datetime64[ns]")
    lagged = members.assign_coords(forecast_reference_time=("realization", starts))
    assert scores.crps_fair(lagged, observed) == scores.crps_fair(members, observed)
    later = observed.time.values + np.array([0, 300], "timedelta64[s]")[:, None]
    with pytest.raises(UsageError, match='the forecast has times along "realization"'):
        scores.crps_fair(members.assign_coords(valid_time=(("realization", "time"), later)), observed)
    assert scores.mae(members[1:], observed) == scores.mae(members[1], observed) > 0


def test_only_frames_near_the_forecast_are_read(monkeypatch):
    observed, written = labelled(rain(frames=60)), []
    whole = xr.Dataset.to_netcdf
    monkeypatch.setattr(
        xr.Dataset, "to_netcdf", lambda self, *a, **k: (written.append(self.sizes["time"]), whole(self, *a, **k))[1]
    )
    near = observed[30:33]
    assert scores.mae(near.copy(data=near.values + 1), observed) == pytest.approx(1, abs=1e-5)
    assert written == [19, 3]  # eight before and after
    assert scores.mae(near.copy(data=near.values + 1), observed[::-1]) == pytest.approx(1, abs=1e-5)
    assert written[2:] == [19, 3], "in any order of the times"
