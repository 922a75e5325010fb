"""Several fields of one parameter and time, as of levels or members: one is chosen, all are refused, or a warning is given."""

import numpy as np
import pytest
from makers import command, expect
from makers.originals import counts, grib_message, write_odim

from nowcast.netcdf.opening import open_records

pytest.importorskip("pyproj")
pytest.importorskip("eccodes")
pytestmark = pytest.mark.usefixtures("cache")
FIELD = np.round(counts(shape=(20, 30)) / 100, 2)
SUM = {"productDefinitionTemplateNumber": 8, "parameterCategory": 1, "stepRange": "0-1", "typeOfGeneratingProcess": 8}
UNSTATED = {"typeOfGeneratingProcess": 255, "typeOfProcessedData": 255}
REFLECTIVITY = {"parameterCategory": 16, "parameterNumber": 4}


def message(times=1, **keys):
    return grib_message(FIELD * times, mrms=False, west=5.0, **{"decimal": 2} | keys)


def level(metres, times=1, **keys):
    return message(times, **REFLECTIVITY, typeOfLevel="heightAboveSea", level=metres, **keys)


def rate(times=1, **keys):
    """A rate of as many mm/h as the field."""
    return message(times / 3600, **{"decimal": 7} | keys)


def member(number, times=1):
    return rate(times, productDefinitionTemplateNumber=1, perturbationNumber=number, numberOfForecastsInEnsemble=9)


CASES = {  # name: messages, what is said of them, what chooses the second, its values as multiples of the field
    "levels": (
        lambda: [level(500), level(1000, 2), level(2000, 3)],
        "3 fields of refd for 2020-06-01T00:00:00: heightAboveSea=500; heightAboveSea=1000; heightAboveSea=2000",
        "refd@heightAboveSea=1000",
    ),
    "members": (lambda: [member(n, n) for n in (1, 2, 3, 4, 5, 6)], "member=1; member=2; member=3; member=4 and 2 more",
                "prate@member=2"),
    "sums by two parameters": (
        lambda: [message(**SUM, parameterNumber=8), message(2, **SUM, parameterNumber=52, typeOfStatisticalProcessing=1)],
        "2 fields of tp for 2020-06-01T01:00:00: code=0.1.8; code=0.1.52", "tp@code=0.1.52",
    ),
    "sums that do not say how they were made": (
        lambda: [message(n, **SUM | UNSTATED, parameterNumber=8, typeOfLevel="heightAboveGround", level=n) for n in (1, 2)],
        "2 fields of tp for 2020-06-01T01:00:00: heightAboveGround=1; heightAboveGround=2", "tp@heightAboveGround=2",
    ),
    "a rate and a mean": (
        lambda: [rate(minutes=60), rate(2, **SUM, parameterNumber=7, typeOfStatisticalProcessing=0)],
        "2 fields of prate for 2020-06-01T01:00:00: mean=60min", "prate@mean=60min",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_of_several_fields_for_one_time_one_is_chosen(tmp_path, name):
    make, says, choice = CASES[name]
    (tmp_path / "a.grib2").write_bytes(b"".join(make()))
    expect(3, "convert", tmp_path / "a.grib2", "--output", tmp_path / "out", says=says)
    expect(
        3,
        "convert",
        tmp_path / "a.grib2",
        "--output",
        tmp_path / "out",
        says=rf"\(--variable {choice.partition('@')[0]}@.* takes one\)",
    )
    code, out, err = command("convert", tmp_path / "a.grib2", "--output", tmp_path / "out", "--variable", choice)
    assert code == 0, err
    (record,) = open_records(out.split())
    expected = (10 ** (2 * FIELD / 10) / 200) ** (1 / 1.6) if "refd" in choice else 2 * FIELD
    np.testing.assert_allclose(record.read([0])[0], expected, atol=3e-4)
    assert choice.replace("@", "-").replace("=", "-").replace(".", "-") in out


def test_levels_in_files_of_their_own_are_not_mixed(tmp_path):
    for metres in (500, 1000):
        (tmp_path / f"{metres}.grib2").write_bytes(level(metres))
    expect(3, "convert", tmp_path, "--output", tmp_path / "out",
           says="have refd for 2020-06-01T00:00:00, of heightAboveSea=1000 and heightAboveSea=500")  # fmt: skip
    code, _, err = command("convert", tmp_path, "--output", tmp_path / "out", "--variable", "refd@heightAboveSea=500")
    assert (code, "1000.grib2 holds refd@heightAboveSea=1000, but no refd@heightAboveSea=500" in err) == (0, True)


def test_a_level_that_changes_between_times_is_no_conflict(tmp_path):
    (tmp_path / "a.grib2").write_bytes(level(500) + level(1000, minutes=5))
    code, out, err = command("convert", tmp_path / "a.grib2", "--output", tmp_path / "out")
    assert code == 0, err
    assert len(open_records(out.split())[0]) == 2


def test_copies_of_a_field_in_one_file_are_said(tmp_path):
    (tmp_path / "a.grib2").write_bytes(rate() + rate(2))
    code, out, err = command("convert", tmp_path / "a.grib2", "--output", tmp_path / "out")
    assert (code, "left out 1 field because another of its series has the same time" in err) == (0, True)
    np.testing.assert_allclose(open_records(out.split())[0].read([0])[0], 2 * FIELD, atol=3e-4)


@pytest.mark.parametrize("second", ["dataset2/data1", "dataset1/data2"])
def test_of_several_odim_fields_the_first_is_taken_with_a_warning(tmp_path, second):
    h5py = pytest.importorskip("h5py")
    path = write_odim(tmp_path / "a.h5", counts())
    with h5py.File(path, "a") as file:
        dataset = second.partition("/")[0]
        if dataset == "dataset2":
            file.copy("dataset1", "dataset2")
            file["dataset2/what"].attrs.update({"product": np.bytes_("PCAPPI"), "prodpar": 1000.0})
        else:
            file.copy("dataset1/data1", second)
        file[second]["data"][...] = counts() + 1
    code, out, err = command("convert", path, "--output", tmp_path / "first")
    stated = " (PCAPPI 1000.0)" if dataset == "dataset2" else ""
    says = f"has RATE in dataset1/data1 and in {second}{stated} for one time: the first is taken; choose with --variable, "
    assert (code, f"{says}such as RATE@{second}" in err) == (0, True), err
    np.testing.assert_allclose(open_records(out.split())[0].read([0])[0], counts() * 0.1, rtol=1e-6)
    code, out, err = command("convert", path, "--output", tmp_path / "second", "--variable", f"RATE@{second}")
    assert (code, "one time" in err) == (0, False)
    np.testing.assert_allclose(open_records(out.split())[0].read([0])[0], (counts() + 1) * 0.1, rtol=1e-6)
    expect(3, "convert", path, "--output", tmp_path / "none", "--variable", "RATE@dataset7", says="Expected RATE@dataset7")


@pytest.mark.parametrize(("template", "keys", "holds"), [
    (5, {}, "probability"), (9, {"stepRange": "0-1"}, "probability"), (2, {"derivedForecast": 4}, "spread"),
])  # fmt: skip
def test_a_probability_or_a_spread_of_rain_is_no_rain(tmp_path, template, keys, holds):
    """Probabilities of more than some rain have the parameter of the rain."""
    keys = {"parameterCategory": 1, "parameterNumber": 8, "typeOfGeneratingProcess": 8} | keys
    (tmp_path / "a.grib2").write_bytes(message(productDefinitionTemplateNumber=template, **keys))
    expect(3, "convert", tmp_path / "a.grib2", "--output", tmp_path / "out", says=f"_{holds}, but no known precipitation")
