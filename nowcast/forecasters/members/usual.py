"""The usual structure of the noise, for forecasters that have measured none: baselines and older checkpoints."""

import numpy as np

from nowcast.forecasters.members.structure import Structure

# Measured by measure.py with `extrapolation`: 13 wet cases of 7 validation days of an archive of Catalonia, 6 minutes, 0.91 km
MINUTES = [6, 12, 18, 24, 36, 48, 60, 72]
KM = [1.83, 3.65, 7.31, 14.61, 29.22, 58.45, 116.89, 233.79]
# fmt: off
POWER = [  # logarithm, a row for each lead time
    [-9.26, -8.03, -6.25, -5.20, -4.22, -3.68, -4.67, 0.00],
    [-7.98, -6.60, -4.66, -3.04, -1.88, -1.47, -0.92, 0.00],
    [-8.71, -7.21, -5.17, -3.18, -1.97, -1.09, 0.00, -1.45],
    [-9.14, -7.49, -5.42, -3.35, -2.14, -0.60, 0.00, -0.67],
    [-11.43, -9.59, -7.61, -5.62, -3.43, -2.43, -1.60, 0.00],
    [-12.52, -10.64, -8.51, -6.54, -4.34, -3.66, -2.06, 0.00],
    [-13.91, -11.84, -9.41, -7.33, -5.74, -3.93, -3.82, 0.00],
    [-13.88, -11.85, -9.24, -7.30, -5.80, -3.61, -3.72, 0.00],
]
MEMORY = [  # correlation with the lead time before
    [0.939, 0.822, 0.716, 0.687, 0.854, 0.975, 0.983, 0.877],
    [0.939, 0.822, 0.716, 0.687, 0.854, 0.975, 0.983, 0.877],
    [0.938, 0.853, 0.795, 0.734, 0.904, 0.964, 0.969, 0.988],
    [0.944, 0.874, 0.839, 0.802, 0.922, 0.953, 0.995, 0.988],
    [0.949, 0.875, 0.816, 0.905, 0.952, 0.926, 0.995, 0.999],
    [0.930, 0.789, 0.775, 0.905, 0.968, 0.974, 0.998, 0.999],
    [0.915, 0.747, 0.556, 0.784, 0.945, 0.988, 0.994, 0.999],
    [0.927, 0.794, 0.637, 0.838, 0.956, 0.981, 0.948, 0.999],
]
# fmt: on
USUAL = Structure(np.array(MINUTES, float), np.array(KM), np.array(POWER), np.array(MEMORY))
