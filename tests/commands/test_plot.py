"""`nowcast plot` draws the frames asked for, north up, and refuses the rest in one line with its exit code."""

from pathlib import Path

import numpy as np
import pytest
from makers import command, rain, write_record
from PIL import Image

from nowcast.commands import plot
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.opening import open_records
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


def forecast_file(path, record, *, cases=2, leads=3):
    (record,) = open_records([record])
    fields = np.repeat(record.read([0]), leads, axis=0)
    made = [(START + n * STEP, fields * (n + 1)) for n in range(cases)]
    facts = {"lead_times": np.arange(1, leads + 1) * STEP, "quantity": RAIN_RATE, "attributes": {}}
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
    np.testing.assert_array_equal(some.read(1), record.read([2])[0])
    assert len(plot.open_frames(path, None, None, (START, None)).labels) == 40


def test_a_forecast_shows_its_newest_case_or_the_one_asked_for(tmp_path):
    path = str(forecast_file(tmp_path / "f.nc", write_record(tmp_path / "rain.nc", corner_rain())))
    newest = plot.open_frames(path, None, None, (None, None))
    assert newest.title == "f.nc, forecast from 2020-06-01 00:05 UTC"
    assert newest.labels == ["+5 min, 00:10", "+10 min, 00:15", "+15 min, 00:20"]
    assert np.nanmax(newest.read(0)) == 60
    assert np.nanmax(plot.open_frames(path, None, START, (None, None)).read(2)) == 30


def test_an_animation_has_every_frame_and_a_picture_at_most_twelve(tmp_path):
    path = write_record(tmp_path / "rain.nc", rain(frames=30, shape=(8, 8)))
    asked = ("--start", "2020-06-01")
    assert command("plot", path, "--output", "a.gif", *asked, "-q")[0] == 0
    with Image.open("a.gif") as image:
        assert (image.n_frames, image.info["loop"]) == (30, 0)
    _, _, err = command("plot", path, "--output", "a.png", *asked)
    assert "drawing 12 of 30 frames" in err


def test_what_comes_next_is_named(tmp_path):
    record = write_record(tmp_path / "rain.nc", corner_rain())
    forecast = forecast_file(tmp_path / "f.nc", record)
    assert command("plot", record, "--output", "a.png") == (
        0, "a.png\n", f"next: nowcast predict extrapolation {record} --output forecast.nc\n"
    )  # fmt: skip
    assert command("plot", forecast, "--output", "b.png") == (
        0, "b.png\n", f"next: nowcast evaluate {forecast} --observations RECORD... --output scores/\n"
    )  # fmt: skip


def test_everything_missing_is_a_grey_picture(tmp_path):
    path = write_record(tmp_path / "rain.nc", np.full((2, 8, 8), np.nan))
    assert command("plot", path, "--output", "a.png", "-q")[0] == 0
    assert ((colours("a.png") == 217).all(axis=-1)).mean() > 0.3


def test_a_large_grid_is_averaged_for_display_and_the_title_says_so(tmp_path):
    path = str(write_record(tmp_path / "rain.nc", corner_rain(shape=(700, 900))))
    frames = plot.open_frames(path, None, None, (None, None))
    assert "means of 3 × 3 cells" in plot.picture_title(frames, 3)
    plot.plot(path, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < 100_000


def refused(code, *argv, says):
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    found, out, err = command("plot", *argv)
    assert (found, out) == (code, ""), err
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") <= 2
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


def test_what_cannot_be_drawn_is_refused_with_its_exit_code(workplace):
    record = write_record(workplace / "rain.nc", rain(frames=4, shape=(8, 8)))
    forecast = forecast_file(workplace / "f.nc", record)
    (workplace / "text.nc").write_text("no NetCDF")
    (workplace / "there.png").write_text("mine")
    (workplace / "folder.png").mkdir()
    refused(2, record, "--output", "a.jpg", says="end the name in .png for panels or in .gif")
    refused(2, record, "--output", "a", says="--output a: end the name")
    refused(5, record, "--output", "there.png", says="there.png exists already.\nChoose another --output")
    refused(5, record, "--output", "folder.png", "--overwrite", says="folder.png cannot be written: it is a folder")
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
