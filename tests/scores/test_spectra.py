"""Power spectra: the power of a wave at its wavelength on any grid, the loss by blurring, and agreement with pysteps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from nowcast.scores import SCORES, Setup, tallies
from nowcast.scores.spectra import WAVELENGTHS_KM, SpectrumSums, band_power, effective_resolution, spectrum_ratio, taper

NAN = np.nan


def spectra(forecast, observed, *, spacing=(1.0, 1.0)) -> SpectrumSums:
    known = np.isfinite(forecast) & np.isfinite(observed)
    return tallies({"x": forecast}, observed, known, Setup((1.0,), spacing))["x"]["spectra"]


def noise(shape=(2, 96, 80), *, seed=0, blur=1.0):
    rng = np.random.default_rng(seed)
    return np.stack([gaussian_filter(field, blur) for field in rng.gamma(0.3, 4, shape)]).astype(np.float32)


def wave(shape, waves, spacing=(1.0, 1.0)):
    """cos of a plane wave with `waves` whole waves over the grid in y and x."""
    y, x = (np.arange(size) / size for size in shape)
    return np.cos(2 * np.pi * (waves[0] * y[:, None] + waves[1] * x))


@pytest.mark.parametrize(
    ("shape", "waves", "spacing", "wavelength"),
    [
        ((64, 64), (0, 8), (1.0, 1.0), 8.0),
        ((64, 64), (8, 0), (2.0, 2.0), 16.0),
        ((64, 128), (8, 0), (0.5, 0.5), 4.0),
        ((64, 64), (0, 32), (1.0, 1.0), 2.0),  # two cells, the shortest there is
        ((63, 65), (7, 0), (1.0, 1.0), 9.0),
        ((64, 64), (8, 8), (1.0, 1.0), 5.66),
        ((64, 64), (8, 0), (1.0, 2.0), 8.0),
    ],
)
def test_the_power_of_a_wave_is_its_variance_at_its_wavelength(shape, waves, spacing, wavelength):
    field = 3 * wave(shape, waves) + 10
    power = band_power(field, np.ones(shape), spacing)
    nearest = int(np.argmin(np.abs(np.log(np.array(WAVELENGTHS_KM) / wavelength))))
    assert power[nearest] == pytest.approx(field.var(), rel=1e-12)
    assert np.delete(power, nearest) == pytest.approx(0, abs=1e-20)


def test_waves_shorter_than_two_of_the_wider_cells_are_in_no_band():
    assert band_power(wave((64, 64), (32, 32)), np.ones((64, 64)), (1.0, 1.0)) == pytest.approx(0, abs=1e-20)
    assert band_power(wave((64, 64), (0, 20)), np.ones((64, 64)), (2.0, 1.0)) == pytest.approx(0, abs=1e-20)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from([32, 64]))
def test_power_agrees_with_pysteps_where_rings_lie_in_bands(seed, size):
    """pysteps averages over rings of whole wave numbers: of waves along the axes each ring lies in one of our bands."""
    spectral = pytest.importorskip("pysteps.utils.spectral", exc_type=ImportError)
    arrays = pytest.importorskip("pysteps.utils.arrays", exc_type=ImportError)
    rng, numbers = np.random.default_rng(seed), [2**n for n in range(1, int(np.log2(size)) - 1)]
    field = sum(rng.normal() * wave((size, size), waves) for n in numbers for waves in ((n, 0), (0, n)))
    theirs = spectral.rapsd(field, fft_method=np.fft)
    y, x = arrays.compute_centred_coord_array(size, size)
    rings = np.sqrt(x * x + y * y).round()
    ours = band_power(field, np.ones(field.shape), (1.0, 1.0))
    for number in numbers:
        in_ring = theirs[number] * (rings == number).sum() / field.size
        assert ours[WAVELENGTHS_KM.index(size / number)] == pytest.approx(in_ring, rel=1e-9)


def test_missing_pixels_are_tapered_where_pysteps_refuses_them():
    spectral = pytest.importorskip("pysteps.utils.spectral", exc_type=ImportError)
    observed = noise()
    observed[:, :10, :30] = NAN
    with pytest.raises(ValueError, match="should not contain nans"):
        spectral.rapsd(observed[0], fft_method=np.fft)
    s = spectra(observed, observed)
    assert spectrum_ratio(s)[s.power_o > 0] == pytest.approx(1)


def test_the_weight_falls_to_the_edges_of_what_is_known():
    known = np.ones((40, 50), bool)
    known[:, 30:] = False
    weight = taper(known)
    assert (weight[:, 30:] == 0).all()
    assert weight[20, 15] == 1
    assert (np.diff(weight[20, 15:31]) <= 0).all()
    for edge in (weight[0], weight[-1], weight[:, 0], weight[:, 29]):
        assert edge.max() < 0.1


def test_a_blurred_forecast_keeps_its_long_waves_and_loses_its_short_ones():
    observed = noise()
    s = spectra(np.stack([gaussian_filter(field, 2) for field in observed]), observed)
    kept = spectrum_ratio(s)
    long, short = WAVELENGTHS_KM.index(32.0), WAVELENGTHS_KM.index(4.0)
    assert (kept[:, long] > 0.75).all()
    assert (kept[:, short] < 0.05).all()
    # a Gaussian of 2 cells keeps half of the power at 2 pi 2 / sqrt(ln 2) = 15 cells
    assert effective_resolution(s) == pytest.approx(15.1, rel=0.15)


def test_a_shifted_field_keeps_all_of_its_power():
    wide = noise((1, 140, 140))
    s = spectra(wide[:, 5:133, 9:137], wide[:, :128, :128])
    kept = spectrum_ratio(s)[0]
    assert kept[WAVELENGTHS_KM.index(2.0) : WAVELENGTHS_KM.index(16.0)] == pytest.approx(1, abs=0.1)
    assert effective_resolution(s) == pytest.approx(2.0)


def made(kept):
    """Sums with that ratio at the wavelengths from 2 km on, by lead."""
    kept = np.atleast_2d(kept)
    arrays = SpectrumSums.empty(len(kept), wavelengths_km=WAVELENGTHS_KM).arrays()
    first = WAVELENGTHS_KM.index(2.0)
    arrays["power_o"][:, first : first + kept.shape[1]] = 4
    arrays["power_f"][:, first : first + kept.shape[1]] = 4 * kept
    return SpectrumSums(WAVELENGTHS_KM, **arrays)


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([1, 1, 1, 1, 1], 2.0),
        ([0, 1, 1, 1, 1], np.sqrt(2 * 2.83)),  # half is crossed halfway between 2.83 and 2 km
        ([0.1, 0.1, 0.5, 1, 1], 4.0),  # exactly half is kept
        ([0.1, 0.1, 0.1, 0.1, 0.1], 8.0),  # not even the longest
        ([0.9, 0.9, 0.2, 0.7, 1], 2.0),  # weak by chance at 4 km: shorter waves are there
        ([0.1, 0.1, 0.7, 0.2, 0.9], np.exp2(np.log2(4) - np.log2(4 / 2.83) / 3)),  # the shortest that is kept is that of 4 km
        ([0.1, NAN, 0.9, 0.2, 0.9], np.sqrt(4 * 2)),  # where a band is not known, between its neighbours
    ],
)
def test_the_effective_resolution_by_hand(kept, expected):
    assert effective_resolution(made(kept)) == pytest.approx([expected], rel=1e-6)


def test_the_effective_resolution_broadcasts_and_is_nan_without_power():
    s = made([[1, 1], [0, 1]])
    stacked = s.like({name: np.stack([array] * 3) for name, array in s.arrays().items()})
    np.testing.assert_allclose(effective_resolution(stacked), [effective_resolution(s)] * 3)
    assert np.isnan(effective_resolution(SpectrumSums.empty(2, wavelengths_km=WAVELENGTHS_KM))).all()
    assert SCORES["effective_resolution"].units == "km"


def test_a_constant_field_has_no_power_whatever_its_rounding():
    flat = np.full((1, 40, 40), 0.1, np.float32)
    s = spectra(flat, noise((1, 40, 40)))
    assert not s.power_f.any()
    assert effective_resolution(s) == pytest.approx(45.3)  # the longest of this grid
    assert np.isnan(spectrum_ratio(spectra(flat, flat))).all()


def test_grids_of_different_spacing_add():
    """The same waves in kilometres, on 1 km and on 2 km: the bands are the same."""
    fine = wave((128, 128), (8, 0)).astype(np.float32)[None]
    coarse = wave((64, 64), (8, 0)).astype(np.float32)[None]
    both = spectra(fine * 2, fine) + spectra(coarse * 2, coarse, spacing=(2.0, 2.0))
    at = WAVELENGTHS_KM.index(16.0)
    assert spectrum_ratio(both)[0, at] == pytest.approx(4)
    assert both.num_cases.tolist() == [2]
