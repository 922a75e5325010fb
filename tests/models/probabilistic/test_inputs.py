"""The input channels of the probabilistic network: one set per patch, of similar scale, no change shown where there is none."""

import numpy as np
import pytest
import torch
from makers import SHARED

from nowcast.models.probabilistic import inputs
from nowcast.models.probabilistic.cascade import BLOCK, NUM_STEPS, fit_autoregression, split_bands
from nowcast.models.probabilistic.matching import MATCHING
from nowcast.models.transform import Log, network_input
from nowcast.netcdf.opening import open_records

RADAR = SHARED / "radar"
LOG = Log(offset=0.5, ceiling=100.0)


def fields(frames=4, cells=BLOCK, seed=0):
    generator = torch.Generator().manual_seed(seed)
    known = (torch.rand(2, frames, cells, 2 * cells, generator=generator) > 0.1).float()
    return torch.rand(2, frames, cells, 2 * cells, generator=generator) * known, known


def of_all(given, patch):
    """What is shown of each frame, and of the change."""
    values, known = given
    bands = split_bands(values, known)
    patches = inputs.patches_of(values, bands, MATCHING.wet_value, patch)
    each = [fit_autoregression(*band, BLOCK >> n) for n, band in enumerate(bands)]
    return inputs.frame_channels(bands, patches, patch), inputs.change_channels(each, patches, patch)


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
def test_every_patch_has_as_many_channels_as_are_said_and_last_its_known_share(patch):
    given = fields()
    frames, change = of_all(given, patch)
    cells = (BLOCK // patch, 2 * BLOCK // patch)
    assert frames.shape == (2, 4, inputs.NUM_FRAME_CHANNELS + 1, *cells)
    assert change.shape == (2, inputs.NUM_CHANGE_CHANNELS + 1, *cells)
    share = given[1].unflatten(-2, (-1, patch)).unflatten(-1, (-1, patch)).mean((-3, -1))
    torch.testing.assert_close(frames[:, :, -1], inputs.KNOWN_SCALE * share)
    torch.testing.assert_close(change[:, -1], share[:, -1])
    lead = inputs.lead_channels(given[0][:, :1], torch.zeros(2, 1, *cells), 3, patch)
    assert lead.shape == (2, inputs.NUM_LEAD_CHANNELS, *cells)


def test_what_stands_has_no_change():
    one = [field[:, :1].expand(-1, 4, -1, -1) for field in fields()]
    _, change = of_all(one, 8)
    bands = change[:, : 3 * inputs.NUM_BANDS].unflatten(1, (inputs.NUM_BANDS, 3))
    assert (bands[:, :, 1] == 0).all()
    assert (bands[:, :, 0] != 0).any()
    areas = change[:, 3 * inputs.NUM_BANDS : -1].unflatten(1, (-1, 2))
    assert (areas[:, :, 1] == 0).all()
    assert (areas[:, :, 0] != 0).any()


def test_a_band_is_shown_as_it_is_and_a_finer_one_by_its_deviation():
    band = -torch.ones(1, 1, 8, 8)
    assert (inputs.band_per_patch(band, 3, 8) == band).all()
    assert inputs.band_per_patch(band, 4, 8).shape == (1, 1, 16, 16)
    assert (inputs.band_per_patch(band, 1, 8) == torch.ones(1, 1, 2, 2)).all(), "of eight by eight cells of two by two"


def test_the_cascade_is_shown_as_far_as_it_differs_from_around():
    location = torch.zeros(1, 1, 64, 64)
    location[..., 24:32, 24:32] = 0.9
    mean, apart, unforeseen, lead = inputs.lead_channels(location, torch.full((1, 1, 8, 8), 0.25), 6, 8)[0]
    assert mean[3, 3] == pytest.approx(0.9 * inputs.VALUE_SCALE)
    assert mean.sum() == pytest.approx(0.9 * inputs.VALUE_SCALE)
    assert apart[3, 3] == pytest.approx(8 / 9 * 0.9 * inputs.VALUE_SCALE)
    assert apart[0, 0] == 0
    assert (unforeseen == inputs.BAND_SCALE * 0.5).all()
    assert (lead == 6 / inputs.LEAD_SCALE).all()


@pytest.mark.skipif(not RADAR.is_dir(), reason=f"needs {RADAR}")
def test_of_real_rain_each_channel_deviates_by_about_one():
    found = []
    for name in ("mch/20150515.nc", "fmi/20160928.nc", "bom/melbourne_20180616.nc"):
        (record,) = open_records([RADAR / name])
        rain = record.read(range(20, 24))[:, :512, :512]
        assert np.nanmax(rain) > 5, "there is rain"
        past = network_input(torch.from_numpy(rain[None].astype(np.float32)), LOG)
        values, known = past[:, :, 0] * past[:, :, 1], past[:, :, 1]
        frames, change = of_all((values, known), 8)
        found.append([part.flatten(-2).std(-1)[0] for part in (frames[:, -1, :-1], change[:, :-1])])
    for part in zip(*found, strict=True):
        deviation = torch.stack(part).mean(0)
        assert deviation.min() > 0.1, deviation
        assert deviation.median() == pytest.approx(1, abs=0.6)
        assert deviation.max() < 8, deviation
    assert len(found[0][0]) == NUM_STEPS + 3
