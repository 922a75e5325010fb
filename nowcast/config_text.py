"""A config as people write it: one line for each key, with a comment that says why, and the comments read back.

`config.write` gives bare TOML; this is the layout of configs/radar.toml.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tomli_w

from nowcast.config import Experiment, as_toml

COMMENT_COLUMN = 30
_LINE = re.compile(r"(\w+) = [^#]*?(?:#\s*(.*))?$")


def write_commented(experiment: Experiment, comments: Mapping[str, str], head: Sequence[str] = ()) -> str:
    """TOML text with every key in its section's order; `comments` go by dotted key, `head` stands above it all."""
    lines = [f"# {line}".rstrip() for line in head]
    for section, values in _sections(as_toml(experiment)):
        lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
        for key, value in values.items():
            line, comment = f"{key} = {inline(value)}", comments.get(f"{section}.{key}", "")
            lines.append(f"{line:<{COMMENT_COLUMN - 1}} # {comment}" if comment else line)
    return "\n".join(lines) + "\n"


def read_comments(text: str) -> dict[str, str]:
    """{dotted key: comment} of the keys that have one on their line."""
    found, section = {}, ""
    for line in text.splitlines():
        if opened := re.match(r"\[([\w.]+)\]", line):
            section = opened[1]
        elif (key := _LINE.match(line)) and key[2]:
            found[f"{section}.{key[1]}"] = key[2]
    return found


def rewritten(text: str, experiment: Experiment) -> str:
    """The experiment with the comments and the head of a config that was written before."""
    head = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        head.append(line[1:].removeprefix(" "))
    return write_commented(experiment, read_comments(text), head)


def _sections(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(dotted name, plain keys) of every table, sub-tables after the keys of their own table."""
    plain = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    if above:
        yield above, plain
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _sections(value, f"{above}.{key}".strip("."))


def inline(value: Any) -> str:
    """A TOML value on one line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline, value))}]"
    return tomli_w.dumps({"key": value}).removeprefix("key = ").rstrip("\n")
