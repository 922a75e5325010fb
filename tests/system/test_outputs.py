"""Readers always see whole files, no input is overwritten, and every output is read back before it gets its name."""

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from makers import command, rain, tiny_run, write_record
from makers.processes import run_beside

from nowcast.commands.predict import predict_files
from nowcast.errors import OutputError
from nowcast.prediction.cases import Selection

pytestmark = pytest.mark.slow  # all of them together take seconds

START = np.datetime64("2020-06-01T00:00:00")
STEP = np.timedelta64(300, "s")
WRITERS = 40
FIELDS = rain(frames=WRITERS, shape=(60, 70))


def write_one(record, output, n, overwrite):
    """A child's forecast from its own frame; its exit code."""
    selection = Selection(listed=(START + n * STEP,))
    try:
        predict_files("persistence", [str(record)], str(output), selection, variable=None, device="cpu", overwrite=overwrite)
    except OutputError as error:
        return error.exit_code
    return 0


def read_whole(path):
    """Which writer's file it is; raises unless it is that file and whole. Opened once: the next moment it is another file."""
    with netCDF4.Dataset(path) as file:
        since = np.datetime64(file["time"].units.removeprefix("seconds since "))
        fields = file["precip_intensity"][:].filled(np.nan)
    n = int((since - START) / STEP)
    np.testing.assert_array_equal(fields, np.repeat(FIELDS[n : n + 1], 12, axis=0))
    return n


def write_together(record, output, *, overwrite):
    """Forty processes write one file; meanwhile it is read again and again, from before the first until after the last."""
    go, start = os.pipe()
    children = []
    for n in range(WRITERS):
        if not (child := os.fork()):
            os.close(start)
            os.read(go, 1)  # until the parent closes its end, so that all begin together
            os._exit(write_one(record, output, n, overwrite))
        children.append(child)
    os.close(start)
    codes, seen = [], []
    while children:
        for child in list(children):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                children.remove(child)
                codes.append(os.waitstatus_to_exitcode(status))
        if output.exists():
            seen.append(read_whole(output))
    print(json.dumps({"codes": codes, "seen": seen, "left": sorted(path.name for path in output.parent.iterdir())}))


@pytest.mark.parametrize("overwrite", [True, False])
def test_forty_predictions_into_one_file_and_a_reader_that_always_sees_a_whole_one(tmp_path, overwrite):
    record = write_record(tmp_path / "rain.nc", FIELDS)
    (tmp_path / "out").mkdir()
    program = "import pathlib, sys, test_outputs as t; a = sys.argv[1:]; "
    program += "t.write_together(pathlib.Path(a[0]), pathlib.Path(a[1]), overwrite=a[2] == 'True')"
    done = run_beside(__file__, program, record, tmp_path / "out" / "f.nc", overwrite)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["left"] == ["f.nc"]
    assert len(found["seen"]) > 1
    if overwrite:
        assert found["codes"] == [0] * WRITERS
        assert len(set(found["seen"])) > 1
    else:
        assert sorted(found["codes"]) == [0] + [5] * (WRITERS - 1)
        assert len(set(found["seen"])) == 1, "the first is kept"


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """A record and two other names for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    write_record("rain.nc", rain(frames=30, shape=(16, 18)))
    os.link("rain.nc", "hard.nc")
    os.symlink("rain.nc", "soft.nc")
    return tmp_path


@pytest.mark.parametrize("output", ["rain.nc", "./rain.nc", "hard.nc", "soft.nc"])
def test_a_record_is_never_the_output(inputs, output):
    before = Path("rain.nc").read_bytes()
    code, out, err = command("predict", "persistence", "rain.nc", "--output", output, "--overwrite")
    assert (code, out) == (5, "")
    assert err == f"error: {Path(output)} is an input (rain.nc), and no input is overwritten.\nChoose another output.\n"
    assert Path("rain.nc").read_bytes() == before
    assert Path("soft.nc").is_symlink()


def test_a_frame_of_the_record_is_never_the_output_of_a_folder(inputs):
    Path("radar").mkdir()
    for n in range(3):
        stamp = str(START + n * STEP).replace("-", "").replace(":", "")
        write_record(f"radar/{stamp}Z.nc", rain(frames=1, shape=(16, 18)), times=[START + n * STEP])
    before = {path.name: path.read_bytes() for path in Path("radar").iterdir()}
    code, _, err = command("predict", "persistence", "radar", "--output", "radar/", "--overwrite")
    assert code == 5
    assert "20200601T001000Z.nc is an input" in err
    assert {path.name: path.read_bytes() for path in Path("radar").iterdir()} == before


def test_a_checkpoint_is_never_the_output(inputs):
    run = tiny_run(inputs / "run", ["rain.nc"])
    checkpoint = run / "best.safetensors"
    before = checkpoint.read_bytes()
    os.link(checkpoint, "model.pt2")
    for argv in (
        ("predict", run, "rain.nc", "--output", checkpoint),
        ("predict", checkpoint, "rain.nc", "--output", "model.pt2"),
        ("export", run, "--output", "model.pt2"),
    ):
        code, _, err = command(*argv, "--overwrite")
        assert code == 5, err
        assert "is an input" in err
    assert checkpoint.read_bytes() == before


def test_a_forecast_in_the_run_folder_can_be_replaced(inputs):
    run = tiny_run(inputs / "run", ["rain.nc"])
    for _ in range(2):
        code, _, err = command("predict", run, "rain.nc", "--output", run / "forecast.nc", "--overwrite")
        assert code == 0, err


def test_scores_that_are_pooled_are_never_the_scores(inputs, undrawn):
    assert command("evaluate", "persistence", "--observations", "rain.nc", "--every", "30", "--output", "scores")[0] == 0
    before = Path("scores/scores.nc").read_bytes()
    code, _, err = command("evaluate", "scores/scores.nc", "--output", "scores", "--overwrite")
    assert code == 5, err
    assert "scores/scores.nc is an input" in err
    assert Path("scores/scores.nc").read_bytes() == before
    with netCDF4.Dataset("scores/scores.nc") as file:
        numbers = [variable for variable in file.variables.values() if variable.ndim and variable.dtype is not str]
        assert numbers
        assert all(variable.filters()["zlib"] and variable.filters()["fletcher32"] for variable in numbers)


def test_observations_and_forecasts_are_never_the_scores(inputs):
    Path("scores").mkdir()
    os.rename("rain.nc", "scores/scores.nc")
    before = Path("scores/scores.nc").read_bytes()
    argv = ("evaluate", "persistence", "--every", "30", "--output", "scores", "--overwrite", "--observations")
    code, _, err = command(*argv, "scores/scores.nc")
    assert code == 5
    assert "scores/scores.nc is an input" in err
    code, _, err = command(*argv, "hard.nc")  # the same file
    assert code == 5
    assert Path("scores/scores.nc").read_bytes() == before
    assert os.listdir("scores") == ["scores.nc"]


@pytest.mark.parametrize(
    "argv",
    [
        ("predict", "persistence", "rain.nc"),
        ("predict", "persistence", ".", "--watch"),
        ("evaluate", "persistence", "--observations", "rain.nc"),
    ],
)
def test_stdout_is_no_output(inputs, argv):
    before = sorted(os.listdir())
    code, out, err = command(*argv, "--output", "-")
    assert (code, out) == (2, "")
    assert err.startswith("error: --output -: output cannot go to stdout; give a file name")
    assert sorted(os.listdir()) == before


def test_forecasts_are_compressed_and_carry_check_sums(inputs):
    for name, more in (("one.nc", ()), ("many.nc", ("--every", "30"))):
        assert command("predict", "persistence", "rain.nc", "--output", name, *more)[0] == 0
        with netCDF4.Dataset(name) as file:
            filters = file["precip_intensity"].filters()
            assert filters["zlib"]
            assert filters["fletcher32"]
            assert all(file[name].filters()["fletcher32"] for name in ("y", "x", "time", "forecast_period"))


WHOLE = netCDF4.Dataset


class Failing(WHOLE):
    """Takes everything, and once closed lies `how` on the disk; a type of the module, as netCDF4's end needs its type alive."""

    how = "as written"

    def close(self):
        path, writing = Path(self.filepath()), "rain.nc" not in self.filepath()
        super().close()
        if not writing:
            return
        if type(self).how == "a value":
            with WHOLE(path, "a") as file:
                file["precip_intensity"][..., 3, 3] = 55.0
        elif type(self).how == "cut off":
            os.truncate(path, path.stat().st_size // 2)
        else:
            path.write_bytes(b"")


@pytest.mark.parametrize("how", ["a value", "cut off", "gone"])
@pytest.mark.parametrize("more", [(), ("--every", "30")], ids=["one", "many"])
def test_a_file_that_does_not_read_back_as_it_was_written_gets_no_name(inputs, monkeypatch, how, more):
    """The disk takes everything and gives something else back."""
    monkeypatch.setattr(Failing, "how", how)
    monkeypatch.setattr(netCDF4, "Dataset", Failing)
    before = sorted(os.listdir())
    code, out, err = command("predict", "persistence", "rain.nc", "--output", "f.nc", *more)
    assert (code, out) == (5, "")
    assert "f.nc cannot be written: it " in err
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("output", "argv"),
    [
        ("f.nc", ("predict", "persistence", "rain.nc")),
        ("s.csv", ("series", "rain.nc", "--at", "50.1,5.2")),
        ("s.nc", ("series", "rain.nc", "--at", "50.1,5.2")),
        ("p.png", ("plot", "rain.nc")),
        ("new/", ("convert", "rain.nc")),
    ],
)
def test_what_a_killed_command_left_is_removed_by_the_next(inputs, output, argv):
    left = Path(output) / "a.nc" if output.endswith("/") else Path(output)
    left.parent.mkdir(exist_ok=True)
    program = "import sys; from pathlib import Path; from nowcast.runtime import outputs; "
    program += "outputs.temporary_path(Path(sys.argv[1])).touch()"
    subprocess.run([sys.executable, "-c", program, left], check=True)
    assert list(left.parent.glob(".*.partial"))
    assert command(*argv, "--output", output)[0] == 0
    assert not list(left.parent.glob(".*.partial"))


@pytest.mark.parametrize(
    ("work", "argv"),
    [
        ("nowcast.commands.plot.open_frames", ("plot", "rain.nc", "--output", "new.png")),
        ("nowcast.commands.plan.plan_records", ("plan", "rain.nc", "--output", "new.png")),
        ("nowcast.report.folder.as_html", ("evaluate", "persistence", "--observations", "rain.nc", "--output", ".")),
    ],
)
def test_a_file_that_appears_during_the_work_is_kept(inputs, monkeypatch, undrawn, work, argv):
    done, output = pkgutil.resolve_name(work), Path("scores.csv" if argv[0] == "evaluate" else "new.png")

    def meanwhile(*args, **options):
        output.write_text("of another process")
        return done(*args, **options)

    monkeypatch.setattr(work, meanwhile)
    code, _, err = command(*argv)
    assert (code, output.read_text()) == (5, "of another process"), err
    assert f"{output} exists already" in err
