"""Parse TOML; the error for an invalid line quotes it and says what would be right, for the slips that people often make."""

import re
import tomllib
from collections.abc import Sequence
from typing import Any

from nowcast.errors import UsageError

_AT = re.compile(r"(?P<reason>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)")
_AT_END = " (at end of document)"  # in place of a line
_TEXT = re.compile(r'"[^"\\]*"|\'[^\']*\'')  # a complete text, which no pattern of a slip looks into
_PUT_FOR_TEXT = "<>"  # in no pattern of a slip
_SHOWN = 60  # letters of a line that are quoted
_BEGINS = "the line begins with it: "  # before the reason, where that is about the first letter of the line
_ARRAY, _TIME = "Unclosed array", "a date, or a date and a time with seconds: 2020-06-01, 2020-06-01T12:00:00Z"
_SECTION, _KEY = "a section in square brackets: [training]", "a key without spaces, = and a value: steps = 100"
_LIST = "a list in square brackets, with commas between its values: [1, 2]"
_QUOTES, _POINT = 'a text in quotes: "text"', "a point in a number, not a comma: 0.5; and 10000 without one"
_TABLE, _ONCE = "a table in braces on one line, with commas between its keys: {a = 1, b = 2}", "each key and each section once"
# what is no number or date, behind an =: tomllib misses the end of the table where the number or date ends
_NO_NUMBER = r"=\s*([-+\d._]*\d(?!e[-+\d])[A-Za-z^%*/]|[-+\d.]+\s+\d|[-+]?0\d|\d{4}-\d)"
_SLIPS = (  # patterns of tomllib's reason, and of the line with its texts replaced, and what is expected
    ("Cannot |Duplicate inline table key", "", _ONCE),
    ("Expected '='", r"\{.*=\s*[-+]?\d+,\d+\s*[,}]", _POINT),
    ("Unclosed inline table", rf"^(?!.*{_NO_NUMBER})", _TABLE),
    ("Invalid initial character", r"\{", _TABLE),
    ("Unterminated string", "", "three quotes at both ends of a text of several lines"),
    ("Expected newline", r"\}", _TABLE),
    (f"{_BEGINS}(Unclosed array|Invalid value)", r"^[\w.-]+\s*=|^\[[A-Za-z]", "a ] before this line, at the end of the list"),
    (r"Expected '\]", "", _SECTION),
    ("Expected newline", r"^\[", _SECTION),
    (_ARRAY, r"\d{4}-\d", _TIME),
    (_ARRAY, "", _LIST),
    (rf"Invalid value{re.escape(_AT_END)}", r"\[[^\]]*$", _LIST),
    ("", r'"[^"]*\\', r"a text with backslashes in single quotes, 'C:\radar', or with slashes in their place"),
    ("", r"[“”„«»‘’]", 'straight quotes: "text"'),
    ("", r"[\u00a0\u202f]", "plain spaces, where this line has one that does not break"),
    ("", r"[\u2212\u2013]", "the minus sign of the keyboard: -1"),
    ("", r"[\"']", 'a text in quotes at both ends: "text"'),
    ("Expected '='|Invalid statement", "", _KEY),
    ("", "==", _KEY),
    ("Expected newline", r",\s*$", "no comma at the end of the line"),
    ("", r"\d{4}-\d", _TIME),
    ("", r"(?<![\w.])\.\d|\d\.(?!\d)", "digits on both sides of the point of a number: 0.5, 1.0"),
    ("", r"^[^\[]*\d,\d", _POINT),
    ("", r"(?i)\b(true|false|yes|no|on|off)\b", "true or false, in small letters"),
    ("", r"=\s*(\(|[^\[]*,)", "a list in square brackets: [1, 2]"),
    ("", r"[=\[,]\s*[-+]?\d", "a plain number, without unit, zeros before it or sum: 10000, 0.05, 1e-3"),
    (f"{_BEGINS}Invalid value", "", _QUOTES),
    ("", r"[=\[,]\s*([^\W\d]|[~/])", _QUOTES),
)


def parse(text: str, what: str) -> dict[str, Any]:
    """Return the values of a TOML text. Raises UsageError (exit 2), with the line and what is expected; what: its name."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{what} is not valid TOML{_explain(text, str(error))}") from None


def _explain(text: str, error: str) -> str:
    """Return the rest of the message for tomllib's error: the line, and in a second one what is expected."""
    at, lines = _AT.fullmatch(error), text.split("\n")
    reason = at["reason"] if at else error.removesuffix(_AT_END)
    number = int(at["line"]) if at else _opened(lines)
    if number > len(lines) or not (at or error.endswith(_AT_END)):
        return f": {error}"
    whole = lines[number - 1]
    line, bare = whole.strip(), _bare(whole)
    told = reason if at else error
    told = _BEGINS + told if at and not whole[: int(at["column"]) - 1].strip() else told
    hints = [hint for pattern, slip, hint in _SLIPS if re.search(pattern, told) and re.search(slip, bare)]
    shown = line[:_SHOWN] + ("…" if len(line) > _SHOWN else "")
    return f", line {number}: {shown}\n{f'Expected {hints[0]}' if hints else reason}."


def _bare(line: str) -> str:
    """Return a line without its comment and the spaces around it, and its complete texts replaced."""
    return _TEXT.sub(_PUT_FOR_TEXT, line.strip()).partition("#")[0].rstrip()


def _opened(lines: Sequence[str]) -> int:
    """Return the number, from 1, of the line with the last bracket that is not closed, else of the last line with a text."""
    opened, last = [], 1
    for number, line in enumerate(map(_bare, lines), 1):
        last = number if line else last
        for letter in line:
            if letter in "[{":
                opened.append(number)
            elif letter in "]}" and opened:
                opened.pop()
    return opened[-1] if opened else last
