"""Members in files of their own are one ensemble, in order of their numbers; or it is said which are absent or twice."""

import netCDF4
import numpy as np
import pytest
from makers import rain, write_record
from makers.foreign import improver_file
from makers.stored import edit, open_one

from nowcast.errors import DataError
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.writing.members import write_members
from nowcast.quantity import RAIN_RATE

REFERENCE = np.datetime64("2020-06-01T00:15:00")
LEADS = np.array([5, 10], "timedelta64[m]").astype("timedelta64[s]")
MEMBERS = np.stack([rain(frames=2, seed=seed, missing=0.1) for seed in range(3)])  # (member, lead, y, x)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return open_one(write_record(tmp_path_factory.mktemp("record") / "observed.nc", rain(frames=3))).grid


def write(path, grid, fields, reference=REFERENCE, attributes=None, leads=LEADS):
    path.parent.mkdir(exist_ok=True)
    facts = {"lead_times": leads, "quantity": RAIN_RATE, "attributes": attributes or {}, "single": True}
    write_forecast(path, [(reference, fields)], grid=grid, **facts)
    return path


def number(path, value, name="realization"):
    with edit(path) as file:
        file.createVariable(name, "i4").units = "1"
        file[name][...] = value


def by_scalar(folder, grid):
    for n, order in enumerate((2, 0, 1)):  # names in another order than the numbers
        number(write(folder / f"{'abc'[n]}.nc", grid, MEMBERS[order]), order + 4)


def by_attribute(folder, grid):
    for n, order in enumerate((2, 0, 1)):
        write(folder / f"{'abc'[n]}.nc", grid, MEMBERS[order], attributes={"realization": f"r{order + 1}i1"})


def by_name(folder, grid):
    for n in range(3):
        write(folder / f"20200601T0015_member_{n + 8:02d}.nc", grid, MEMBERS[n])


def by_folder(folder, grid):
    folder.mkdir()
    for n in range(3):
        write(folder / f"ens{n + 1}" / "forecast.nc", grid, MEMBERS[n])


def by_dimension_of_one(folder, grid):  # as `cdo splitlevel` writes them
    folder.mkdir()
    for n, order in enumerate((2, 0, 1)):
        facts = {"lead_times": LEADS, "attributes": {}, "single": True, "num_members": 1, "grid": grid}
        path = folder / f"lev00000{n}.nc"
        write_members(path, [(REFERENCE, iter(MEMBERS[order][:, None]))], **facts)
        with edit(path) as file:
            file["realization"][:] = order


@pytest.mark.parametrize("split", [by_scalar, by_attribute, by_name, by_folder, by_dimension_of_one])
def test_members_in_files_of_their_own_are_an_ensemble(tmp_path, grid, split):
    split(tmp_path / "fc", grid)
    found = read_forecast(tmp_path / "fc")
    assert (found.kind, found.num_members, len(found.reference_times)) == ("ensemble", 3, 1)
    assert (found.lead_times == LEADS).all()
    packed = 0.01 if split is by_dimension_of_one else 1e-6
    for lead in range(2):
        np.testing.assert_allclose(found.members(0, lead), MEMBERS[:, lead], rtol=packed, atol=packed)
    np.testing.assert_allclose(found.read(0), MEMBERS.mean(axis=0), rtol=packed, atol=packed)


def test_a_file_for_each_member_and_lead_time_and_several_members_to_a_file_are_understood(tmp_path):
    for name, lead, members in [("a", 0, [2, 0]), ("b", 0, [1]), ("c", 1, [2, 0]), ("d", 1, [1])]:
        facts = {"reference": REFERENCE, "lead_minutes": 5 * (lead + 1)}
        improver_file(tmp_path / f"{name}.nc", MEMBERS[members, lead], **facts)
        with edit(tmp_path / f"{name}.nc") as file:
            file["realization"][:] = members
    for odd in ("b", "d"):  # files of two members and of one are not alike
        (tmp_path / f"{odd}.nc").unlink()
    found = read_forecast(str(tmp_path / "*.nc"))
    assert (found.num_members, len(found.lead_times)) == (2, 2)
    for name, lead, members in [("b", 0, [1, 5]), ("d", 1, [1, 5])]:
        improver_file(tmp_path / f"{name}.nc", MEMBERS[[1, 1], lead], reference=REFERENCE, lead_minutes=5 * (lead + 1))
        with edit(tmp_path / f"{name}.nc") as file:
            file["realization"][:] = members
    found = read_forecast(str(tmp_path / "*.nc"))
    assert (found.kind, found.num_members) == ("ensemble", 4)
    assert found.member_numbers == (0, 1, 2, 5)
    np.testing.assert_allclose(found.members(0, 1), MEMBERS[[0, 1, 2, 1], 1], rtol=1e-5)


def by_lead(folder, *orders):
    """Write a file for each lead time, whose members are stored in an order of their own."""
    folder.mkdir()
    for lead, order in enumerate(orders):
        improver_file(folder / f"{lead}.nc", MEMBERS[order, lead], reference=REFERENCE, lead_minutes=5 * (lead + 1))
        with edit(folder / f"{lead}.nc") as file:
            file["realization"][:] = [(2, 4, 7)[member] for member in order]
    return folder


def test_members_that_files_store_in_another_order_are_told_apart_by_number(tmp_path):
    found = read_forecast(by_lead(tmp_path / "fc", [1, 2, 0], [2, 0, 1]))
    for lead in range(2):
        np.testing.assert_allclose(found.members(0, lead), MEMBERS[:, lead], rtol=1e-5)
    assert found.member_numbers == (2, 4, 7)
    says = r"T00:25:00Z has the 2 members 2, 7 but that from .*T00:20:00Z has the 2 members 2, 4\.\nExpected the same members"
    with pytest.raises(DataError, match=says):
        read_forecast(by_lead(tmp_path / "odd", [1, 0], [2, 0]))


def test_several_reference_times_have_each_their_members(tmp_path, grid):
    for hour, numbers in ((0, (0, 1)), (1, (5, 6))):  # of a lagged ensemble, whose numbers differ
        for n, own in enumerate(numbers):
            path = write(tmp_path / "fc" / f"{hour}{n}.nc", grid, MEMBERS[n + hour], REFERENCE + np.timedelta64(hour, "h"))
            number(path, own)
    found = read_forecast(tmp_path / "fc")
    assert (found.num_members, len(found.reference_times)) == (2, 2)
    np.testing.assert_array_equal(found.members(1, 0), MEMBERS[1:, 0])


def test_one_member_of_each_reference_time_is_no_ensemble(tmp_path, grid):
    for hour in range(2):
        path = write(tmp_path / "fc" / f"{hour}.nc", grid, MEMBERS[hour], REFERENCE + np.timedelta64(hour, "h"))
        number(path, hour)
    found = read_forecast(tmp_path / "fc")
    assert (found.kind, found.num_members, len(found.reference_times)) == ("deterministic", 1, 2)


def test_totals_are_differenced_within_each_member(tmp_path, grid):
    for n in range(2):
        path = write(tmp_path / "fc" / f"m{n}.nc", grid, np.cumsum(np.nan_to_num(MEMBERS[n]), axis=0) / 12)
        with netCDF4.Dataset(path, "a") as file:
            names = {"standard_name": "rainfall_amount", "long_name": "total since the start"}
            file["precip_intensity"].setncatts(names | {"units": "kg m-2"})
    found = read_forecast(tmp_path / "fc")
    assert (found.kind, found.are_totals) == ("ensemble", True)
    for lead in range(2):
        np.testing.assert_allclose(found.members(0, lead), np.nan_to_num(MEMBERS[:2, lead]), rtol=1e-4, atol=1e-4)


def test_a_member_twice_or_untold_or_absent_is_refused(tmp_path, grid):
    paths = [write(tmp_path / "fc" / f"{name}.nc", grid, MEMBERS[n]) for n, name in enumerate("xy")]
    number(paths[0], 3)
    untold = r"Z for 2020-06-01T00:20:00Z: .*x.nc holds member 3 but .*y.nc does not say which it holds\.\nExpected files that"
    with pytest.raises(DataError, match=untold):
        read_forecast(tmp_path / "fc")
    number(paths[1], 3)
    number(write(tmp_path / "fc" / "z.nc", grid, MEMBERS[2]), 1)
    with pytest.raises(DataError, match=r"member 3 is in two files, .*x.nc and .*y.nc\.\nExpected each member once"):
        read_forecast(tmp_path / "fc")
    with edit(paths[1]) as file:
        file["realization"][...] = 0
    later = REFERENCE + np.timedelta64(1, "h")
    number(write(tmp_path / "fc" / "later.nc", grid, MEMBERS[0], later), 0)
    absent = r"from 2020-06-01T01:15:00Z for .*T01:20:00Z has member 0 but that from .* has the 3 members 0, 1, 3\.\nExpected"
    with pytest.raises(DataError, match=absent):
        read_forecast(tmp_path / "fc")


def test_how_many_lead_times_were_moved_is_told(tmp_path, grid, caplog):
    leads = np.array([[300, 604, 900, 1200], [300, 600, 895, 1203]], "timedelta64[s]")
    for n, own in enumerate(leads):
        path = write(tmp_path / "fc" / f"{n}.nc", grid, rain(frames=4), REFERENCE + np.timedelta64(n, "h"), leads=own)
    found = read_forecast(path.parent)
    assert found.lead_times.tolist() == [np.timedelta64(5 * n, "m").item() for n in range(1, 5)]
    assert [text for text in caplog.messages if "moved" in text] == [
        f"{path.parent}: moved 3 of 8 lead times by some seconds, so that they are evenly spaced"
    ]
