"""Noise for each member: a Gaussian field at each lead time that lasts as the rain does and moves with it.

At the reference time nothing is unknown: each band of wavelength begins at 0 and holds at a lead time what is new since then.
Then each band has the power that `Spectrum` gives it, and the field variance 1, since how much is unknown lies in the
forecaster's probabilities. Its numbers depend on the seed, the member and the lead time alone (Philox, a counter-based
generator), so any member can be made again without the others.
"""

import cv2
import numpy as np
from scipy import fft

from nowcast.forecasters.members.copula import Distributions
from nowcast.forecasters.members.structure import Structure, rain_power
from nowcast.motion import Places

# Exponent of how much of a band is new. With 1 it is what the past frames tell, which do not show all that long waves may
# do: with .3 the CRPS of sums over an hour in squares of 40 km is 3 % lower (8 validation cases of scripts/skill/members.md).
GROWTH = 0.3
FIRST_ROUNDS, ROUNDS = 6, 1  # of correction at the first lead time, and at each other
STEP = 0.6  # share of what is lacking, as a logarithm, that a round corrects
MOST_STEP, MOST = 2.0, 8.0  # logarithms: largest lack that is believed, and largest correction
SMOOTH = (0.15, 0.7, 0.15)  # weights of a band and its neighbours in a correction


class Noise:
    """The noise of one member. `seed`: whole numbers from 0 on that tell it from all others."""

    def __init__(self, structure: Structure, seed: tuple[int, ...]):
        self.bands, self.seed, self.lead = structure.bands, seed, 0
        self._weights = tuple(weight.astype(np.float32) for weight in structure.weights)
        self._innovation = structure.innovation.astype(np.float32)
        self._before = self._newest = None

    def advance(self) -> None:
        """Go on to the next lead time."""
        number = self.bands.number
        state = self._fresh()
        state *= self._innovation[number]
        if self._newest is not None:
            state += self._weights[0][number] * self._newest
        if self._before is not None:
            state += self._weights[1][number] * self._before
        self._before, self._newest = self._newest, state
        self.lead += 1

    def field(self, amplitude: np.ndarray) -> np.ndarray:
        """Return the noise (y, x) on the periodic grid, float32.

        amplitude: (band,) standard deviation that a Fourier coefficient gets, for a state of variance 1
        """
        size = self.bands.shape[0] * self.bands.shape[1]
        scaled = self._newest * (np.sqrt(size) * amplitude).astype(np.float32)[self.bands.number]
        scaled[0, 0] = 0
        return fft.irfft2(scaled, self.bands.shape, norm="ortho", overwrite_x=True)

    def power(self) -> np.ndarray:
        """Return the mean power of a coefficient in each band (band,)."""
        return self.bands.power(self._newest) / np.maximum(self.bands.sizes, 1)

    def _fresh(self) -> np.ndarray:
        """Return Fourier coefficients (y, x // 2 + 1) of white noise, complex64, drawn for this member and lead time."""
        y, x = self.bands.number.shape
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([*self.seed, self.lead])))
        drawn = generator.standard_normal((y, x, 2), np.float32).view(np.complex64)[..., 0]
        drawn *= np.float32(np.sqrt(0.5))
        # these columns hold the coefficients of their own mirror images, of which the inverse transform takes a half
        drawn[:, [0, x - 1] if self.bands.shape[1] % 2 == 0 else [0]] *= np.float32(np.sqrt(2))
        return drawn


class Spectrum:
    """The power of the bands of the noise: that of the rain, as far as it is new, corrected so that members look like radar.

    A member's rain has the spectrum of the newest frame where the correction is right. A pilot member, which is none of the
    ensemble, shows at each lead time what is lacking or too much, and the correction goes on from one lead time to the next.
    """

    def __init__(self, structure: Structure):
        self.bands, self.power, self.wanted = structure.bands, structure.power, structure.rain_power
        self.correction = np.zeros(self.bands.count)  # logarithm of a factor of the power
        self.pilot = Noise(structure, (0,))

    def amplitude(self, spread: np.ndarray, state: np.ndarray | None = None) -> np.ndarray:
        """Return the amplitude (band,) for `Noise.field`, so that the field has the variance 1.

        spread: (band,) standard deviation of what is new, for bands of variance 1
        state: (band,) standard deviation of the state that is scaled, if it is another one
        """
        power = self.power * spread ** (2 * GROWTH) * np.exp(self.correction)
        power /= power.sum()
        return np.sqrt(power / np.maximum(self.bands.sizes, 1)) / (spread if state is None else state)

    def fit(self, distributions: Distributions, places: Places, spread: np.ndarray) -> None:
        """Correct the power for the next lead time by what the pilot lacks or has too much of; spread (band,)."""
        self.pilot.advance()
        own = np.sqrt(np.maximum(self.pilot.power(), 1e-30))
        for _ in range(FIRST_ROUNDS if self.pilot.lead == 1 else ROUNDS):
            rain = distributions.rain(moved(self.pilot.field(self.amplitude(spread, own)), places))
            got = rain_power(rain, self.bands)
            told = (self.wanted > 0) & (got > 0)
            ratio = np.log(np.divide(self.wanted, got, out=np.ones_like(got), where=told)).clip(-MOST_STEP, MOST_STEP)
            padded = np.pad(ratio, 1, mode="edge")
            smooth = sum(weight * padded[n : n + len(ratio)] for n, weight in enumerate(SMOOTH))
            self.correction = (self.correction + STEP * smooth).clip(-MOST, MOST)


def moved(noise: np.ndarray, places: Places) -> np.ndarray:
    """Read periodic noise (y, x) where the air of each cell was, at the nearest cells: means of neighbours would vary less."""
    return cv2.remap(noise, *places, cv2.INTER_NEAREST, borderMode=cv2.BORDER_WRAP)
