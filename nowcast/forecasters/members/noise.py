"""Noise for members: Gaussian fields, one at each lead time, that last as errors of forecasts do and move with the rain.

Its Fourier coefficients are autoregressions of first order whose correlation from one lead time to the next, like their power,
is that of a `Structure`. The field has variance 1 everywhere, since how much is unknown lies in the forecaster's
probabilities. Its numbers depend on the seed, the member, which of its two noises it is, and the lead time alone (Philox, a
counter-based generator), so any member can be made again without the others.
"""

import cv2
import numpy as np
from scipy import fft

from nowcast.motion import Places


class Noise:
    """One of the two noises of a member.

    seed: whole numbers from 0 on that tell it from all others
    shape: (y, x) of the periodic grid
    """

    def __init__(self, seed: tuple[int, ...], shape: tuple[int, int]):
        self.seed, self.shape, self.lead = seed, shape, 0
        self._state: np.ndarray | None = None

    def advance(self, correlation: np.ndarray) -> None:
        """Go on to the next lead time; correlation (y, x // 2 + 1) of its coefficients with those before."""
        fresh = self._fresh()
        if self._state is None:
            self._state = fresh
        else:
            self._state *= correlation
            fresh *= np.sqrt(1 - correlation**2)
            self._state += fresh
        self.lead += 1

    def field(self, amplitude: np.ndarray) -> np.ndarray:
        """Return the noise (y, x) on the periodic grid, float32; amplitude (y, x // 2 + 1) of its coefficients."""
        scaled = self._state * (amplitude * np.float32(np.sqrt(np.prod(self.shape))))
        return fft.irfft2(scaled, self.shape, norm="ortho", overwrite_x=True)

    def _fresh(self) -> np.ndarray:
        """Return Fourier coefficients (y, x // 2 + 1) of white noise, complex64, drawn for this member and lead time."""
        y, x = self.shape[0], self.shape[1] // 2 + 1
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([*self.seed, self.lead])))
        drawn = generator.standard_normal((y, x, 2), np.float32).view(np.complex64)[..., 0]
        drawn *= np.float32(np.sqrt(0.5))
        # these columns hold the coefficients of their own mirror images, of which the inverse transform takes a half
        drawn[:, [0, x - 1] if self.shape[1] % 2 == 0 else [0]] *= np.float32(np.sqrt(2))
        return drawn


def moved(noise: np.ndarray, places: Places) -> np.ndarray:
    """Read periodic noise (y, x) where the air of each cell was, at the nearest cells: means of neighbours would vary less."""
    return cv2.remap(noise, *places, cv2.INTER_NEAREST, borderMode=cv2.BORDER_WRAP)
