"""What nobody foresaw: signals, a full disk, no memory and bugs end a command in a line and with their exit code."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from makers import command, expect
from makers.processes import Forked, run_nowcast

from nowcast import __main__
from nowcast.commands import predict as predict_command
from nowcast.errors import Stopped

pytestmark = pytest.mark.usefixtures("workplace")


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (MemoryError(), 7, "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 7, "out of memory"),
        (OSError(28, "No space left on device", "run/metrics.jsonl"), 5, r"run/metrics\.jsonl: No space left on device"),
        (PermissionError(13, "Permission denied", "x"), 5, "x: Permission denied"),
    ],
)
def test_failures_of_the_machine_end_in_one_line(inputs, monkeypatch, error, code, says):
    monkeypatch.setattr(predict_command, "open_with_index", failing(error))
    expect(code, "predict", "persistence", inputs / "rain.nc", "--output", "f.nc", says=says)


def test_sigterm_ends_a_command_in_a_line(inputs, monkeypatch):
    monkeypatch.setattr(predict_command, "open_with_index", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert command("predict", "persistence", inputs / "rain.nc", "--output", "f.nc") == (143, "", "terminated\n")
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("stopped", "says"),
    [(KeyboardInterrupt(), "interrupted"), (Stopped("stopped at step 3, state saved", signal_number=2), "stopped at step 3, ")],
)
def test_to_be_stopped_is_no_error(inputs, monkeypatch, stopped, says):
    monkeypatch.setattr(predict_command, "open_with_index", failing(stopped))
    code, out, err = command("predict", "persistence", inputs / "rain.nc", "--output", "f.nc")
    assert (code, out, os.listdir()) == (130, "", [])
    assert err.startswith(says)


def test_a_bug_keeps_its_traceback(inputs, monkeypatch):
    monkeypatch.setattr(predict_command, "open_with_index", failing(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        command("predict", "persistence", inputs / "rain.nc", "--output", "f.nc")


def test_a_file_that_ends_too_early_is_no_ctrl_d(inputs, monkeypatch):
    """It ended with exit code 130, "interrupted"."""
    monkeypatch.setattr(predict_command, "open_with_index", failing(EOFError("No data left in file")))
    with pytest.raises(EOFError, match="No data left"):
        command("predict", "persistence", inputs / "rain.nc", "--output", "f.nc")


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error(inputs):
    line = f"{sys.executable} -m nowcast inspect {inputs / 'rain.nc'} --format json | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.stdout == "[\n"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_interrupt_while_the_command_line_is_imported_ends_in_one_line(monkeypatch, capsys):
    class CutOff:
        def __getattr__(self, _name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "nowcast.cli", CutOff())
    with pytest.raises(SystemExit) as end:
        __main__.run()
    assert (end.value.code, capsys.readouterr().err) == (130, "interrupted\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_training_with_its_state_saved(inputs, tmp_path, number, code):
    argv = ["train", inputs / "tiny.toml", "--set", "training.steps=100000", "--output", "run"]
    with Forked(run_nowcast, argv, env=os.environ, folder=tmp_path) as process:
        while "\nstep 3:" not in (process.stderr.read_text() if process.stderr.exists() else ""):
            assert process.is_running()
            time.sleep(0.02)
        os.kill(process.pid, number)
        done = process.wait(60)
    err = done.stderr
    assert done.returncode == code
    assert "state saved; --resume goes on from there" in err
    assert "Traceback" not in err
    assert Path("run/last.safetensors").exists()


def test_logging_is_set_up_once_however_often_commands_run(inputs):
    for _ in range(3):
        command("inspect", inputs / "rain.nc")
    assert len(logging.getLogger("nowcast").handlers) == 1


@pytest.mark.parametrize("device", ["cpu:foo", "cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_a_usage_error(inputs, device):
    expect(
        2,
        "predict",
        "persistence",
        "rain.nc",
        "--output",
        "f.nc",
        "--device",
        device,
        says=f"--device {device}: there is no such",
    )
