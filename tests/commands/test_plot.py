"""`nowcast plot` draws the frames asked for, north up, and refuses the rest in one line with its exit code."""

import re
import shutil
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from makers import command, rain, write_record
from makers.stored import edit
from PIL import Image

from nowcast.commands import plot
from nowcast.errors import DataError
from nowcast.netcdf.accumulations import Accumulation
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.writing.members import write_members
from nowcast.quantity import RAIN_RATE
from nowcast.report import maps

pytestmark = [pytest.mark.usefixtures("workplace"), pytest.mark.slow]

START = np.datetime64("2020-06-01T00:00:00")
STEP = np.timedelta64(300, "s")


def corner_rain(frames=1, shape=(20, 30)):
    """30 mm/h in the north-west, missing in the south-west, dry elsewhere; a wet first row."""
    fields = np.zeros((frames, *shape), np.float32)
    fields[:, : shape[0] // 2, : shape[1] // 2] = 30
    fields[:, shape[0] // 2 :, : shape[1] // 2] = np.nan
    return fields


def forecast_file(path, record, *, cases=2, leads=3, step=STEP):
    (record,) = open_records([record])
    fields = np.repeat(record.read([0]), leads, axis=0)
    made = [(START + n * STEP, fields * (n + 1)) for n in range(cases)]
    facts = {"lead_times": np.arange(1, leads + 1) * step, "quantity": RAIN_RATE, "attributes": {}}
    write_forecast(path, made, grid=record.grid, single=cases == 1, **facts)
    return path


def colours(path, frame=0):
    """The picture as (y, x, RGB)."""
    with Image.open(path) as image:
        image.seek(frame)
        return np.asarray(image.convert("RGB")).astype(int)


def centre_of(pixels, colour):
    """(y, x) of the pixels of that colour, as shares of the picture, left of the colour scale."""
    wanted = [int(colour[n : n + 2], 16) for n in (1, 3, 5)]
    y, x = np.nonzero((pixels[:, : round(pixels.shape[1] * 0.75)] == wanted).all(axis=-1))
    return np.array([np.median(y) / pixels.shape[0], np.median(x) / pixels.shape[1]])


@pytest.mark.parametrize("y_ascending", [False, True])
@pytest.mark.parametrize("name", ["out.png", "out.gif"])
@pytest.mark.parametrize("is_forecast", [False, True])
def test_north_is_at_the_top_whichever_way_the_rows_run(tmp_path, y_ascending, name, is_forecast):
    path = write_record(tmp_path / "rain.nc", corner_rain(), y_ascending=y_ascending)
    path = forecast_file(tmp_path / "f.nc", path, cases=1) if is_forecast else path
    assert command("plot", path, "--output", name, "-q") == (0, f"{name}\n", "")
    rainy, missing = (centre_of(colours(name), colour) for colour in (maps.RAIN_COLOURS[7], maps.MISSING_COLOUR))
    assert rainy[0] < missing[0] - 0.1
    assert rainy[1] == pytest.approx(missing[1], abs=0.02)


def test_a_record_shows_its_newest_frames_or_those_asked_for(tmp_path):
    path = str(write_record(tmp_path / "rain.nc", rain(frames=40, shape=(8, 8))))
    newest = plot.open_frames(path, None, None, (None, None))
    assert [len(newest.labels), newest.labels[0], newest.labels[-1]] == [12, "2020-06-01 02:20 UTC", "2020-06-01 03:15 UTC"]
    some = plot.open_frames(path, None, None, (START + STEP, START + 3 * STEP))
    assert some.labels == ["2020-06-01 00:05 UTC", "2020-06-01 00:10 UTC", "2020-06-01 00:15 UTC"]
    (record,) = open_records([path])
    np.testing.assert_array_equal(some.series[0].read(1), record.read([2])[0])
    assert len(plot.open_frames(path, None, None, (START, None)).labels) == 40


def test_a_forecast_shows_its_newest_case_or_the_one_asked_for(tmp_path):
    path = str(forecast_file(tmp_path / "f.nc", write_record(tmp_path / "rain.nc", corner_rain())))
    newest = plot.open_frames(path, None, None, (None, None))
    assert newest.title == "f.nc: forecast from 2020-06-01 00:05 UTC"
    assert newest.labels == ["+5 min, 00:10 UTC", "+10 min, 00:15 UTC", "+15 min, 00:20 UTC"]
    assert np.nanmax(newest.series[0].read(0)) == 60
    assert np.nanmax(plot.open_frames(path, None, START, (None, None)).series[0].read(2)) == 30


def test_valid_times_of_a_forecast_have_their_seconds(tmp_path):
    record, step = write_record(tmp_path / "rain.nc", corner_rain()), np.timedelta64(90, "s")
    path = str(forecast_file(tmp_path / "f.nc", record, cases=1, leads=2, step=step))
    assert plot.open_frames(path, None, None, (None, None)).labels == ["+1.5 min, 00:01:30 UTC", "+3 min, 00:03 UTC"]


def test_an_animation_has_every_frame_and_a_picture_at_most_twelve(tmp_path):
    path = write_record(tmp_path / "rain.nc", rain(frames=14, shape=(8, 8)))
    asked = ("--start", "2020-06-01")
    assert command("plot", path, "--output", "a.gif", *asked, "-q")[0] == 0
    with Image.open("a.gif") as image:
        assert (image.n_frames, image.info["loop"]) == (14, 0)
    _, _, err = command("plot", path, "--output", "a.png", *asked)
    assert "drawing 7 of 14 frames, one of every 2; choose fewer by --start and --end" in err


def test_what_comes_next_is_named(tmp_path):
    record = write_record(tmp_path / "rain.nc", corner_rain())
    forecast = forecast_file(tmp_path / "f.nc", record)
    assert command("plot", record, "--output", "a.png") == (
        0, "a.png\n", f"next: nowcast predict extrapolation {record} --output forecast.nc\n"
    )  # fmt: skip
    assert command("plot", forecast, "--output", "b.png") == (
        0, "b.png\n", f"next: nowcast evaluate {forecast} --observations RECORD... --output scores/\n"
    )  # fmt: skip
    later = write_record(tmp_path / "later.nc", corner_rain(frames=6))
    _, _, err = command("plot", forecast, "--observations", later, "--output", "c.png")
    assert err == f"next: nowcast evaluate {forecast} --observations {later} --output scores/\n"


def test_a_picture_in_a_folder_is_named_after_its_record(tmp_path):
    path = write_record(tmp_path / "rain.nc", corner_rain())
    Path("folder").mkdir()
    assert command("plot", path, "--output", "folder", "-q") == (0, "folder/rain.png\n", "")
    assert Path("folder/rain.png").read_bytes().startswith(b"\x89PNG")


def test_everything_missing_is_a_grey_picture(tmp_path):
    path = write_record(tmp_path / "rain.nc", np.full((2, 8, 8), np.nan))
    assert command("plot", path, "--output", "a.png", "-q")[0] == 0
    assert ((colours("a.png") == 217).all(axis=-1)).mean() > 0.3


def texts(path):
    """The texts of an SVG."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", Path(path).read_text())


def test_a_large_grid_is_averaged_for_display_and_the_title_says_so(tmp_path):
    path = str(write_record(tmp_path / "rain.nc", corner_rain(shape=(700, 900))))
    plot.plot(path, tmp_path / "a.svg")
    assert "(grey: missing; pixels are means of 2 × 2 cells)" in texts(tmp_path / "a.svg")
    plot.plot(path, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < 100_000


def test_a_picture_is_cut_to_the_area_with_data(tmp_path):
    fields = np.full((1, 60, 80), np.nan, np.float32)
    fields[:, 10:20, 30:50] = 30
    path = str(write_record(tmp_path / "rain.nc", fields))
    plot.plot(path, tmp_path / "a.png")
    plot.plot(path, tmp_path / "a.svg")
    rain = (colours(tmp_path / "a.png") == [int(maps.RAIN_COLOURS[7][n : n + 2], 16) for n in (1, 3, 5)]).all(axis=-1)
    assert rain.mean() > 0.3  # of the whole picture; of the grid it is 4 %
    assert "(grey: missing; cut to the observed area)" in texts(tmp_path / "a.svg")


def test_the_ending_decides_what_is_written(tmp_path):
    path = write_record(tmp_path / "rain.nc", corner_rain(frames=2))
    for name, begins in (("a.PNG", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("a.gif", b"GIF8")):
        assert command("plot", path, "--output", name, "--motion", "-q")[0] == 0
        assert Path(name).read_bytes().startswith(begins)
    assert command("plot", path, "--output", "a.mp4", "-q")[0] == 0
    assert Path("a.mp4").read_bytes()[4:8] == b"ftyp"


def test_without_ffmpeg_two_lines_say_how_to_get_it(tmp_path, monkeypatch):
    path = write_record(tmp_path / "rain.nc", corner_rain())
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    refused(2, path, "--output", "a.mp4", says="pip install -e '.[pictures]', or end the name in .gif")


def test_lines_of_the_earth_are_drawn_where_the_place_is_known(tmp_path):
    """The record lies at 50° N 5° E, on the border of Belgium and France; without its projection nobody knows."""
    path = write_record(tmp_path / "rain.nc", np.zeros((1, 60, 60), np.float32))
    assert command("plot", path, "--output", "a.svg", "-q")[0] == 0
    assert {"5.4°E", "50.2°N"} <= set(texts("a.svg"))
    nowhere = write_record(tmp_path / "nowhere.nc", np.zeros((1, 60, 60), np.float32))
    with netCDF4.Dataset(nowhere, "a") as file:
        file["crs"].delncattr("grid_mapping_name")
    assert command("plot", nowhere, "--output", "b.svg", "-q")[0] == 0
    assert not [text for text in texts("b.svg") if "°" in text]


def test_what_was_observed_is_drawn_beside_a_forecast(tmp_path):
    record = write_record(tmp_path / "rain.nc", corner_rain(frames=3))
    forecast = forecast_file(tmp_path / "f.nc", record, cases=1)
    frames = plot.open_frames(str(forecast), None, None, (None, None), observations=[str(record)])
    assert [series.name for series in frames.series] == ["observed", "forecast"]
    (opened,) = open_records([record])
    np.testing.assert_array_equal(frames.series[0].read(1), opened.read([2])[0])
    assert np.isnan(frames.series[0].read(2)).all()  # no frame at 00:15
    assert command("plot", forecast, "--observations", record, "--output", "a.svg", "-q")[0] == 0
    assert [texts("a.svg").count(name) for name in ("observed", "forecast", "+10 min, 00:10 UTC")] == [1, 1, 2]
    assert command("plot", forecast, "--observations", record, "--output", "a.gif", "-q")[0] == 0
    other = write_record(tmp_path / "other.nc", corner_rain(shape=(9, 9)))
    refused(3, forecast, "--observations", other, "--output", "b.png", says="is not on the grid of")
    refused(2, record, "--observations", record, "--output", "b.png", says="is a record: --observations is for forecasts")


def test_amounts_are_drawn_as_mean_rates_and_told_so(tmp_path):
    (record,) = open_records([write_record(tmp_path / "r.nc", corner_rain(frames=4))])
    facts = {"grid": record.grid, "lead_times": np.arange(1, 5) * STEP, "quantity": RAIN_RATE, "attributes": {}}
    path, fields = str(tmp_path / "f.nc"), np.repeat(record.read([0]), 4, axis=0) * np.arange(4)[:, None, None]
    write_forecast(path, [(START, fields)], single=True, sums=[Accumulation(10, 2, 2)], **facts)
    frames = plot.open_frames(path, "rain_sum_10_min", None, (None, None))
    assert ": forecast, averaged over 10 min, from 2020-06-01 00:00 UTC" in frames.title
    assert [float(frames.series[0].read(n)[0, 0]) for n in range(2)] == pytest.approx([15, 75])
    assert "averaged" not in plot.open_frames(path, None, None, (None, None)).title
    refused(3, path, "--variable", "hail", "--output", "a.png", says='has no variable "hail"')


def test_probabilities_are_drawn_of_the_threshold_asked_for(tmp_path):
    record = write_record(tmp_path / "rain.nc", corner_rain(frames=3))
    (opened,) = open_records([record])
    fields = opened.read([0, 1, 2])
    chances = np.stack([np.full_like(fields, 0.85), np.full_like(fields, 0.15)], axis=1)
    facts = {"lead_times": np.arange(1, 4) * STEP, "quantity": RAIN_RATE, "attributes": {}, "grid": opened.grid}
    write_forecast(tmp_path / "f.nc", [(START, fields, chances)], single=True, thresholds=(1.0, 5.0), **facts)
    frames = plot.open_frames(str(tmp_path / "f.nc"), None, None, (None, None), threshold=5, observations=[str(record)])
    assert frames.title == "f.nc: probability of 5 mm/h or more, forecast from 2020-06-01 00:00 UTC"
    assert (frames.quantity.name, [series.name for series in frames.series]) == ("probability", ["observed ≥ 5", "forecast"])
    np.testing.assert_allclose(frames.series[1].read(0), 0.15, atol=1e-4)
    np.testing.assert_array_equal(frames.series[0].read(0)[[0, 0, -1], [0, -1, 0]], [1, 0, np.nan])
    refused(2, tmp_path / "f.nc", "--threshold", 7, "--output", "a.png", says="holds the probabilities of 1, 5 mm/h")
    plain = forecast_file(tmp_path / "plain.nc", record, cases=1)
    refused(2, plain, "--threshold", 5, "--output", "a.png", says="holds no probabilities")


def test_the_mean_and_the_first_members_of_an_ensemble_are_drawn_below_one_another(tmp_path):
    record = write_record(tmp_path / "rain.nc", corner_rain(frames=3))
    (opened,) = open_records([record])
    factors = np.arange(6, dtype=np.float32)[:, None, None]
    case = START, iter([opened.read([0])[0] * factors] * 6)
    facts = {"lead_times": np.arange(1, 7) * STEP, "attributes": {}, "grid": opened.grid, "num_members": 6}
    write_members(tmp_path / "f.nc", [case], single=True, **facts)
    frames = plot.open_frames(str(tmp_path / "f.nc"), None, None, (None, None))
    assert [series.name for series in frames.series] == ["mean", *(f"member {n}" for n in range(4))]
    assert frames.title.startswith("f.nc: mean and some of 6 members from 2020-06-01 00:00 UTC")
    for series, factor in zip(frames.series, (2.5, 0, 1, 2, 3), strict=True):
        np.testing.assert_allclose(series.read(5)[0, 0], 30 * factor, rtol=0.01)
    plot.plot(str(tmp_path / "f.nc"), tmp_path / "a.svg")
    assert [texts(tmp_path / "a.svg").count(name) for name in ("mean", "member 3", "+10 min, 00:10 UTC")] == [1, 1, 5]
    plot.plot(str(tmp_path / "f.nc"), tmp_path / "a.gif")
    assert colours(tmp_path / "a.gif").shape[1] < 1600  # five maps in the width of two
    with edit(shutil.copy(tmp_path / "f.nc", tmp_path / "from_1.nc")) as file:  # as ECMWF numbers them
        file["realization"][:] = np.arange(1, 7)
    numbered = plot.open_frames(str(tmp_path / "from_1.nc"), None, None, (None, None))
    assert [series.name for series in numbered.series] == ["mean", *(f"member {n}" for n in range(1, 5))]
    share = plot.open_frames(str(tmp_path / "f.nc"), None, None, (None, None), threshold=40)
    assert (len(share.series), share.series[0].read(0)[0, 0]) == (1, np.float32(4 / 6))


def refused(code, *argv, says):
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    found, out, err = command("plot", *argv)
    assert (found, out) == (code, ""), err
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") <= 2
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


def test_forecasts_that_do_not_fit_together_are_not_drawn_as_a_record(tmp_path):
    """Such as a file for each member."""
    record = write_record(tmp_path / "a.nc", corner_rain(4))
    (tmp_path / "members").mkdir()
    for member in range(2):
        path = forecast_file(tmp_path / "members" / f"{member}.nc", record, cases=1)
        with netCDF4.Dataset(path, "a") as file:
            file.source = "another centre"
    with pytest.raises(DataError, match=r"is in two files, .*0\.nc and .*1\.nc"):
        plot.open_frames(str(tmp_path / "members"), None, None, (None, None))


def test_what_cannot_be_drawn_is_refused_with_its_exit_code(workplace):
    record = write_record(workplace / "rain.nc", rain(frames=4, shape=(8, 8)))
    forecast = forecast_file(workplace / "f.nc", record)
    (workplace / "text.nc").write_text("no NetCDF")
    (workplace / "there.png").write_text("mine")
    refused(2, record, "--output", "a.jpg", says="End it in .png, .svg, .pdf for panels, in .gif or .mp4 for an animation")
    refused(2, record, "--output", "a", says="--output a: the ending of the name must say what to draw")
    refused(5, record, "--output", "there.png", says="there.png exists already.\nChoose another --output")
    refused(5, record, "--output", "absent/a.png", says="there is no folder absent")
    refused(3, workplace / "text.nc", "--output", "a.png", says="is not a NetCDF file")
    refused(2, "absent.nc", "--output", "a.png", says="no such file or folder: absent.nc")
    refused(3, record, "--output", "a.png", "--variable", "hail", says='has no variable "hail"')
    refused(2, record, "--output", "a.png", "--reference-time", "2020-06-01", says="is a record: choose frames by --start")
    refused(2, forecast, "--output", "a.png", "--start", "2020-06-01", says="holds forecasts: choose one by --reference-time")
    refused(2, record, "--output", "a.png", "--start", "2020-06-02", "--end", "2020-06-01", says="is after --end")
    refused(2, record, "--output", "a.png", "--start", "yesterday", says="--start yesterday: not a time")
    refused(75, record, "--output", "a.png", "--start", "2021-01-01", says="no frame in the times asked for")
    refused(75, forecast, "--output", "a.png", "--reference-time", "2021-01-01", says="It has 2 reference times from")
    write_record(workplace / "other.nc", rain(frames=4, shape=(9, 9)))
    refused(2, str(workplace / "*r*.nc"), "--output", "a.png", says="2 records on different grids (other, rain)")
    assert command("plot", record, "--output", "there.png", "--overwrite", "-q")[0] == 0
    assert (workplace / "there.png").read_bytes().startswith(b"\x89PNG")
