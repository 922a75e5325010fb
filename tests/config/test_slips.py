"""An invalid line of TOML is quoted, with what would be right: the slips that people make when they write a config."""

import pytest
from makers import ROOT

from nowcast import config
from nowcast.errors import UsageError

QUICK = ROOT / "configs" / "quickstart.toml"
NUMBER = "a plain number, without unit, zeros before it or sum: 10000, 0.05, 1e-3"
POINT = "digits on both sides of the point of a number: 0.5, 1.0"
TEXT = 'a text in quotes: "text"'
SINGLE = r"a text with backslashes in single quotes, 'C:\radar', or with slashes in their place"
KEY = "a key without spaces, = and a value: steps = 100"
TIME = "a date, or a date and a time with seconds: 2020-06-01, 2020-06-01T12:00:00Z"
LIST = "a list in square brackets, with commas between its values: [1, 2]"
TABLE, ONCE = "a table in braces on one line, with commas between its keys: {a = 1, b = 2}", "each key and each section once"
SLIPS = {
    "learning_rate = .001": POINT,
    "learning_rate = 1.": POINT,
    "weights = [0.5, .5]": POINT,
    "learning_rate = 0,001": "a point in a number, not a comma: 0.5; and 10000 without one",
    "learning_rate = 10^-3": NUMBER,
    "steps = 10 000": NUMBER,
    "every = 5min": NUMBER,
    "clip = \u22121": "the minus sign of the keyboard: -1",
    "optimizer = adamw": TEXT,
    "records = data/sample.nc": TEXT,
    "records = ~/radar": TEXT,
    'optimizer = "adamw': 'a text in quotes at both ends: "text"',
    "optimizer = “adamw”": 'straight quotes: "text"',
    "compile = True": "true or false, in small letters",
    r'records = "C:\data\radar"': SINGLE,
    r'records = "C:\users\radar"': SINGLE,
    "steps 100": KEY,
    "steps: 100": KEY,
    "batch size = 8": KEY,
    "steps\u00a0= 100": "plain spaces, where this line has one that does not break",
    "test = [2020-06-01T00:00]": TIME,
    "betas = (0.9, 0.99)": "a list in square brackets: [1, 2]",
    "betas = [0.9 0.99]": LIST,
    "betas = 0.9, 0.99": "a list in square brackets: [1, 2]",
    'records = "a.nc", "b.nc"': "a list in square brackets: [1, 2]",
    "steps = 100,": "no comma at the end of the line",
    'optimizer = "adamw",': "no comma at the end of the line",
    "steps = 007": NUMBER,
    "[training": "a section in square brackets: [training]",
    "seed = 1": ONCE,
    "[data]": ONCE,
    "[training]]": "a section in square brackets: [training]",
    "[[training]": "a section in square brackets: [training]",
    "splits = {training = 0.8": TABLE,
    "splits = {training = 1e-3": TABLE,
    "splits = {training = 0.8,": TABLE,
    "splits = {training = 0.8, }": TABLE,
    "splits = {training = 0.8]": TABLE,
    "splits = {training = 0.8}}": TABLE,
    "splits = {training = 0.8 validation = 0.2}": TABLE,
    'transform = {name = "log" units = "mm/h"}': TABLE,
    "splits = {": TABLE,
    "splits = {training = 0.8, training = 0.2}": ONCE,
    "splits = {training = 0,8}": "a point in a number, not a comma: 0.5; and 10000 without one",
    "splits = {every = 5min}": NUMBER,
    "splits = {steps = 10 000}": NUMBER,
    "splits = {test = 2020-6-1}": TIME,
    "betas = {a = [1, 2}": LIST,
}
AT_THE_END = {  # of a file without another line, where tomllib names none
    "splits = {training = 0.8": (1, TABLE),
    "[data]\nsplits = {": (2, TABLE),
    'a = 1\nrecords = [\n  "a.nc", # [\n  "b.nc"\n\n# end\n': (2, LIST),
    'a = [1]\nsplits = {training = [["2020-01-01", "2020-02-01"]\n': (2, LIST),
    "betas = [\n  0.9,\n": (1, LIST),
    "betas = [0.9,  # the first": (1, LIST),
    'a = """text\nof lines\n': (2, "three quotes at both ends of a text of several lines"),
}
IN_LISTS = {  # two lines of which the second is told
    "betas = [0.9, 0.99\nsteps = 100": "a ] before this line, at the end of the list",
    "betas = [0.9,\n  steps = 100": "a ] before this line, at the end of the list",
    "betas = [0.9, 0.99\n[training]": "a ] before this line, at the end of the list",
    "betas = [0.9,\n  .99]": POINT,
    'records = ["a.nc",\n  b.nc]': TEXT,
    'records = ["a.nc",\n  /b.nc]': TEXT,
    "betas = [0.9\n  0.99]": LIST,
}


@pytest.mark.parametrize("line", SLIPS)
def test_a_slip_is_told_with_its_line_and_what_is_right(tmp_path, line):
    (tmp_path / "a.toml").write_text(f"[data]\nseed = 0 # 'a comment\n{line} # why\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        config.read(tmp_path / "a.toml")
    assert str(caught.value) == f"{tmp_path / 'a.toml'} is not valid TOML, line 3: {line} # why\nExpected {SLIPS[line]}."


@pytest.mark.parametrize("text", AT_THE_END)
def test_a_slip_that_shows_at_the_end_is_told_with_the_line_of_the_bracket(tmp_path, text):
    (tmp_path / "a.toml").write_text(text, encoding="utf-8")
    number, expected = AT_THE_END[text]
    with pytest.raises(UsageError) as caught:
        config.read(tmp_path / "a.toml")
    told = f"line {number}: {text.splitlines()[number - 1].strip()}\nExpected {expected}."
    assert str(caught.value) == f"{tmp_path / 'a.toml'} is not valid TOML, {told}"


@pytest.mark.parametrize("lines", IN_LISTS)
def test_a_slip_in_a_list_of_several_lines_is_told(tmp_path, lines):
    (tmp_path / "a.toml").write_text(lines + "\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        config.read(tmp_path / "a.toml")
    told = f"line 2: {lines.splitlines()[1].strip()}\nExpected {IN_LISTS[lines]}."
    assert str(caught.value) == f"{tmp_path / 'a.toml'} is not valid TOML, {told}"


def test_a_line_that_no_hint_fits_is_quoted_with_the_reason(tmp_path):
    (tmp_path / "a.toml").write_text("steps =\n")
    with pytest.raises(UsageError, match=r"a\.toml is not valid TOML, line 1: steps =\nInvalid value\."):
        config.read(tmp_path / "a.toml")


def test_files_of_windows_are_read(tmp_path):
    expected = config.read(QUICK)
    text = QUICK.read_text(encoding="utf-8")
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert config.read(tmp_path / "a.toml") == expected
    (tmp_path / "a.toml").write_text(text, encoding="utf-16")
    with pytest.raises(UsageError, match=r"^cannot read the config .*\nExpected text in UTF-8: save it so\.$"):
        config.read(tmp_path / "a.toml")


def test_a_section_in_double_brackets_is_told(tmp_path):
    (tmp_path / "a.toml").write_text(QUICK.read_text(encoding="utf-8").replace("[training]", "[[training]]"))
    with pytest.raises(UsageError, match=r"toml: training is no section; write \[training\] once, in single brackets, and its"):
        config.read(tmp_path / "a.toml")
