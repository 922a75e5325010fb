"""`nowcast inspect` reports what is in a record."""

import numpy as np
import pytest
from makers import rain, write_record
from makers.foreign import improver_file
from makers.places import index, placed
from makers.stored import edit

from nowcast.commands import inspect as commands_inspect
from nowcast.errors import DataError
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.writing.members import write_members
from nowcast.quantity import RAIN_RATE

START = np.datetime64("2020-06-01T00:00:00")
MINUTES = np.timedelta64(60, "s")


def inspect(path, **options):
    (record,) = open_records([path], **options)
    return commands_inspect.inspect_record(record)


def test_the_facts_of_a_small_record(tmp_path):
    fields = np.zeros((20, 4, 5), np.float32)
    fields[:, 0] = np.nan
    fields[3, 1, :3] = (0.1, 1.0, 7.5)
    facts = inspect(write_record(tmp_path / "a.nc", fields, y_ascending=True))
    assert facts["name"] == "a"
    assert facts["grid"] == [4, 5]
    assert facts["spacing_km"] == [1.0, 1.0]
    assert facts["y_ascending"] is True
    assert facts["grid_mapping"] == "azimuthal_equidistant"
    assert (facts["variable"], facts["quantity"], facts["units"]) == ("rainfall_rate", "rain_rate", "mm h-1")
    assert (facts["start"], facts["end"]) == ("2020-06-01T00:00:00Z", "2020-06-01T01:35:00Z")
    assert (facts["num_frames"], facts["time_step_minutes"], facts["num_gaps"]) == (20, 5.0, 0)
    assert facts["missing_percent"] == 25
    assert facts["wet_percent"] == {"0.1": 1.0, "1": pytest.approx(0.667), "5": pytest.approx(0.333)}
    assert facts["maximum"] == 7.5
    assert (facts["windows"]["num_windows"], facts["windows"]["num_gap"]) == (5, 15)


def test_gaps_are_counted_and_it_is_told_when_they_are(tmp_path):
    times = START + np.array([0, 5, 10, 30, 35, 60]) * MINUTES
    facts = inspect(write_record(tmp_path / "a.nc", rain(frames=6, shape=(4, 4)), times=times))
    assert (facts["num_gaps"], facts["windows"]["num_windows"]) == (2, 0)
    assert facts["gaps"][0] == {"after": "2020-06-01T00:10:00Z", "before": "2020-06-01T00:30:00Z", "num_absent": 3}
    line = "  gaps     2: 2020-06-01T00:10:00Z to 2020-06-01T00:30:00Z, 3 frames absent; 2020-06-01T00:35:00Z to"
    assert commands_inspect.as_lines([facts])[2].startswith(line)


def test_of_many_gaps_the_longest_are_shown_in_order_of_time(tmp_path):
    times = START + np.cumsum([5, 5, 5, 10, 5, 20, 5, 15, 5, 10, 5, 30, 5]) * MINUTES
    facts = inspect(write_record(tmp_path / "a.nc", rain(frames=13, shape=(4, 4)), times=times))
    line = commands_inspect.as_lines([facts])[2]
    assert line.startswith("  gaps     5, the longest: ")
    assert [int(part.split(", ")[1].split()[0]) for part in line.split(": ", 1)[1].split("; ")] == [1, 3, 2, 5]


def test_the_corners_are_told_or_why_they_are_not_known(tmp_path):
    pytest.importorskip("pyproj")
    facts = inspect(write_record(tmp_path / "a.nc", rain(frames=2, shape=(5, 6))))
    # 500 m south-west of the middle of the projection, at 50 °N 5 °E
    assert facts["corners"][3] == [pytest.approx(50 - 0.5 / 111.23, abs=1e-3), pytest.approx(5 - 0.5 / 71.7, abs=1e-3)]
    assert "  place    corners NW 50.041 °N 4.993 °E, NE 50.040 °N 5.0" in "\n".join(commands_inspect.as_lines([facts]))
    facts = inspect(placed(tmp_path / "b.nc", index()))
    assert facts["corners"] is None
    assert "  place    unknown: it does not say where its cells are" in "\n".join(commands_inspect.as_lines([facts]))


def test_a_single_frame_and_an_empty_record_can_be_inspected(tmp_path):
    facts = inspect(write_record(tmp_path / "a.nc", np.full((1, 4, 4), np.nan)))
    assert facts["time_step_minutes"] is None
    assert facts["missing_percent"] == 100
    assert facts["maximum"] is None
    assert set(facts["wet_percent"].values()) == {None}
    text = "\n".join(commands_inspect.as_lines([facts]))
    assert "1 frame, no time step\n" in text
    assert "all missing (1 frame read)" in text
    assert "None" not in text


def forecast_options(tmp_path, *, frames=20):
    path = tmp_path / "record.nc"
    (record,) = open_records([path if path.exists() else write_record(path, rain(frames=frames))])
    return {"grid": record.grid, "lead_times": np.arange(1, 4) * 5 * MINUTES, "attributes": {}}


def test_members_are_told_with_their_times_and_values(tmp_path):
    members = np.zeros((3, 2, 48, 56), np.float32)  # (lead, member, y, x)
    members[:, :, :12] = np.nan
    members[0, 1, 20:22, :42] = 0.5
    members[2, 0, 40, 0] = 12
    options = forecast_options(tmp_path) | {"num_members": 2, "single": True}
    write_members(tmp_path / "m.nc", [(START, iter(members))], **options)
    (facts,) = commands_inspect.inspect_files([str(tmp_path / "m.nc")])
    assert (facts["kind"], facts["num_members"], facts["num_reference_times"]) == ("ensemble", 2, 1)
    assert (facts["lead_minutes"], facts["grid"], facts["spacing_km"]) == ([5, 10, 15], [48, 56], [1, 1])
    assert (facts["missing_percent"], facts["num_fields_read"], facts["maximum"]) == (25, 6, 12)
    known = 6 * 36 * 56
    assert facts["wet_percent"]["0.1"] == pytest.approx(100 * 85 / known, abs=1e-3)
    assert facts["wet_percent"]["5"] == pytest.approx(100 / known, abs=1e-3)
    lines = commands_inspect.as_lines([facts])
    assert lines[:4] == [
        "m  (1 file, variable precip_intensity)",
        "  holds    forecasts: 2 members",
        "  times    1 reference time, 2020-06-01T00:00:00Z",
        "  leads    3 lead times, 5 to 15 min",
    ]
    assert lines[-1].endswith("maximum 12 mm/h (6 fields read)")


def test_forecasts_from_several_times_and_probabilities_are_told(tmp_path):
    options = forecast_options(tmp_path) | {"single": False, "quantity": RAIN_RATE, "attributes": {"source": "s, nowcast 1"}}
    cases = [(START + n * 5 * MINUTES, rain(frames=3, seed=n)) for n in range(2)]
    write_forecast(tmp_path / "many.nc", cases, **options)
    many, record = commands_inspect.inspect_files([str(tmp_path / "many.nc")]), str(tmp_path / "record.nc")
    assert (many[0]["kind"], many[0]["num_reference_times"], many[0]["num_fields_read"]) == ("deterministic", 2, 6)
    assert commands_inspect.next_step([record], many, variable=None, units=None)[0] == "nowcast evaluate"
    assert "  times    2 reference times, 2020-06-01T00:00:00Z to 2020-06-01T00:05:00Z" in commands_inspect.as_lines(many)
    both = commands_inspect.inspect_files([str(tmp_path / "many.nc"), record])
    assert ["lead_minutes" in each for each in both] == [False, True]  # records first


def test_a_forecast_is_told_as_one_with_the_probabilities_beside_it(tmp_path, caplog):
    options = forecast_options(tmp_path) | {"single": True, "quantity": RAIN_RATE, "thresholds": (0.5, 2.0)}
    case = (START, rain(frames=3), np.full((3, 2, 48, 56), 0.25))
    write_forecast(tmp_path / "f.nc", [case], **options)
    (told,) = commands_inspect.inspect_files([str(tmp_path / "f.nc")])
    assert (told["kind"], told["thresholds"], told["lead_minutes"]) == ("deterministic", [0.5, 2], [5, 10, 15])
    assert "  holds    forecasts: one field each, and probabilities of 0.5, 2 mm/h or more" in commands_inspect.as_lines([told])
    assert commands_inspect.next_step(["f.nc"], [told], variable=None, units=None)[0] == "nowcast evaluate"
    assert not caplog.records
    with pytest.raises(DataError, match=r'f.nc has no variable "hail"\.\nIt has .*precip_intensity'):
        commands_inspect.inspect_files([str(tmp_path / "f.nc")], variable="hail")


def test_a_folder_with_a_record_beside_a_forecast_is_a_record(tmp_path, caplog):
    options = forecast_options(tmp_path) | {"single": True, "quantity": RAIN_RATE, "attributes": {"source": "s, nowcast 1"}}
    write_forecast(tmp_path / "a.nc", [(START, rain(frames=3))], **options)
    (told,) = commands_inspect.inspect_files([str(tmp_path)])
    assert told["num_frames"] == 20
    assert "left out 1 of 2 files" in caplog.text
    (tmp_path / "record.nc").unlink()
    (told,) = commands_inspect.inspect_files([str(tmp_path)])
    assert told["lead_minutes"] == [5, 10, 15]


def test_the_variable_asked_for_is_told_where_several_could_be(tmp_path):
    options = forecast_options(tmp_path) | {"single": True, "quantity": RAIN_RATE}
    write_forecast(tmp_path / "f.nc", [(START, rain(frames=3))], **options)
    with edit(tmp_path / "f.nc") as file:
        file.renameVariable("precip_intensity", "one")
        other = file.createVariable("two", "f4", file["one"].dimensions)
        other.setncatts({"standard_name": "rainfall_rate", "units": "mm h-1", "coordinates": file["one"].coordinates})
        other[...] = 1
    (told,) = commands_inspect.inspect_files([str(tmp_path / "f.nc")], variable="two")
    assert (told["variable"], told["maximum"], told["thresholds"]) == ("two", 1, [])


def test_probabilities_by_themselves_are_told(tmp_path):
    chances = np.full((2, 6, 7), 0.5)
    chances[:, 0] = np.nan
    facts = {"variable": "probability_of_rainfall_rate_above_threshold", "units": "1", "scale": 1, "thresholds": (0.1, 2.5)}
    improver_file(tmp_path / "p.nc", chances, reference=START, lead_minutes=5, **facts)
    (told,) = commands_inspect.inspect_files([str(tmp_path / "p.nc")])
    assert (told["kind"], told["thresholds"], told["missing_percent"]) == ("probability", [0.1, 2.5], pytest.approx(16.67))
    assert "  holds    forecasts: probabilities of 0.1, 2.5 mm/h or more" in commands_inspect.as_lines([told])


def test_a_long_record_is_sampled_evenly(tmp_path):
    facts = inspect(write_record(tmp_path / "a.nc", np.ones((500, 2, 2)), step_minutes=1))
    assert facts["num_frames_read"] == commands_inspect.SAMPLE
    assert facts["missing_percent"] == 0


def test_the_lines_for_people_hold_the_facts(tmp_path):
    fields = rain(frames=20, shape=(8, 9))
    fields[:10] = 0
    lines = commands_inspect.as_lines([inspect(write_record(tmp_path / "a.nc", fields))])
    assert lines[0] == "a  (1 file, variable rainfall_rate)"
    assert "20 frames every 5 min" in lines[1]
    assert lines[2] == "  gaps     none"
    assert lines[3] == "  unit     rainfall_rate as rain rate: mm h-1 -> mm/h"
    assert "8 × 9 cells of 1 × 1 km, y down, azimuthal_equidistant" in lines[4]
    assert lines[6].startswith("  values   0 % of the cells missing; of the others ")
    assert lines[7].startswith(
        "  network  5 windows in 20 frames (4 past + 12 future frames, 15 + 60 min); 15 start times dropped: gap"
    )
    assert lines[7].endswith("; 10 of 20 frames read have rain in 1 % of the cells")


FACTS = [  # from the README of the shared records: frames, minutes, y, x, missing, >= 0.1, >= 1, >= 5 (per cent), maximum
    ("mch/20150515.nc", 40, 5, 640, 710, 30.9, 17.3, 8.4, 1.29, 116),
    ("dwd/yw_20170816.nc", 12, 5, 1100, 900, 38.9, 14.6, 7.9, 2.40, 143),
    ("mrms/20190610_southeast.nc", 36, 2, 512, 512, 0.0, 30.4, 21.8, 3.96, 153),
    ("opera/cirrus_20241126_alps_germany.nc", 13, 5, 768, 768, 0.2, 44.5, 19.7, 3.45, 655),
    ("smhi/gothenburg_20150827.nc", 145, 5, 48, 37, 0.0, 63.4, 41.3, 10.74, 82),
    ("meteofrance/nw_201608_gappy.nc", 45, 5, 565, 784, 12.5, 0.7, 0.1, 0.01, 30),
]


@pytest.mark.parametrize(("name", "frames", "minutes", "y", "x", "missing", "light", "rain", "heavy", "highest"), FACTS)
def test_real_records_hold_what_their_readme_says(shared, name, frames, minutes, y, x, missing, light, rain, heavy, highest):
    facts = inspect(shared / "radar" / name)
    assert (facts["num_frames"], facts["time_step_minutes"], facts["grid"]) == (frames, minutes, [y, x])
    assert facts["y_ascending"] == name.startswith("dwd")
    assert facts["missing_percent"] == pytest.approx(missing, abs=0.06)
    wet = facts["wet_percent"]
    assert (wet["0.1"], wet["1"]) == (pytest.approx(light, abs=0.06), pytest.approx(rain, abs=0.06))
    assert wet["5"] == pytest.approx(heavy, abs=0.006)
    assert facts["maximum"] == pytest.approx(highest, abs=0.51)
    assert facts["num_gaps"] == (9 if "gappy" in name else 0)
