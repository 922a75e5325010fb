"""Fractions skill score and structural similarity: by hand, by brute force, against other packages, with missing pixels."""

import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from nowcast.scores import Setup, tallies
from nowcast.scores.pixels import f1, fss_useful, sums
from nowcast.scores.spatial import SSIM_CELLS, WindowSums, fss, ssim, window_cells

NAN = np.nan
LEVELS = np.array([0, 0, 0, 0.3, 1, 2, 7, 20], np.float32)
THRESHOLDS = (1.0, 5.0)
SCALES = (1.0, 3.0, 5.0)


def tally(forecast, observed, *, scales=SCALES, thresholds=THRESHOLDS, spacing=(1.0, 1.0)):
    known = np.isfinite(forecast) & np.isfinite(observed)
    setup = Setup(thresholds, spacing, data_range=30.0, scales_km=scales)
    return tallies({"x": forecast}, observed, known, setup)["x"]


def random_case(seed, shape=(2, 16, 18), missing=0.0, blobs=0):
    """(forecast, observed): levels, with single pixels and rectangles of one side missing."""
    rng = np.random.default_rng(seed)
    pair = rng.choice(LEVELS, size=(2, *shape))
    pair[rng.random(pair.shape) < missing] = NAN
    for _ in range(blobs):
        top, left = (rng.integers(size) for size in shape[1:])
        pair[rng.integers(2), :, top : top + 4, left : left + 6] = NAN
    return pair


@st.composite
def cases(draw):
    missing, blobs = draw(st.sampled_from([(0.0, 0), (0.0, 2), (0.01, 1), (0.2, 0)]))
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 20), st.integers(1, 20)))
    return random_case(draw(st.integers(0, 2**32)), shape, missing, blobs)


def test_scales_become_the_nearest_odd_number_of_cells():
    assert [window_cells(scale, (1.0, 1.0))[0] for scale in (0.4, 1, 2, 3, 3.9, 4, 5, 10, 20, 40)] == [
        *(1, 1, 3, 3, 3, 5, 5, 11, 21, 41)
    ]
    assert window_cells(10, (2.0, 1.0)) == (5, 11)
    assert window_cells(0.3, (0.1, 0.1)) == (3, 3)  # 0.3 / 0.1 is less than 3 in floating point


def test_fss_of_three_by_three_windows_by_hand():
    observed = np.zeros((1, 3, 4), np.float32)
    forecast = observed.copy()
    observed[0, 1, 0] = forecast[0, 1, 2] = 2  # two windows of 3 x 3: observed in the left one, forecast in both
    s = tally(forecast, observed, scales=(3.0,))["windows"]
    assert s.num_pairs.tolist() == [[2]]
    np.testing.assert_allclose(s.sum_sq_difference[0, :, 0], [1 / 81, 0])
    np.testing.assert_allclose(s.sum_sq_fractions[0, :, 0], [3 / 81, 0])
    np.testing.assert_allclose(fss(s)[0, :, 0], [2 / 3, NAN])


def fss_by_brute_force(forecast, observed, threshold, cells):
    numerator = denominator = number = 0
    y, x = forecast.shape
    for top in range(y - cells + 1):
        for left in range(x - cells + 1):
            f, o = (field[top : top + cells, left : left + cells] for field in (forecast, observed))
            if np.isfinite(f + o).all():
                number += 1
                numerator += ((f >= threshold).mean() - (o >= threshold).mean()) ** 2
                denominator += (f >= threshold).mean() ** 2 + (o >= threshold).mean() ** 2
    return number, 1 - numerator / denominator if denominator else NAN


@pytest.mark.slow
@settings(max_examples=40)
@given(cases())
def test_fss_equals_brute_force_over_windows_that_are_wholly_known(case):
    s = tally(*case)["windows"]
    for lead in range(len(case[0])):
        for j, threshold in enumerate(THRESHOLDS):
            for k, scale in enumerate(SCALES):
                number, value = fss_by_brute_force(case[0][lead], case[1][lead], threshold, int(scale))
                assert s.num_pairs[lead, k] == number
                np.testing.assert_allclose(fss(s)[lead, j, k], value, rtol=1e-12)


@settings(max_examples=40)
@given(cases())
def test_fss_of_single_cells_is_pointwise(case):
    s = tally(*case)
    np.testing.assert_array_equal(s["windows"].num_pairs[:, 0], s["pairs"].num_pairs)
    np.testing.assert_allclose(fss(s["windows"])[..., 0], f1(s["pairs"]), rtol=1e-12)


@settings(max_examples=40)
@given(cases(), st.integers(1, 4))
def test_a_rim_of_missing_pixels_changes_no_score(case, rim):
    padded = [np.pad(field, ((0, 0), (rim, rim), (rim, rim)), constant_values=NAN) for field in case]
    before, after = tally(*case), tally(*padded)
    for kind in ("windows", "similarity"):
        for name, array in before[kind].arrays().items():
            np.testing.assert_allclose(after[kind].arrays()[name], array, rtol=1e-12, err_msg=name)


@settings(max_examples=40)
@given(cases(), st.sampled_from([0.0, 50.0, np.inf, -np.inf, NAN]), st.booleans())
def test_what_lies_under_a_missing_pixel_never_matters(case, value, in_forecast):
    """So more missing pixels, where one side is missing already, change no score."""
    forecast, observed = case
    known = np.isfinite(forecast) & np.isfinite(observed)
    changed = [np.where(known, forecast, value), observed] if in_forecast else [forecast, np.where(known, observed, value)]
    setup = Setup(THRESHOLDS, (1.0, 1.0), scales_km=SCALES)
    before, after = (tallies({"x": f}, o, known, setup)["x"] for f, o in (case, changed))
    for kind in before:
        for name, array in before[kind].arrays().items():
            np.testing.assert_array_equal(after[kind].arrays()[name], array, err_msg=f"{kind} {name}")


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.permutations(range(4)), st.integers(1, 3))
def test_permuted_cases_and_shards_add_up_to_the_whole_in_every_kind(seed, order, cut):
    several = [tally(*random_case(seed + n, (2, 14, 15), blobs=1)) for n in range(4)]
    whole, shuffled = sum(several), [several[n] for n in order]
    parts = sum(shuffled[:cut]) + sum(shuffled[cut:])
    for kind in whole:
        for name, array in whole[kind].arrays().items():
            np.testing.assert_allclose(parts[kind].arrays()[name], array, rtol=1e-12, err_msg=f"{kind} {name}")


def test_several_forecasts_are_counted_as_each_alone():
    """The box around the events of all may not change the sums of one."""
    observed, wet, dry = random_case(1)[0], random_case(2)[1], np.zeros((2, 16, 18), np.float32)
    observed[:, :, :9] = 0
    setup = Setup(THRESHOLDS, (1.0, 1.0), scales_km=SCALES)
    together = tallies({"wet": wet, "dry": dry}, observed, np.isfinite(observed), setup)
    for name, forecast in (("wet", wet), ("dry", dry)):
        for kind, alone in tally(forecast, observed).kinds.items():
            for part, array in alone.arrays().items():
                np.testing.assert_allclose(together[name][kind].arrays()[part], array, rtol=1e-12, err_msg=f"{name} {part}")


def test_windows_larger_than_the_grid_or_without_kilometres_give_no_score():
    forecast, observed = random_case(0)
    s = tally(forecast, observed, scales=(5.0, 17.0))["windows"]
    assert s.num_pairs.tolist() == [[12 * 14, 0]] * 2
    assert s.num_whole_cases.tolist() == [1, 0]
    assert np.isnan(fss(s)[..., 1]).all()
    s = tally(forecast, observed, spacing=(NAN, NAN))
    assert not s["windows"].num_pairs.any()
    assert not s["spectra"].num_pairs.any()
    assert s["similarity"].num_pairs.all()


def test_windows_are_square_in_kilometres_on_cells_that_are_not():
    forecast, observed = random_case(0, (1, 20, 20))
    wide = tally(forecast, observed, scales=(3.0,), spacing=(1.0, 3.0))["windows"]
    assert wide.num_pairs.tolist() == [[18 * 20]]


def test_a_case_without_a_window_is_not_counted():
    forecast, observed = random_case(0)
    holed = observed.copy()
    holed[:, ::2, ::2] = NAN
    s = (tally(forecast, observed) + tally(forecast, holed))["windows"]
    assert s.num_whole_cases.tolist() == [2, 1, 1]
    assert s.pooled().num_cases.tolist() == [[2, 1, 1]]


def test_the_useful_line_lies_halfway_between_perfect_and_uniform():
    observed = np.array([[[2, 0, 0, 0]]], np.float32)
    np.testing.assert_allclose(fss_useful(sums(observed, observed, thresholds=(1, 5)))[0], [0.5 + 0.25 / 2, 0.5])


def test_sums_of_squares_stay_exact_where_they_are_large():
    everywhere = np.full((1, 700, 700), 9, np.float32)
    s = tally(everywhere, everywhere, scales=(201.0,))["windows"]
    assert s.sum_sq_fractions[0, 0, 0] == 2 * 500 * 500
    assert fss(s)[0, 0, 0] == 1


# outside oracles


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_fss_agrees_with_the_package_scores(seed, cells):
    from scores.spatial import fss_2d

    forecast, observed = random_case(seed)
    ours = fss(tally(forecast, observed, scales=(2.0 * cells - 1,))["windows"])
    options = {"window_size": (2 * cells - 1,) * 2, "spatial_dims": ("y", "x"), "threshold_operator": np.greater_equal}
    fields = [xr.DataArray(field, dims=("lead", "y", "x")) for field in (forecast, observed)]
    for j, threshold in enumerate(THRESHOLDS):
        theirs = fss_2d(*fields, event_threshold=threshold, preserve_dims=["lead"], **options)
        np.testing.assert_allclose(ours[:, j, 0], theirs.values, rtol=1e-9, atol=1e-9)
        whole = fss(tally(forecast, observed, scales=(2.0 * cells - 1,))["windows"].pooled())[0, j, 0]
        np.testing.assert_allclose(whole, fss_2d(*fields, event_threshold=threshold, **options).item(), rtol=1e-9)


def test_fss_without_an_event_is_nan_where_the_package_scores_says_0():
    from scores.spatial import fss_2d

    dry = np.zeros((1, 9, 9), np.float32)
    field = xr.DataArray(dry[0], dims=("y", "x"))
    assert fss_2d(field, field, event_threshold=1, window_size=(3, 3), spatial_dims=("y", "x")).item() == 0
    assert np.isnan(fss(tally(dry, dry)["windows"])).all()


def test_fss_leaves_out_windows_with_missing_pixels_where_the_package_scores_takes_them_as_dry():
    from scores.spatial import fss_2d

    forecast, observed = random_case(3, (1, 12, 12))
    observed[0, :, 7:] = NAN
    ours = fss(tally(forecast, observed, scales=(3.0,))["windows"])[0, 0, 0]
    options = {"window_size": (3, 3), "spatial_dims": ("y", "x"), "event_threshold": 1, "threshold_operator": np.greater_equal}
    whole, known = (
        fss_2d(*(xr.DataArray(field[0, :, :width], dims=("y", "x")) for field in (forecast, observed)), **options).item()
        for width in (12, 7)
    )
    assert ours == pytest.approx(known, abs=1e-9)
    assert abs(ours - whole) > 0.01


def pysteps_fss(forecast, observed, threshold, cells):
    spatialscores = pytest.importorskip("pysteps.verification.spatialscores", exc_type=ImportError)
    return spatialscores.fss(forecast.astype(float), observed.astype(float), threshold, cells)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from([1, 3, 5]))
def test_fss_agrees_with_pysteps_on_a_field_in_a_dry_frame(seed, cells):
    """pysteps takes what is outside of the grid as dry: half a window of dry pixels around makes ours the same."""
    forecast, observed = random_case(seed, (1, 12, 13))
    rim = cells // 2
    framed = [np.pad(field, ((0, 0), (rim, rim), (rim, rim))) for field in (forecast, observed)]
    ours = fss(tally(*framed, scales=(float(cells),))["windows"])[0, :, 0]
    theirs = [pysteps_fss(forecast[0], observed[0], threshold, cells) for threshold in THRESHOLDS]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    unframed = fss(tally(forecast, observed, scales=(float(cells),))["windows"])[0, 0, 0]
    assert (unframed == pytest.approx(theirs[0], abs=1e-9)) == (cells == 1)


def test_fss_leaves_out_missing_pixels_where_pysteps_takes_them_as_dry():
    observed = np.full((1, 8, 8), 2, np.float32)
    forecast = observed.copy()
    forecast[0, :, 4:] = NAN
    assert fss(tally(forecast, observed)["windows"])[0, 0, 1] == 1
    assert pysteps_fss(forecast[0], observed[0], 1, 3) < 0.8


def skimage_ssim(forecast, observed):
    from skimage.metrics import structural_similarity

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 30.0, "full": True}
    return structural_similarity(*(np.nan_to_num(field, nan=0).astype(np.float64) for field in (forecast, observed)), **options)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from([0, 1, 3]))
def test_ssim_agrees_with_scikit_image_in_the_windows_that_are_known(seed, blobs):
    forecast, observed = random_case(seed, (1, 24, 28), blobs=blobs)
    mean, by_pixel = skimage_ssim(forecast[0], observed[0])
    rim, known = SSIM_CELLS // 2, np.isfinite(forecast[0] + observed[0])
    windows = np.lib.stride_tricks.sliding_window_view(known, (SSIM_CELLS, SSIM_CELLS)).all(axis=(2, 3))
    s = tally(forecast, observed)["similarity"]
    assert s.num_pairs.tolist() == [windows.sum()]
    if windows.any():
        assert ssim(s)[0] == pytest.approx(by_pixel[rim:-rim, rim:-rim][windows].mean(), abs=1e-9)
    if not blobs:
        assert ssim(s)[0] == pytest.approx(mean, abs=1e-9)


def test_ssim_leaves_out_missing_pixels_which_make_scikit_image_undefined():
    from skimage.metrics import structural_similarity

    forecast, observed = random_case(4, (1, 24, 28))
    observed[0, 3, 3] = NAN
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = structural_similarity(forecast[0], observed[0], gaussian_weights=True, data_range=30.0)
    assert np.isnan(theirs)
    assert -1 < ssim(tally(forecast, observed)["similarity"])[0] < 1


def test_ssim_is_of_the_paper_where_scikit_image_has_other_defaults():
    """Its own default is a flat window of 7 cells and sample variances."""
    from skimage.metrics import structural_similarity

    forecast, observed = random_case(5, (1, 24, 28))
    theirs = structural_similarity(forecast[0].astype(float), observed[0].astype(float), data_range=30.0)
    assert abs(ssim(tally(forecast, observed)["similarity"])[0] - theirs) > 1e-3


def test_ssim_depends_on_its_data_range():
    forecast, observed = random_case(6, (1, 24, 28))
    known = np.ones(observed.shape, bool)
    values = [
        ssim(tallies({"x": forecast}, observed, known, Setup(data_range=data_range))["x"]["similarity"])[0]
        for data_range in (10.0, 100.0)
    ]
    assert values[0] < values[1] - 0.05


def test_dry_windows_are_alike_and_count():
    observed = np.zeros((1, 30, 30), np.float32)
    forecast = observed.copy()
    forecast[0, 0, 0] = 20
    s = tally(forecast, observed)["similarity"]
    assert s.num_pairs.tolist() == [400]
    assert 0.99 < ssim(s)[0] < 1
    assert ssim(tally(observed, observed)["similarity"]).tolist() == [1]


def test_sums_of_other_scales_do_not_add():
    a = WindowSums.empty(1, thresholds=(1.0,), scales_km=(5.0,))
    with pytest.raises(ValueError, match="do not add"):
        a + WindowSums.empty(1, thresholds=(1.0,), scales_km=(10.0,))
