"""The lines of the world lie where they are on earth."""

import numpy as np
import pytest

from nowcast.report.pictures.lines import CLOSE, KINDS, lines

# places on a line of each kind, latitude and longitude: capes, a shore, borders of two and of three countries or states
PLACES = {
    "coast": [(50.07, -5.72), (-34.36, 18.47), (36.0, -5.61)],  # Land's End, Cape of Good Hope, Tarifa
    "lakes": [(43.63, -79.38), (46.2, 6.15)],  # Toronto, Geneva
    "borders": [(49.0, -110.0), (50.755, 6.021), (42.44, 1.48)],  # the 49th parallel; Vaals; Andorra
    "states": [(37.0, -109.045), (-26.0, 141.0)],  # Four Corners; Queensland, New South Wales, South Australia
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_runs_through_known_places(kind):
    every = lines(kind)
    for latitude, longitude in PLACES[kind]:
        away = np.hypot(every.latitude - latitude, (every.longitude - longitude) * np.cos(np.radians(latitude)))
        assert away.min() < CLOSE / 2 if kind in ("borders", "states") else away.min() < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_points_of_a_line_are_close_together_and_on_earth(kind):
    every = lines(kind)
    steps = np.abs(np.diff(np.stack([every.latitude, every.longitude]))).max(axis=0)
    assert steps[~every.starts[1:]].max() <= CLOSE * 1.001
    assert np.abs(every.latitude).max() <= 90
    assert np.abs(every.longitude).max() <= 180
    assert every.starts[0]
