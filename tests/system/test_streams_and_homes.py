"""What a command does where stderr is closed or unread, and where ~ stands in a name that no shell has expanded."""

import subprocess
import sys

import numpy as np
import pytest
from makers import command, write_record

from nowcast.commands.arguments import expand_home, join_command
from nowcast.netcdf.files import expand
from nowcast.runtime.cache import cache_folder

NOWCAST = [sys.executable, "-m", "nowcast"]


def run(command, folder, redirection):
    line = " ".join([*NOWCAST, *command])
    return subprocess.run(["bash", "-c", f"{line} {redirection}"], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["2>&-", "2> >(exec true)", "<&- 2>&-"])
def test_a_closed_stderr_changes_neither_result_nor_exit_code(tmp_path, monkeypatch, redirection):
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "a.nc", np.ones((3, 4, 4)))
    (tmp_path / "bad.nc").write_bytes(b"GRIB")
    _, usual, _ = command("inspect", "a.nc")
    done = run(["inspect", "a.nc"], tmp_path, redirection)
    assert (done.returncode, done.stdout) == (0, usual)
    assert run(["inspect", "absent.nc"], tmp_path, redirection).returncode == 2
    assert run(["inspect", "bad.nc"], tmp_path, redirection).returncode == 3


def test_home_is_expanded_where_no_shell_does_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NOWCAST_CACHE", "~/x")
    assert cache_folder() == tmp_path / "x"
    assert expand_home(["predict", "--output=~/f.nc", "--data=~", "-q", "~x", "--set=a=~/b"]) == [
        "predict", f"--output={tmp_path}/f.nc", f"--data={tmp_path}", "-q", "~x", "--set=a=~/b",
    ]  # fmt: skip
    write_record(tmp_path / "radar.nc", np.zeros((2, 4, 4)))
    assert expand("~/radar.nc") == [tmp_path / "radar.nc"]
    assert expand("~/*.nc") == [tmp_path / "radar.nc"]


def test_a_command_to_go_on_with_has_the_options_that_were_given():
    options = {
        "--observations": ["my radar.nc", "b"],
        "--variable": "rr",
        "--every": 10.0,
        "--start": None,
        "--output": "scores/",
    }
    assert join_command("nowcast evaluate", ["a", ...], options) == (
        "nowcast evaluate a RECORD... --observations 'my radar.nc' b --variable rr --every 10 --output scores/"
    )
