"""Frames that hold one number alone are missing wherever they lie, and files that differ in scale are read alike."""

import netCDF4
import numpy as np
import pytest
from makers import rain, write_record

from nowcast.netcdf.opening import open_records
from nowcast.netcdf.rain.dryness import DOUBT


def packed(path, fields, *, kind, scale, first=0):
    """Write (time, y, x) of mm/h as whole numbers of `scale`, NaN as the largest of the type, which nothing declares."""
    times = np.datetime64("2020-06-01T00:00:00") + 300 * np.arange(first, first + len(fields))
    write_record(path, np.zeros_like(fields), times=times)
    most = np.iinfo(kind).max
    numbers = np.where(np.isnan(fields), most, np.rint(np.nan_to_num(fields) / scale)).astype(kind)
    with netCDF4.Dataset(path, "a") as file:
        old = file["rainfall_rate"]
        kept = {name: old.getncattr(name) for name in old.ncattrs() if name != "_FillValue"}
        file.renameVariable("rainfall_rate", "old")
        file["old"].setncatts({"standard_name": "", "units": "1"})
        new = file.createVariable("rain", kind, old.dimensions, fill_value=False)
        new.setncatts(kept | {"scale_factor": scale})
        new.set_auto_maskandscale(False)
        new[:] = numbers
    return path


def fields(frames, **options):
    return np.minimum(rain(frames=frames, shape=(40, 44), **options), 20)


@pytest.mark.parametrize(("kind", "scale"), [(np.uint8, 0.12), (np.int16, 0.01)])
@pytest.mark.parametrize("number", [6, 20])
def test_files_of_many_scales_are_read_alike(tmp_path, kind, scale, number):
    truth = fields(number)
    truth[:, :, :12] = np.nan
    for n in range(number):
        packed(tmp_path / f"{n:02}.nc", truth[n : n + 1], kind=kind, scale=scale * (1 + 0.01 * n), first=n)
    (record,) = open_records([tmp_path])
    np.testing.assert_allclose(record.read(range(number)), truth, atol=0.6 * 1.2 * scale)


@pytest.mark.parametrize(("kind", "scale", "said"), [(np.uint8, 0.2, "51"), (np.int16, 0.1, "3277")])
def test_a_frame_of_nothing_but_the_largest_number_is_missing(tmp_path, caplog, kind, scale, said):
    truth = fields(24)
    truth[21] = np.nan  # of 24 frames, none of those that are sampled
    (record,) = open_records([packed(tmp_path / "a.nc", truth, kind=kind, scale=scale)])
    np.testing.assert_allclose(record.read(range(24)), truth, atol=0.6 * scale)
    assert f"rain: a frame with {said} mm/h in every known cell is taken as missing" in caplog.text


@pytest.mark.parametrize("number", [255.0, 999.0])
def test_so_is_one_of_more_rain_than_is_credible(tmp_path, caplog, number):
    truth = fields(24)
    truth[21] = number
    truth[21, :10] = np.nan  # out of range of the radar
    (record,) = open_records([write_record(tmp_path / "a.nc", truth)])
    found = record.read([20, 21])
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[0], truth[20])
    assert f"a frame with {number:g} mm/h in every known cell is taken as missing" in caplog.text


@pytest.mark.parametrize(("kind", "most"), [(np.int8, 255), (np.int16, 65535)])
def test_the_largest_of_unsigned_numbers_is_theirs(tmp_path, kind, most):
    unsigned = np.dtype(kind).str.replace("i", "u")
    numbers = np.rint(fields(24) * 5).astype(unsigned)
    numbers[20], numbers[21] = np.iinfo(kind).max, most
    scale = 0.2 if kind == np.int8 else 0.002
    with netCDF4.Dataset(packed(tmp_path / "a.nc", fields(24), kind=kind, scale=scale), "a") as file:
        file["rain"]._Unsigned = "true"
        file["rain"].set_auto_maskandscale(False)
        file["rain"][:] = numbers.view(kind)
    (record,) = open_records([tmp_path / "a.nc"])
    found = record.read([20, 21])
    np.testing.assert_allclose(found[0], np.iinfo(kind).max * scale, rtol=1e-6)
    assert np.isnan(found[1]).all()


def test_what_one_of_many_samples_takes_for_dry_is_dry_in_that_file_alone(tmp_path):
    for n in range(30):
        truth = fields(1, seed=n) + (1.0 if n == 0 else 0.0)  # the first has no dry cell
        path = packed(tmp_path / f"{n:02}.nc", truth, kind=np.int16, scale=0.01 * (1 + 0.01 * n), first=n)
        with netCDF4.Dataset(path, "a") as file:
            file["rain"].set_auto_maskandscale(False)
            file["rain"].missing_value = np.int16(-32768)
            file["rain"][:, :, :3], file["rain"][:, :, 3:6] = -32768, -99
    (record,) = open_records([tmp_path])
    found = record.read(range(30))
    assert np.isnan(found[:, :, :3]).all()
    assert np.isnan(found[1:, :, 3:6]).all()


def test_a_frame_of_one_credible_rate_is_rain(tmp_path, caplog):
    truth = fields(24)
    truth[21] = 12.5
    (record,) = open_records([write_record(tmp_path / "a.nc", truth)])
    assert (record.read([21]) == 12.5).all()
    assert not caplog.text


def test_much_incredible_rain_in_a_frame_is_told_where_it_is_read(tmp_path, caplog):
    truth = fields(24)
    truth[21, :4] = 300 + np.arange(44)
    (record,) = open_records([write_record(tmp_path / "a.nc", truth)])
    assert not caplog.text
    np.testing.assert_array_equal(record.read([21])[0], truth[21])
    assert caplog.messages == [
        f"{tmp_path / 'a.nc'}: rainfall_rate: more than 1 % of a frame would have 200 mm/h or more. {DOUBT}"
    ]
