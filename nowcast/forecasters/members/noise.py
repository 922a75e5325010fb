"""Noise of members: Gaussian fields, correlated in space and time as forecast errors are, that move with the rain.

The Fourier coefficients are first-order autoregressive processes with the power and the correlation between lead times of a
`Structure`. The field has variance 1 everywhere, since the uncertainty is in the probabilities of the forecaster. The random
numbers depend only on seed, member, noise (occurrence or intensity) and lead time (Philox, a counter-based generator), so each
member can be computed without the others.
"""

import cv2
import numpy as np
from scipy import fft

from nowcast.motion import Places


class Noise:
    """One of the two noises of a member.

    seed: integers >= 0 that identify it: seed, case, member, noise
    shape: (y, x) of the periodic grid
    """

    def __init__(self, seed: tuple[int, ...], shape: tuple[int, int]):
        self.seed, self.shape, self.lead = seed, shape, 0
        self._state: np.ndarray | None = None

    def advance(self, correlation: np.ndarray) -> None:
        """Advance to the next lead time; correlation (y, x // 2 + 1) of its coefficients with the previous ones."""
        fresh = self._fresh()
        if self._state is None:
            self._state = fresh
        else:
            self._state *= correlation
            fresh *= np.sqrt(1 - correlation**2)
            self._state += fresh
        self.lead += 1

    def field(self, amplitude: np.ndarray) -> np.ndarray:
        """Return the noise (y, x) on the periodic grid, float32; amplitude (y, x // 2 + 1) of the coefficients."""
        scaled = self._state * (amplitude * np.float32(np.sqrt(np.prod(self.shape))))
        return fft.irfft2(scaled, self.shape, norm="ortho", overwrite_x=True)

    def _fresh(self) -> np.ndarray:
        """Return Fourier coefficients (y, x // 2 + 1) of white noise, complex64, drawn for this member and lead time."""
        y, x = self.shape[0], self.shape[1] // 2 + 1
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([*self.seed, self.lead])))
        drawn = generator.standard_normal((y, x, 2), np.float32).view(np.complex64)[..., 0]
        drawn *= np.float32(np.sqrt(0.5))
        # these columns hold conjugate pairs, of which the inverse transform uses half
        drawn[:, [0, x - 1] if self.shape[1] % 2 == 0 else [0]] *= np.float32(np.sqrt(2))
        return drawn


def moved(noise: np.ndarray, places: Places) -> np.ndarray:
    """Move periodic noise (y, x) with the rain, by the nearest cells, since interpolation would reduce its variance."""
    return cv2.remap(noise, *places, cv2.INTER_NEAREST, borderMode=cv2.BORDER_WRAP)
