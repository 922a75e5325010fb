"""The progress bar of a terminal and the lines of the log share it without a loss."""

import logging
import re
import sys
import time

import pytest
from makers import rain, tiny_experiment, write_record
from makers.terminals import screen, terminal

from nowcast import cli, config
from nowcast.runtime.log_lines import LogLines
from nowcast.runtime.progress import Progress

MESSAGES = [
    "153,232 parameters, 20 training windows",
    "step 1: validation loss 0.5",
    "a line that is longer than " + "that, " * 20,
]


@pytest.fixture
def logger():
    """The package's log at its level INFO, without handlers."""
    root = logging.getLogger("nowcast")
    before = root.handlers[:], root.level, root.propagate
    root.handlers[:], root.propagate = [], False
    root.setLevel(logging.INFO)
    yield root
    root.handlers[:], level, root.propagate = before
    root.setLevel(level)


def wrapped(line, columns):
    """The rows that a line takes on a terminal."""
    return [line[start : start + columns].rstrip() for start in range(0, len(line), columns)]


def test_a_screen_shows_what_a_terminal_does():
    assert screen("abcd\rxy\r\nefgh", 3) == ["abc", "xy", "efg", "h"]
    assert screen("one\r\ntwo\x1b[A\rO\n", 10) == ["One", "two"]
    assert screen("abc\r   \r", 3) == []


@pytest.mark.parametrize("columns", [80, 200])
def test_a_line_of_the_log_is_whole_where_a_bar_is(columns, logger, monkeypatch):
    with terminal(columns) as (stream, rows):
        monkeypatch.setattr(sys, "stderr", stream)
        logger.addHandler(LogLines(stream))
        with Progress("training", total=3, unit="step") as progress:
            for message in MESSAGES:
                logger.info("%s", message)
                progress.advance(loss="0.1")
        shown = rows()
    assert shown == [row for message in MESSAGES for row in wrapped(message, columns)]


@pytest.mark.parametrize("columns", [80, 200])
def test_a_bar_is_drawn_again_below_a_line(columns, logger, monkeypatch):
    with terminal(columns) as (stream, rows):
        monkeypatch.setattr(sys, "stderr", stream)
        logger.addHandler(LogLines(stream))
        with Progress("training", total=3, unit="step"):
            logger.info("%s", MESSAGES[0])
            shown = rows()
    assert shown[0] == MESSAGES[0]
    assert re.match(r"training: +0%\|", shown[1])
    assert len(shown) == 2


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 200])
def test_train_tells_on_a_terminal_what_its_log_file_has(columns, cache, logger, tmp_path, monkeypatch):
    record = write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28)))
    (tmp_path / "tiny.toml").write_text(config.write(tiny_experiment([record])))
    words = ["train", str(tmp_path / "tiny.toml"), "--output", str(tmp_path / "run"), "--device", "cpu"]
    with terminal(columns) as (stream, rows):
        monkeypatch.setattr(sys, "stderr", stream)
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        shown = rows()
    assert not end.value.code, shown
    logged = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8").splitlines()
    lines = [re.sub(r"^\S+ \S+ [A-Z]+ ", "", line) for line in logged]
    assert any("parameters" in line for line in lines)
    expected = [row for line in lines for row in wrapped(line, columns)]
    first = shown.index(expected[0])
    assert shown[first : first + len(expected)] == expected


def test_the_rate_leaves_out_what_precedes_the_first_unit(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    progress = Progress("training", total=11, unit="step")
    for clock[0] in (100.0, 125.0):  # a validation takes the first 99 s
        progress.advance(loss="1")
    assert caplog.messages == ["training 1/11 steps, loss 1", "training 2/11 steps, 25 s per step, 00:03:45 left, loss 1"]


def test_a_line_gives_a_rate_above_one_a_second_and_none_at_the_end(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    progress = Progress("packing rain", total=301, unit="frame")
    for _ in range(300):
        clock[0] += 0.125
        progress.advance()
    clock[0] += 60
    progress.advance()
    assert caplog.messages == ["packing rain 161/301 frames, 8 frames/s, 00:00:17 left"]
